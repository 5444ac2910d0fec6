"""Group G: one process of several breaks, on its way or while all save; the run ends and goes on."""

from __future__ import annotations

import json
import os
import resource
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from glu_bench.runs.checkpoint import list_checkpoints, load_checkpoint
from tests.faults.conftest import Fault, Processes, find_run, worth_of
from tests.faults.ranks import (
    LONG,
    TIMEOUT_S,
    command_of_two,
    list_ranks,
    read_failure,
    read_steps,
    wait_for_rows,
)

CKPT_POINTS = (
    *("ckpt.begin", "ckpt.tmp_half", "ckpt.before_manifest", "ckpt.before_rename"),
    *("ckpt.after_rename", "ckpt.before_purge"),
)


@pytest.fixture(scope="session")
def straight_of_two(tiny_words: list[str], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the tiny run of two processes is worth that nothing disturbs."""
    folder = tmp_path_factory.mktemp("straight")
    ended = Processes(folder).run(*command_of_two(tiny_words))
    assert ended.code == 0, ended.err
    return worth_of(find_run(folder / "outputs"))


@pytest.mark.slow
@pytest.mark.parametrize("rank", [1, 0])
def test_g1_a_rank_is_killed(
    rank: int,
    processes: Processes,
    fault: Fault,
    tiny_words: list[str],
    straight_of_two: dict[str, Any],
    tmp_path: Path,
) -> None:
    """SIGKILL of one rank of two after the backward pass of step 12.

    Exit 7 at once, "rank 1 killed by signal 9 at step 12"; no process is left and the checkpoints
    are whole; the same command then ends in the bits of the undisturbed run of two.
    """
    words = command_of_two(tiny_words)
    process = processes.start(*words, env=fault("step.after_backward:kill9:12", rank=rank))
    run = wait_for_rows(process, tmp_path / "outputs", 1)
    ended = processes.end(process, TIMEOUT_S)
    assert processes.list_left() == []
    assert ended.code == 7
    assert ended.err.startswith(f"glu-bench: rank {rank} killed by signal 9 at step 12 (SIGKILL, possibly")
    assert ended.err.count("\n") == 1
    assert read_steps(run) == [5, 10]
    assert read_failure(run) in ended.err
    ended = processes.run(*words)
    assert ended.code == 0, ended.err
    assert worth_of(run) == straight_of_two
    assert not (run / "failure.json").exists()


def check_told_by_rank_1(err: str) -> None:
    """The message is rank 1's traceback alone; nothing of what rank 0 saw."""
    lines = err.splitlines()
    assert lines[:2] == ["glu-bench: rank 1 failed at step 12", "Traceback (most recent call last):"]
    assert lines[-1] == "RuntimeError: asked to fail at step.after_backward"
    assert err.count("Traceback") == 1
    assert "another process" not in err


@pytest.mark.slow
def test_g2_a_rank_raises(processes: Processes, fault: Fault, tiny_words: list[str], tmp_path: Path) -> None:
    """Rank 1 raises after the backward pass of step 12.

    The exit code is that of its own error, and its own traceback is what is shown, not what
    the others saw of its going.
    """
    ended = processes.run(*command_of_two(tiny_words), env=fault("step.after_backward:raise:12", rank=1))
    assert (ended.code, ended.out) == (1, "")
    check_told_by_rank_1(ended.err)
    run = find_run(tmp_path / "outputs")
    assert read_steps(run) == [5, 10]
    assert read_failure(run) == "RuntimeError: asked to fail at step.after_backward"


@pytest.mark.slow
def test_g2_a_rank_raises_after_the_others_gave_up(
    processes: Processes, fault: Fault, tiny_words: list[str], tmp_path: Path
) -> None:
    """Rank 1 hangs until rank 0 has timed out and ended, then raises.

    The exit code is that of its own error, and its own traceback is what is shown, not what
    the others saw of its going.
    """
    faults = fault("step.after_backward:stop:12", "step.after_backward:raise:12", rank=1)
    process = processes.start(*command_of_two(tiny_words), env=faults)
    wait_for_rows(process, tmp_path / "outputs", 11)
    rank_1 = list_ranks(processes)[1]
    until = time.monotonic() + 3 * TIMEOUT_S
    while not (reports := list((tmp_path / "outputs" / ".ranks").rglob("rank-0.json"))):
        assert time.monotonic() < until
        time.sleep(0.02)
    os.kill(rank_1, signal.SIGCONT)
    ended = processes.end(process, TIMEOUT_S)
    assert json.loads(reports[0].read_text())["lost"]
    assert ended.code == 1
    check_told_by_rank_1(ended.err)


@pytest.mark.slow
@pytest.mark.parametrize(("point", "step"), [("step.after_backward", 12), ("rank.end", 20)])
def test_g3_a_rank_leaves_with_exit_code_0(
    point: str, step: int, processes: Processes, fault: Fault, tiny_words: list[str], tmp_path: Path
) -> None:
    """Rank 1 leaves by os._exit(0) in the middle of step 12, or when all work is done, without a word.

    Exit 7, "rank 1 left early with exit code 0"; not success, though no exit code says so.
    """
    nth = step if point.startswith("step") else 1
    ended = processes.run(*command_of_two(tiny_words), env=fault(f"{point}:exit0:{nth}", rank=1))
    assert ended.code == 7
    assert ended.err == f"glu-bench: rank 1 left early with exit code 0 at step {step}\n"
    run = find_run(tmp_path / "outputs")
    assert (run / "result.json").exists() == (step == 20)
    assert read_steps(run) == [number for number in (5, 10, 15, 20) if number <= step]
    if point == "rank.end":  # the run itself is whole
        again = processes.run(*command_of_two(tiny_words))
        assert (again.code, again.err) == (0, "")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("rank", "point", "step"), [(1, "step.after_backward", 12), (0, "ckpt.tmp_half", 10)]
)
def test_g4_a_rank_is_stopped(
    rank: int,
    point: str,
    step: int,
    processes: Processes,
    fault: Fault,
    tiny_words: list[str],
    tmp_path: Path,
) -> None:
    """SIGSTOP of rank 1 in a step, or of rank 0 as it saves.

    Exit 7 within the time-out and ten seconds, naming the rank that does not answer; the stopped
    process is ended as well.
    """
    nth = step if point.startswith("step") else 2
    process = processes.start(*command_of_two(tiny_words), env=fault(f"{point}:stop:{nth}", rank=rank))
    run = wait_for_rows(process, tmp_path / "outputs", 1)
    ended = processes.end(process, TIMEOUT_S + 10)
    assert processes.list_left() == []
    assert ended.code == 7
    assert ended.err.startswith(
        f"glu-bench: rank {rank} did not answer in time at step {step}, and was ended"
    )
    assert ended.err.count("\n") == 1
    assert read_steps(run) == ([5, 10] if rank else [5])


