"""Rows of text in JSON lines, CSV and Parquet files, through Hugging Face datasets."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from glu_bench.errors import DataError, suggest

ROW_FORMATS = {
    ".jsonl": "json",
    ".ndjson": "json",
    ".json": "json",
    ".csv": "csv",
    ".parquet": "parquet",
}


def row_format(path: Path) -> str | None:
    """The ending that makes a file one of rows (.jsonl, .csv, …), packed or not; None for text."""
    ending = Path(path.stem).suffix if path.suffix in (".gz", ".zst") else path.suffix
    return ending if ending in ROW_FORMATS else None


def read_rows(path: Path, column: str) -> Iterator[str]:
    """Text of each row in order, streamed.

    Raises: DataError if the file is not what its ending says or has no such column of text.
    """
    from datasets import load_dataset
    from datasets.utils import logging

    logging.set_verbosity(logging.CRITICAL)  # what it has to say of an error is in ours
    ending = row_format(path)
    assert ending is not None  # the caller looked
    try:
        rows = load_dataset(ROW_FORMATS[ending], data_files=[str(path)], split="train", streaming=True)
        yield from pick_column(rows, column, str(path))
    except DataError:
        raise
    except Exception as error:  # each reader has exceptions of its own
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(f"{path}: not readable as {ROW_FORMATS[ending]} ({first})") from None


def pick_column(rows: Any, column: str, where: str) -> Iterator[str]:
    """One column of a dataset's rows, which must be text; nulls are skipped.

    Raises: DataError naming the columns that are there.
    """
    for number, row in enumerate(rows):
        if column not in row:
            names = ", ".join(map(str, row))
            raise DataError(
                f"{where}: no column '{column}'; there are {names}{suggest(column, map(str, row))}"
                "; choose with data.column"
            )
        text = row[column]
        if text is None:
            continue
        if not isinstance(text, str):
            raise DataError(
                f"{where}: column '{column}' holds {type(text).__name__} in row {number}, not text"
            )
        if "\0" in text or any("\ud800" <= c <= "\udfff" for c in text if c >= "\ud800"):
            raise DataError(f"{where}: row {number} of column '{column}' holds a NUL or a lone surrogate")
        yield text
