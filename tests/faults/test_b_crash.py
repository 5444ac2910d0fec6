"""Group B: a single process that is killed, and what the next one finds."""

from __future__ import annotations

import json
import random
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from tests.faults.conftest import (
    Fault,
    Processes,
    TinyTrain,
    find_run,
    intact_steps,
    snapshot,
    tiny_command,
    wait_until_stopped,
    worth_of,
)

IN_CHECKPOINT = (
    *("ckpt.begin", "ckpt.tmp_half", "ckpt.before_manifest", "ckpt.before_rename"),
    *("ckpt.after_rename", "ckpt.before_purge", "ckpt.purge_half"),
)


@pytest.mark.slow
@pytest.mark.parametrize("point", [*IN_CHECKPOINT, "result.before_rename"])
def test_b1_killed_in_a_checkpoint(
    point: str, tiny_train: TinyTrain, fault: Fault, straight: dict[str, Any], tmp_path: Path
) -> None:
    """SIGKILL at each point of writing a checkpoint, of deleting an old one, or of the final record.

    The process ends by the signal with an earlier checkpoint intact; the same command goes on and
    ends in the bits of the undisturbed run, with no temporary file left.
    """
    nth = 2 if point in IN_CHECKPOINT and point != "ckpt.purge_half" else 1
    assert tiny_train(env=fault(f"{point}:kill9:{nth}")).code == -9
    run = find_run(tmp_path / "outputs")
    steps = intact_steps(run)
    assert steps
    assert [f"step-{step:08d}" for step in steps] == sorted(_names(run)), "a broken checkpoint in place"
    ended = tiny_train()
    assert ended.code == 0, ended.err
    assert worth_of(run) == straight
    assert not list(run.rglob("*.tmp"))


@pytest.mark.slow
def test_b2_killed_in_the_middle_of_a_row(
    tiny_train: TinyTrain, fault: Fault, straight: dict[str, Any], tmp_path: Path
) -> None:
    """SIGKILL while half of a row of metrics.jsonl is written, and again in the process after it.

    The same command goes on; every line of the log is one row, each step stands there once, and all
    is as in the undisturbed run.
    """
    for nth in (4, 2):  # in row 4; then, after checkpoint 2, again in row 4
        assert tiny_train(env=fault(f"log.half_line:kill9:{nth}")).code == -9
        torn = (find_run(tmp_path / "outputs") / "metrics.jsonl").read_text().splitlines()[-1]
        with pytest.raises(ValueError, match=r"delimiter|Unterminated|Expecting"):
            json.loads(torn)
    assert tiny_train().code == 0
    assert worth_of(find_run(tmp_path / "outputs")) == straight


N_KILLS = 25
N_EARLY = 8  # of them before the run is entered: while libraries are imported, or settings read
EVERY = 5  # steps between checkpoints
SOAK = ("train.steps=600", f"train.checkpoint_every={EVERY}", "train.eval_every=50")


@pytest.mark.slow
def test_b3_killed_25_times(processes: Processes, tiny_words: list[str], tmp_path: Path) -> None:
    """25 SIGKILLs to one run of 600 steps, 8 of them 0.2 s to 1.5 s after a start, the others after 1
    to 20 steps and 0 to 30 ms more, drawn with a fixed seed.

    After each, no more than one interval between checkpoints is lost, no checkpoint in place is
    broken, and there are at most one more than are kept; the end is the bits of the undisturbed run.
    """
    words = tiny_command(tiny_words, *SOAK)
    draw = random.Random(9)
    early = set(draw.sample(range(N_KILLS), N_EARLY))
    reached = 0
    for number in range(N_KILLS):
        process = processes.start(*words, stdout=None, stderr=None)
        if number in early:
            time.sleep(draw.uniform(0.2, 1.5))
        else:
            _wait_for_rows(process, tmp_path / "outputs", reached + draw.randint(1, 20))
            time.sleep(draw.uniform(0, 0.03))
        process.kill()
        assert process.wait(60) == -9, "ended before it was killed: the soak needs more steps"
        if not (tmp_path / "outputs" / "runs").is_dir():
            continue
        run = find_run(tmp_path / "outputs")
        steps = intact_steps(run)
        assert [f"step-{step:08d}" for step in steps] == sorted(_names(run)), "a broken checkpoint in place"
        assert len(steps) <= 3  # train.keep_checkpoints is 2
        newest = max(steps, default=0)
        assert newest >= max(reached, _count_rows(run) - EVERY)
        reached = newest
    ended = processes.run(*words)
    assert ended.code == 0, ended.err
    undisturbed = Processes(tmp_path / "straight")
    undisturbed.cwd.mkdir()
    assert undisturbed.run(*words).code == 0
    assert worth_of(find_run(tmp_path / "outputs")) == worth_of(find_run(tmp_path / "straight" / "outputs"))