@pytest.mark.slow
def test_g5_the_rank_that_saves_is_killed(
    processes: Processes,
    fault: Fault,
    tiny_words: list[str],
    straight_of_two: dict[str, Any],
    tmp_path: Path,
) -> None:
    """SIGKILL of rank 0 at each point of writing a checkpoint, one after another on one run.

    Exit 7, and the checkpoint before is whole; each time the same command goes on from it, at
    last to the bits of the undisturbed run of two.
    """
    words = command_of_two(tiny_words, "train.checkpoint_every=1", "train.keep_checkpoints=2")
    kept = 0
    for point in CKPT_POINTS:  # each start saves one step before it dies in the next
        ended = processes.run(*words, env=fault(f"{point}:kill9:2", rank=0))
        assert ended.code == 7
        assert ended.err.startswith(f"glu-bench: rank 0 killed by signal 9 at step {kept + 2} ")
        kept += 2 if point in ("ckpt.after_rename", "ckpt.before_purge") else 1
        assert read_steps(find_run(tmp_path / "outputs"))[-1] == kept
    ended = processes.run(*words)
    assert ended.code == 0, ended.err
    run = find_run(tmp_path / "outputs")
    assert worth_of(run) == straight_of_two
    assert not list(run.rglob("*.tmp"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("to", "number"),
    [
        ("launcher", signal.SIGTERM),
        ("launcher", signal.SIGINT),
        ("rank 1", signal.SIGTERM),
        ("all", signal.SIGTERM),
    ],
)
def test_g6_a_stop_reaches_all_ranks(
    to: str, number: signal.Signals, processes: Processes, tiny_words: list[str], tmp_path: Path
) -> None:
    """SIGTERM or SIGINT to the launcher alone, to rank 1 alone, to all.

    Both ranks stop at the same step and save one checkpoint; exit 143 or 130, and one line that
    says that the same command goes on.
    """
    process = processes.start(*command_of_two(tiny_words, *LONG))
    run = wait_for_rows(process, tmp_path / "outputs", 5)
    ranks = list_ranks(processes)
    pids = {"launcher": [process.pid], "rank 1": [ranks[1]], "all": [process.pid, *ranks.values()]}[to]
    for pid in pids:
        os.kill(pid, number)
    ended = processes.end(process, 20)
    assert ended.code == 128 + number, ended.err
    (step,) = read_steps(run)
    last = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])
    assert step == last["step"] < 9000
    assert f"stopped and saved at step {step}; the same command goes on" in ended.err
    assert ended.err.count("\n") == 1
    assert not (run / "failure.json").exists()


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["ddp", "fsdp"])
def test_g7_a_loss_is_no_number_on_one_rank(
    mode: str, processes: Processes, fault: Fault, tiny_words: list[str], tmp_path: Path
) -> None:
    """The loss of rank 1 is NaN at step 12, which is not logged.

    Both stop before the update; exit 4, the line names rank 1, and every checkpoint is finite.
    """
    words = command_of_two(tiny_words, f"parallel={mode}", "train.log_every=99")
    ended = processes.run(*words, env=fault("step.after_backward:nan:12", rank=1))
    assert ended.code == 4
    assert ended.err.count("\n") == 1
    assert "diverged at step 12, loss is nan on rank 1; the weights were not updated" in ended.err
    run = find_run(tmp_path / "outputs")
    assert json.loads((run / "failure.json").read_text())["status"] == "diverged"
    assert read_steps(run) == [5, 10]
    checkpoints = [load_checkpoint(path) for path in list_checkpoints(run / "checkpoints")]
    assert all(tensor.isfinite().all() for c in checkpoints for tensor in c.model.values())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("rank", "point", "code", "line"),
    [
        (1, "ckpt.begin:raise:2", 1, "rank 1 failed at step 10"),
        (0, "ckpt.tmp_half:enospc:2", 6, "the disk is full"),
    ],
)
def test_g8_a_rank_raises_while_all_save(
    rank: int,
    point: str,
    code: int,
    line: str,
    processes: Processes,
    fault: Fault,
    tiny_words: list[str],
    tmp_path: Path,
) -> None:
    """An error of rank 1 as it comes to a checkpoint, or of rank 0 as it writes one and rank 1 waits.

    The run ends at once with this error and its exit code; the checkpoint before is whole.
    """
    process = processes.start(*command_of_two(tiny_words), env=fault(point, rank=rank))
    run = wait_for_rows(process, tmp_path / "outputs", 1)
    ended = processes.end(process, TIMEOUT_S)
    assert ended.code == code
    assert line in ended.err.splitlines()[0]
    assert "another process" not in ended.err
    assert read_steps(run) == [5]
    assert not list(run.rglob("*.tmp"))


