"""Deleting without losing a result."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from glu_bench.errors import InterruptedRunError
from glu_bench.files import hold_lock
from glu_bench.runs.checkpoint import list_checkpoints
from glu_bench.runs.folder import Run, list_runs
from glu_bench.runs.integrity import verify_run
from glu_bench.runs.pruning import find_prunings, prune
from glu_bench.train.stop import StopRequest

Train = Callable[..., dict[str, Any]]


@pytest.fixture
def copied(finished_run: Run, tmp_path: Path) -> Run:
    """A finished run that a test may prune."""
    return Run(Path(shutil.copytree(finished_run.path, tmp_path / "runs" / finished_run.path.name)))


class StopNow(StopRequest):
    """A signal that arrived before the first step."""

    def __init__(self) -> None:
        super().__init__()
        self.number = 15


def test_the_last_checkpoint_stays(copied: Run, tmp_path: Path) -> None:
    before = list_checkpoints(copied.checkpoints)
    found, remarks = find_prunings(tmp_path, checkpoints=True, statuses=())
    assert remarks == []
    assert [each.path for each in found] == before[:-1]
    assert found[0].n_bytes == sum(path.stat().st_size for path in before[0].iterdir())
    assert list_checkpoints(copied.checkpoints) == before  # finding deletes nothing
    assert len(list(prune(found))) == len(found) >= 1
    assert list_checkpoints(copied.checkpoints) == before[-1:]
    assert verify_run(copied) == []
    assert [path.name for path in copied.checkpoints.iterdir()] == [before[-1].name]


def test_all_stay_if_the_last_is_broken(copied: Run, tmp_path: Path) -> None:
    (list_checkpoints(copied.checkpoints)[-1] / "model.safetensors").write_bytes(b"")
    found, remarks = find_prunings(tmp_path, checkpoints=True, statuses=())
    assert found == []
    assert "the last is broken" in remarks[0]


def test_interrupted_runs_go_when_asked_and_complete_ones_never(
    copied: Run, train: Train, tmp_path: Path
) -> None:
    with pytest.raises(InterruptedRunError):
        train("seed=5", stop=StopNow())
    assert {run.status() for run in list_runs(tmp_path)} == {"complete", "interrupted"}
    assert find_prunings(tmp_path, checkpoints=False, statuses=["failed"])[0] == []
    found, _ = find_prunings(tmp_path, checkpoints=False, statuses=["interrupted"])
    assert [each.what for each in found] == ["interrupted"]
    list(prune(found))
    assert [run.path for run in list_runs(tmp_path)] == [copied.path]
    assert [path.name for path in (tmp_path / "runs").iterdir()] == [copied.path.name]


def test_a_run_that_was_taken_up_meanwhile_stays(copied: Run, tmp_path: Path) -> None:
    found, _ = find_prunings(tmp_path, checkpoints=True, statuses=())
    with hold_lock(copied.path):
        assert list(prune(found)) == []
    assert len(list_checkpoints(copied.checkpoints)) > 1
