"""Finished runs as small text files, to be kept beside a paper or in a repository.

A published run holds its configuration, its environment, its final record as they are, the
rows of its log with six digits and without what each layer did between evaluations, and what
its last checkpoint was found to do. Checkpoints and held-out windows stay behind;
published.json gives the checksum of what is there.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from glu_bench.errors import DataError
from glu_bench.files import make_folder, read_json, sha256_file, write_bytes, write_json, write_text
from glu_bench.runs.folder import Run

FILE = "published.json"
AS_THEY_ARE = ("config.yaml", "environment.json", "result.json", "failure.json")
LEFT_OUT = ("checkpoints", "blocks.safetensors", "tokenizer.json")
FORMAT_VERSION = 1

Summary = Mapping[str, float | int | None]


def publish_run(
    run: Run, output_dir: Path, inspection: Mapping[str, Any] | None, every_row: bool = True
) -> Path:
    """The folder under `output_dir`/runs that the run was published to.

    `inspection`: n_tokens and summary of its last checkpoint. Without `every_row` the log keeps
    its first row and those of evaluations: what a tuning looks at.
    Raises: DataError for a run that has no outcome, or does not agree with its own checksums.
    """
    if run.outcome() not in ("complete", "diverged"):
        raise DataError(f"{run.run_id}: {run.status()}; only what came to an end is published")
    run.config()  # hashes to its id
    folder = output_dir / "runs" / run.path.name
    make_folder(folder)
    for name in AS_THEY_ARE:
        if (run.path / name).is_file():
            write_bytes(folder / name, (run.path / name).read_bytes())
    kept_rows = [thin_row(row) for row in run.rows() if every_row or _is_evaluation(row)]
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in kept_rows)
    write_text(folder / "metrics.jsonl", lines)
    if inspection is not None:
        write_json(folder / "inspection.json", dict(inspection))
    kept = sorted(path.name for path in folder.iterdir() if path.name != FILE)
    record = {
        "format_version": FORMAT_VERSION,
        "run_id": run.run_id,
        "left_out": [name for name in LEFT_OUT if (run.path / name).exists()],
        "sha256": {name: sha256_file(folder / name) for name in kept},
    }
    write_json(folder / FILE, record)
    return folder


def is_published(folder: Path) -> bool:
    """Whether a run folder holds what `publish_run` left of a run."""
    return (folder / FILE).is_file()


def check_published(folder: Path) -> None:
    """See that every file of a published run is what was published.

    Raises: DataError naming what is missing or was edited.
    """
    checksums = read_json(folder / FILE).get("sha256")
    if not isinstance(checksums, dict) or not {"config.yaml", "environment.json"} <= set(checksums):
        raise DataError(f"{folder / FILE}: does not name what was published")
    there = {path.name for path in folder.iterdir() if path.name != FILE and not path.name.startswith(".")}
    if there != set(checksums):
        names = ", ".join(sorted(there ^ set(checksums)))
        raise DataError(f"{folder}: holds other files than were published ({names})")
    for name, checksum in checksums.items():
        path = folder / name
        if path.is_symlink() or not path.is_file() or sha256_file(path) != checksum:
            raise DataError(f"{path}: content does not match {FILE}")


def read_published_summary(run: Run, n_tokens: int) -> Summary | None:
    """What a published run's last checkpoint was found to do over so many tokens; None if nothing is kept.

    Raises: DataError if it was edited, or is of another number of tokens.
    """
    path = run.path / "inspection.json"
    if not is_published(run.path) or not path.is_file():
        return None
    check_published(run.path)
    found = read_json(path)
    if found.get("n_tokens") != n_tokens or not isinstance(found.get("summary"), dict):
        raise DataError(
            f"{path}: over {found.get('n_tokens')} tokens, and there is no checkpoint for {n_tokens}"
        )
    return {str(name): value for name, value in found["summary"].items()}


def thin_row(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row of the log with six significant digits; lists by layer only of evaluations and the first step."""
    by_layer = _is_evaluation(row)
    return {name: _round(value) for name, value in row.items() if by_layer or not isinstance(value, list)}


def is_whole(rows: Sequence[Mapping[str, Any]], log_every: int) -> bool:
    """Whether a log has all the rows that its run wrote, not those of evaluations alone."""
    steps = [row["step"] for row in rows if isinstance(row.get("step"), int)]
    return not steps or len(steps) >= max(steps) // log_every


def _is_evaluation(row: Mapping[str, Any]) -> bool:
    """Whether it is of an evaluation, or of the first step."""
    return row.get("step") == 1 or "val_loss_nats" in row


def _round(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.6g}")
    return [_round(part) for part in value] if isinstance(value, list) else value
