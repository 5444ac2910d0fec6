"""Whether a run folder still holds what was written into it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from glu_bench.errors import DataError
from glu_bench.files import read_json, sha256_file
from glu_bench.runs.checkpoint import check_checkpoint, list_checkpoints
from glu_bench.runs.folder import Run
from glu_bench.runs.publish import FILE as PUBLISHED
from glu_bench.runs.publish import check_published, is_published

# what result.json vouches for beside blocks.safetensors; the byte tokenizer has no file
PARTS = ("config.yaml", "environment.json", "metrics.jsonl", "tokenizer.json")
CHECKSUMS = "files_sha256"


@dataclass(frozen=True)
class Problem:
    """Something that is not as it was written: its file, or folder of a checkpoint, and what is wrong."""

    path: Path
    text: str


def hash_parts(run: Run) -> dict[str, str]:
    """The sha256 of each of PARTS that is there, for the final record."""
    return {name: sha256_file(run.path / name) for name in PARTS if (run.path / name).is_file()}


def verify_run(run: Run) -> list[str]:
    """What is broken, a line each; empty if every checksum agrees."""
    return [problem.text for problem in find_problems(run)]


def find_problems(run: Run) -> list[Problem]:
    """What is broken; empty if every checksum agrees.

    The configuration must hash to the run's id, the final record to its own checksum, the settings,
    the machine's facts, the logged rows, the tokenizer and the held-out windows to the record's, every
    file of every checkpoint to its manifest; a published run's files to published.json. What an
    unfinished run does not have yet is not missed, and of a run finished before records held these
    checksums, the rows cannot be checked.
    """
    found: dict[Path, Problem] = {}  # a line a file: what is unreadable does not match either
    run_id = None
    identity = _check_identity(run)
    if isinstance(identity, Problem):
        found[identity.path] = identity
    else:
        run_id = identity
    for problem in _check_published(run) if is_published(run.path) else _check_files(run, run_id):
        found.setdefault(problem.path, problem)
    return list(found.values())


def _check_identity(run: Run) -> str | Problem | None:
    """The id that environment.json gives and the configuration hashes to; None before a run began."""
    environment = run.path / "environment.json"
    try:
        run.config()
        if environment.exists():
            return run.run_id
    except DataError as error:
        about = environment if str(error).startswith(str(environment)) else run.path / "config.yaml"
        return Problem(about, str(error))
    left = [name for name in ("result.json", "metrics.jsonl", "checkpoints") if (run.path / name).exists()]
    if left:
        return Problem(environment, f"{environment}: not there, though the run has {', '.join(left)}")
    return None


def _check_published(run: Run) -> Iterator[Problem]:
    try:
        check_published(run.path)
    except (DataError, OSError) as error:
        yield Problem(run.path / PUBLISHED, str(error))


def _check_files(run: Run, run_id: str | None) -> Iterator[Problem]:
    result = run.path / "result.json"
    if result.exists():
        try:
            record = run.result()
        except DataError as error:
            yield Problem(result, str(error))
        else:
            yield from _check_result(run, run_id, record)
    failure = run.path / "failure.json"
    if failure.exists():
        try:
            if not isinstance(read_json(failure).get("status"), str):
                yield Problem(failure, f"{failure}: gives no status")
        except DataError as error:
            yield Problem(failure, str(error))
    try:
        run.rows()
    except (DataError, OSError, ValueError) as error:
        yield Problem(run.metrics_path, str(error))
    if run_id is not None:
        try:
            run.load_tokenizer()
        except (DataError, OSError) as error:
            yield Problem(run.path / "tokenizer.json", str(error))
    try:
        checkpoints = list_checkpoints(run.checkpoints)
    except DataError as error:
        yield Problem(run.checkpoints, str(error))
        return
    for path in checkpoints:
        try:
            check_checkpoint(path, run_id)
        except (DataError, OSError) as error:
            yield Problem(path, str(error))


def _check_result(run: Run, run_id: str | None, record: dict[str, Any]) -> Iterator[Problem]:
    path = run.path / "result.json"
    if run_id is not None and record.get("run_id") != run_id:
        yield Problem(path, f"{path}: is the record of {record.get('run_id')}, not of {run_id}")
    checksums = {"blocks.safetensors": record.get("blocks_sha256")}
    recorded = record.get(CHECKSUMS)
    if recorded is not None:
        if not isinstance(recorded, dict) or not set(recorded) <= set(PARTS):
            yield Problem(path, f"{path}: {CHECKSUMS} does not name {', '.join(PARTS)}")
            return
        there = {name for name in PARTS if (run.path / name).exists()}
        checksums |= {name: recorded.get(name) for name in PARTS if name in there | set(recorded)}
    for name, checksum in checksums.items():
        file = run.path / name
        if file.is_symlink() or not file.is_file():
            yield Problem(file, f"{file}: missing, or a link")
        elif sha256_file(file) != checksum:
            yield Problem(file, f"{file}: content does not match result.json")
