"""A run's two records: metrics.jsonl, a row a logged step, and result.json, written last.

result.json carries the checksum of its own content, so that an edited one is not taken for a
finished run.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, TypeGuard

from glu_bench.errors import DataError
from glu_bench.faults import reach
from glu_bench.files import (
    dump_json,
    explain_disk,
    parse_object,
    read_json,
    sha256_bytes,
    write_json,
    write_text,
)

CHECKSUM = "record_sha256"
ROWS_LIMIT_BYTES = 2**30  # a row takes 200 bytes: five million of them
MAX_NUMBER = 1e100  # its square, and sums of squares, are numbers still


def write_record(path: Path, record: dict[str, Any]) -> None:
    """Write a record with its checksum, atomically."""
    write_json(path, add_checksum(record))


def add_checksum(record: dict[str, Any]) -> dict[str, Any]:
    """The record with the checksum of its content, as `read_record` expects it."""
    return {**record, CHECKSUM: _digest(record)}


def read_record(path: Path) -> dict[str, Any]:
    """A record without its checksum.

    Raises: DataError if it is torn or was edited.
    """
    record = read_json(path)
    checksum = record.pop(CHECKSUM, None)
    if checksum != _digest(record):
        raise DataError(f"{path}: does not match its checksum, it was edited or torn")
    return record


def append_row(path: Path, row: dict[str, Any]) -> None:
    """Add a row to metrics.jsonl."""
    line = json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n"
    with explain_disk(path, len(line)), path.open("a", encoding="utf-8") as file:
        file.write(line[: len(line) // 2])
        file.flush()
        reach("log.half_line")
        file.write(line[len(line) // 2 :])


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Rows of metrics.jsonl in order; a torn last line is left out, no file means no row.

    Raises: DataError for a torn line that is not the last, or a row without its step.
    """
    if not path.exists():
        return []
    if path.stat().st_size > ROWS_LIMIT_BYTES:
        raise DataError(f"{path}: larger than {ROWS_LIMIT_BYTES // 2**20} MiB, not a log of glu-bench")
    rows = []
    lines = path.read_bytes().split(b"\n")
    for number, line in enumerate(lines, start=1):
        if not line:
            continue
        try:
            row = parse_object(line.decode("utf-8"))
        except (ValueError, RecursionError):
            if number == len(lines):
                break  # the process was killed while it wrote
            raise DataError(f"{path}:{number}: not a row of JSON") from None
        if type(row.get("step")) is not int:
            raise DataError(f"{path}:{number}: a row without its step")
        rows.append(row)
    return rows


def drop_rows_after(path: Path, step: int) -> None:
    """Keep the rows up to a step, so that a resumed run writes each later one once."""
    if path.exists():
        kept = [row for row in read_rows(path) if row["step"] <= step]
        write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in kept))


def _digest(record: dict[str, Any]) -> str:
    return sha256_bytes(dump_json(record).encode())


def is_number(value: object) -> TypeGuard[float]:
    """Whether a value of a record is a number to compute with: finite, and its square far from overflow."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= MAX_NUMBER


def read_number(value: object) -> float | None:
    """The value if it is a number to compute with, else None."""
    return value if is_number(value) else None