@pytest.mark.slow
def test_g8_a_checkpoint_takes_longer_than_the_time_out(
    processes: Processes,
    fault: Fault,
    tiny_words: list[str],
    straight_of_two: dict[str, Any],
    tmp_path: Path,
) -> None:
    """Rank 0 writes a checkpoint for longer than parallel.timeout_s while rank 1 waits.

    Nobody times out: the run ends as if nothing had been.
    """
    ended = processes.run(*command_of_two(tiny_words), env=fault("ckpt.before_rename:pause:2", rank=0))
    assert (ended.code, ended.err) == (0, "")
    assert worth_of(find_run(tmp_path / "outputs")) == straight_of_two


@pytest.mark.slow
def test_g14_a_rank_cannot_write(processes: Processes, tiny_words: list[str], tmp_path: Path) -> None:
    """RLIMIT_FSIZE of 0 for rank 1 in the middle of a run: not even its step can be noted.

    Exit 6, and nothing is committed.
    """
    process = processes.start(*command_of_two(tiny_words, *LONG))
    run = wait_for_rows(process, tmp_path / "outputs", 3)
    resource.prlimit(list_ranks(processes)[1], resource.RLIMIT_FSIZE, (0, 0))
    ended = processes.end(process, 20)
    assert ended.code == 6, ended.err
    assert ended.err.startswith("glu-bench: rank 1 ended with exit code 6 at step ")
    assert read_steps(run) == []
