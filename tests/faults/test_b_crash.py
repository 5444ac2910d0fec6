"""Group B: a single process that is killed, stopped, or has no room."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.faults.conftest import Fault, TinyTrain, find_run, worth_of

POINTS = (
    *("ckpt.begin", "ckpt.tmp_half", "ckpt.before_manifest", "ckpt.before_rename"),
    *("ckpt.after_rename", "ckpt.before_purge", "result.before_rename"),
)


@pytest.mark.parametrize("point", POINTS)
def test_b1_killed_in_a_checkpoint(
    point: str, tiny_train: TinyTrain, fault: Fault, straight: dict[str, Any], tmp_path: Path
) -> None:
    """SIGKILL at each point of writing a checkpoint or the final record.

    The process ends by the signal; the same command goes on and ends in the bits of the
    undisturbed run, with no temporary file left.
    """
    nth = "1" if point.startswith("result") else "2"
    assert tiny_train(env=fault(f"{point}:kill9:{nth}")).code == -9
    ended = tiny_train()
    assert ended.code == 0, ended.err
    run = find_run(tmp_path / "outputs")
    assert worth_of(run) == straight
    assert not list(run.rglob("*.tmp"))