def _names(run: Path) -> list[str]:
    return [path.name for path in (run / "checkpoints").glob("step-*")]


def _count_rows(run: Path) -> int:
    """The step of the last whole row; every step is logged."""
    path = run / "metrics.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def _wait_for_rows(process: Any, outputs: Path, n_rows: int) -> None:
    until = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < until:
        found = [path for path in (outputs / "runs").glob("*") if _count_rows(path) >= n_rows]
        if found:
            return
        time.sleep(0.005)
    raise AssertionError(f"no {n_rows} rows; exit code {process.poll()}")


@pytest.mark.slow
def test_b19_two_checkpoints_remain_wherever_it_is_killed(
    tiny_train: TinyTrain, fault: Fault, tmp_path: Path
) -> None:
    """SIGKILL at each point of writing a checkpoint and of deleting the oldest, in a run that keeps two,
    one after the other.

    Two checkpoints or more are intact each time, and the newest is never older than the one before.
    """
    words = ("train.steps=20", "train.checkpoint_every=1", "train.eval_every=20")
    nth, newest = 3, 0  # two are in place when the first is struck
    for point in IN_CHECKPOINT:
        # the first save that has something to delete is the third of all
        assert tiny_train(*words, env=fault(f"{point}:kill9:{nth}")).code == -9
        steps = intact_steps(find_run(tmp_path / "outputs"))
        assert len(steps) >= 2
        assert max(steps) >= newest
        nth, newest = 2, max(steps)
    assert newest >= 7


def _stop_in_step_4(processes: Processes, words: list[str], fault: Fault, *more: str) -> Any:
    """A run that holds its folder and stands still."""
    points = [f"step.after_backward:{more[0]}:3"] if more else []
    env = fault(*points, "step.after_backward:stop:4")
    process = processes.start(*tiny_command(words), env=env, stdout=None, stderr=None)
    wait_until_stopped(process.pid)
    return process


@pytest.mark.slow
def test_b14_two_at_once(
    processes: Processes,
    tiny_words: list[str],
    fault: Fault,
    straight: dict[str, Any],
    tmp_path: Path,
) -> None:
    """A second `glu-bench train` of the same run while the first is in its fourth step.

    The second exits 75 and names the first's pid, having touched no file; the first ends in the bits
    of the undisturbed run.
    """
    first = _stop_in_step_4(processes, tiny_words, fault)
    before = snapshot(tmp_path / "outputs")
    second = processes.run(*tiny_command(tiny_words))
    assert second.code == 75
    assert f"(pid {first.pid})" in second.err
    assert second.err.count("\n") == 1
    assert snapshot(tmp_path / "outputs") == before
    first.send_signal(signal.SIGCONT)
    assert processes.end(first).code == 0
    assert worth_of(find_run(tmp_path / "outputs")) == straight


@pytest.mark.slow
def test_b15_the_holder_was_killed(
    processes: Processes,
    tiny_words: list[str],
    tiny_train: TinyTrain,
    fault: Fault,
    straight: dict[str, Any],
    tmp_path: Path,
) -> None:
    """SIGKILL to a run that holds its folder, and the same command again.

    It does not wait for the dead: it ends in the bits of the undisturbed run.
    """
    first = _stop_in_step_4(processes, tiny_words, fault)
    first.kill()
    first.wait(60)
    run = find_run(tmp_path / "outputs")
    assert (run / ".lock.pid").read_text() == f"{first.pid}\n"  # the dead still stands there
    assert tiny_train().code == 0
    assert worth_of(run) == straight


@pytest.mark.slow
def test_b16_the_holder_was_killed_and_its_child_lives(
    processes: Processes,
    tiny_words: list[str],
    tiny_train: TinyTrain,
    fault: Fault,
    straight: dict[str, Any],
    tmp_path: Path,
) -> None:
    """SIGKILL to a run that had forked a child while it held its folder; the child lives on. (Training
    uses no worker processes of its own; libraries may.)

    The child keeps no lock: the same command goes on at once to the bits of the undisturbed run.
    """
    first = _stop_in_step_4(processes, tiny_words, fault, "fork")
    first.kill()
    first.wait(60)
    (child,) = processes.list_left()
    assert tiny_train().code == 0
    assert processes.list_left() == [child]
    processes.kill_all()
    assert worth_of(find_run(tmp_path / "outputs")) == straight
