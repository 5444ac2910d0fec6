"""Datasets of the Hugging Face Hub: one place that asks, and that says what went wrong."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from typing import Any

from glu_bench import schema
from glu_bench.data.rows import pick_column
from glu_bench.errors import DataError, suggest

STREAM_RETRIES = 2  # after a connection broke off while streaming


def read_split(data: schema.Data, split: str) -> Iterator[str]:
    """Text of each row of a split, in order; streamed in constant memory if data.streaming.

    Raises: DataError if the Hub cannot be reached, the dataset is missing or gated, the split or
    the column is not there, or the connection breaks.
    """
    where = f"{data.path}" + (f" ({data.name})" if data.name else "")
    try:
        rows = _load(data, split)
        yield from pick_column(rows, data.column, f"{where}, split {split}")
    except DataError:
        raise
    except Exception as error:  # datasets, the hub client and the HTTP client each have their own
        raise DataError(f"{where}: {explain_hub(error)}") from None


def _load(data: schema.Data, split: str) -> Any:
    from datasets import config, get_dataset_split_names, load_dataset

    assert data.path is not None  # check_config saw to it
    config.USE_PARQUET_EXPORT = False  # else the dataset viewer, another server, is asked
    # by default a broken stream is tried 20 times, each try again with the client's own: ten minutes
    config.STREAMING_OPEN_MAX_RETRIES = config.STREAMING_READ_MAX_RETRIES = STREAM_RETRIES
    config.STREAMING_OPEN_RETRY_INTERVAL = config.STREAMING_READ_RETRY_INTERVAL = 1
    logging.getLogger("huggingface_hub.repocard").setLevel(logging.ERROR)  # a card may say little
    names = get_dataset_split_names(data.path, data.name, revision=data.revision)
    if split not in names:
        raise DataError(
            f"{data.path}: no split '{split}'; there are {', '.join(names)}{suggest(split, names)}"
        )
    return load_dataset(data.path, data.name, split=split, revision=data.revision, streaming=data.streaming)


def explain_hub(error: Exception) -> str:
    """Why the Hub did not give a dataset or a file, in one line."""
    chain: list[BaseException] = [error]
    while (follow := chain[-1].__cause__ or chain[-1].__context__) is not None and follow not in chain:
        chain.append(follow)
    names = {type(link).__name__ for link in chain}
    first = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
    switches = ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE")
    offline = any(os.environ.get(name, "") not in ("", "0") for name in switches)
    if offline or names & {"OfflineModeIsEnabled"}:
        return f"offline (HF_HUB_OFFLINE) and not in the cache; prepare it once with a connection ({first})"
    if names & {"GatedRepoError"} or "gated" in str(error).lower():
        return "gated: accept its terms on the Hub and set HF_TOKEN"
    if names & {"DatasetNotFoundError", "RepositoryNotFoundError", "RevisionNotFoundError"}:
        return f"not on the Hub, or private ({first})"
    if any("Connect" in name or "Timeout" in name or "Protocol" in name for name in names):
        return f"no connection to the Hub, or it broke off ({first}); nothing half-made is kept, try again"
    return first
