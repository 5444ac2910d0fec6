"""What can be deleted without losing a result."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from glu_bench.errors import BusyError, DataError
from glu_bench.files import hide_folder, hold_lock, remove_strays
from glu_bench.runs.checkpoint import check_checkpoint, list_checkpoints
from glu_bench.runs.folder import Run, list_runs


@dataclass(frozen=True)
class Pruning:
    """One folder that may go: a checkpoint, or a whole run."""

    run: Run
    what: str  # checkpoint, interrupted, failed
    path: Path
    n_bytes: int


def find_prunings(
    output_dir: Path, *, checkpoints: bool, statuses: Iterable[str]
) -> tuple[list[Pruning], list[str]]:
    """What may go, and remarks on what stays although asked for.

    `checkpoints`: those of complete runs but the last, which must verify, or all stay.
    `statuses`: whole runs that ended so. A run at work is never among them.
    """
    statuses = frozenset(statuses)
    found: list[Pruning] = []
    remarks: list[str] = []
    for run in list_runs(output_dir):
        status = run.status()
        if status == "complete" and checkpoints:
            older = list_checkpoints(run.checkpoints)[:-1]
            broken = _find_broken(run) if older else None
            if broken:
                remarks.append(f"{run.path.name}: all checkpoints stay, the last is broken ({broken})")
            else:
                found += [Pruning(run, "checkpoint", path, count_bytes(path)) for path in older]
        elif status in statuses and not run.path.is_symlink():
            found.append(Pruning(run, status, run.path, count_bytes(run.path)))
    return found, remarks


def prune(found: Iterable[Pruning]) -> Iterator[Pruning]:
    """Delete, each under its run's lock; yields what went. A run taken up meanwhile stays."""
    for each in found:
        remove_strays(each.path.parent)  # of a prune that was cut short
        try:
            with hold_lock(each.run.path, timeout_s=0.1):
                if each.what != "checkpoint" and each.run.outcome() == "complete":
                    continue  # it was finished while the person thought
                hidden = hide_folder(each.path)
        except BusyError:
            continue
        shutil.rmtree(hidden, ignore_errors=True)
        yield each


def count_bytes(folder: Path) -> int:
    """Bytes of all files below a folder, links not followed."""
    return sum(path.lstat().st_size for path in folder.rglob("*") if not path.is_dir())


def _find_broken(run: Run) -> str | None:
    try:
        check_checkpoint(list_checkpoints(run.checkpoints)[-1], run.run_id)
    except DataError as error:
        return str(error)
    return None
