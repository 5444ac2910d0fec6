"""Whether a run folder still holds what was written into it."""

from __future__ import annotations

from glu_bench.errors import DataError
from glu_bench.files import sha256_file
from glu_bench.runs.checkpoint import check_checkpoint, list_checkpoints
from glu_bench.runs.folder import Run
from glu_bench.runs.publish import check_published, is_published


def verify_run(run: Run) -> list[str]:
    """What is broken, a line each; empty if every checksum agrees.

    The configuration must hash to the run's id, the final record to its own checksum, the
    held-out windows to the record's, the tokenizer to its fingerprint, every file of every
    checkpoint to its manifest; a published run's files to published.json. What an unfinished
    run does not have yet is not missed.
    """
    problems: list[str] = []
    run_id = _check_identity(run, problems)
    if is_published(run.path):
        try:
            check_published(run.path)
        except (DataError, OSError) as error:
            problems.append(str(error))
        return problems
    if (run.path / "result.json").exists():
        _check_result(run, run_id, problems)
    try:
        run.rows()
    except (DataError, OSError, ValueError) as error:
        problems.append(str(error))
    if run_id is not None:
        try:
            run.load_tokenizer()
        except (DataError, OSError) as error:
            problems.append(str(error))
    try:
        checkpoints = list_checkpoints(run.checkpoints)
    except DataError as error:
        return [*problems, str(error)]
    for path in checkpoints:
        try:
            check_checkpoint(path, run_id)
        except (DataError, OSError) as error:
            problems.append(str(error))
    return problems


def _check_identity(run: Run, problems: list[str]) -> str | None:
    """The id that environment.json gives and the configuration hashes to, or None."""
    try:
        run.config()
        return run.run_id
    except DataError as error:
        problems.append(str(error))
    except (KeyError, TypeError) as error:
        problems.append(f"{run.path}/environment.json: has no usable {error}")
    return None


def _check_result(run: Run, run_id: str | None, problems: list[str]) -> None:
    path = run.path / "result.json"
    try:
        record = run.result()
    except DataError as error:
        problems.append(str(error))
        return
    if run_id is not None and record.get("run_id") != run_id:
        problems.append(f"{path}: is the record of {record.get('run_id')}, not of {run_id}")
    blocks = run.path / "blocks.safetensors"
    if blocks.is_symlink() or not blocks.is_file():
        problems.append(f"{blocks}: missing, or a link")
    elif sha256_file(blocks) != record.get("blocks_sha256"):
        problems.append(f"{blocks}: content does not match result.json")
