"""Group B: a single process that is asked to stop, or loses its terminal or its reader."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import shlex
import signal
import termios
from pathlib import Path
from typing import Any

import pytest

from glu_bench.runs.folder import Run
from tests.conftest import command_line
from tests.faults.conftest import (
    Fault,
    Processes,
    TinyTrain,
    find_run,
    intact_steps,
    tiny_command,
    wait_until_stopped,
    worth_of,
)


def test_b4_asked_to_stop_in_a_step(
    processes: Processes, tiny_words: list[str], fault: Fault, tmp_path: Path
) -> None:
    """SIGTERM while step 3 is computed; checkpoints are due at 2 and 4.

    143; a checkpoint of step 3 is intact, the log ends with step 3, the folder reads as
    interrupted, and the one line says that the same command goes on.
    """
    env = fault("step.after_backward:stop:3")
    process = processes.start(*tiny_command(tiny_words), env=env)
    wait_until_stopped(process.pid)
    process.send_signal(signal.SIGTERM)
    process.send_signal(signal.SIGCONT)
    ended = processes.end(process)
    run = find_run(tmp_path / "outputs")
    assert ended.code == 143
    assert ended.err == (f"glu-bench: {run.name}: stopped and saved at step 3; the same command goes on\n")
    assert intact_steps(run) == [2, 3]
    assert [row["step"] for row in Run(run).rows()] == [1, 2, 3]
    assert Run(run).status() == "interrupted"
    assert not (run / "failure.json").exists()


@pytest.mark.slow
def test_b4_the_same_command_goes_on(
    tiny_train: TinyTrain, fault: Fault, straight: dict[str, Any], processes: Processes, tmp_path: Path
) -> None:
    """SIGTERM while step 3 is computed, then `runs list`, then the same command.

    It is listed as interrupted, and ends in the bits of the undisturbed run.
    """
    assert tiny_train(env=fault("step.after_backward:term:3")).code == 143
    listed = json.loads(processes.run("runs", "list", "--json").out)
    assert [run["status"] for run in listed["runs"]] == ["interrupted"]
    assert tiny_train().code == 0
    assert worth_of(find_run(tmp_path / "outputs")) == straight


@pytest.mark.slow
@pytest.mark.parametrize(
    ("points", "steps"),
    [
        (("step.after_backward:int:3",), [2, 3]),
        (("step.after_backward:int:3", "ckpt.tmp_half:int:2"), [2]),
    ],
    ids=["once", "twice"],
)
def test_b5_interrupted_from_the_keyboard(
    points: tuple[str, ...],
    steps: list[int],
    tiny_train: TinyTrain,
    fault: Fault,
    straight: dict[str, Any],
    tmp_path: Path,
) -> None:
    """SIGINT while step 3 is computed; the same, and a second SIGINT while that is being saved.

    130 both times; once: after saving step 3; twice: at once, with checkpoint 2 intact and no torn
    one in place. The same command ends in the bits of the undisturbed run, nothing temporary left.
    """
    ended = tiny_train(env=fault(*points))
    run = find_run(tmp_path / "outputs")
    assert ended.code == 130
    assert "Traceback" not in ended.err
    assert intact_steps(run) == steps
    assert len(list((run / "checkpoints").glob("step-*"))) == len(steps)
    assert tiny_train().code == 0
    assert worth_of(run) == straight
    assert not list(run.rglob("*.tmp"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("point", "steps"),
    [
        ("ckpt.tmp_half:term:2", [4, 5]),  # the save of step 4 is finished, step 5 too, and saved
        ("ckpt.before_rename:term:3", [4, 6]),  # that of the last step: nothing to go on with but evaluation
        ("log.half_line:term:3", [2, 3]),
        ("result.before_rename:term:1", [4, 6]),
    ],
)
def test_b6_asked_to_stop_while_it_writes(
    point: str,
    steps: list[int],
    tiny_train: TinyTrain,
    fault: Fault,
    straight: dict[str, Any],
    tmp_path: Path,
) -> None:
    """SIGTERM while a checkpoint, the last checkpoint, a row of the log or the final record is written.

    143; what was being written is whole or not there, and no temporary file stays. The same command
    ends in the bits of the undisturbed run.
    """
    ended = tiny_train(env=fault(point))
    run = find_run(tmp_path / "outputs")
    assert ended.code == 143
    assert ended.err.count("\n") == 1
    assert intact_steps(run) == steps
    assert len(list((run / "checkpoints").glob("step-*"))) == len(steps)
    assert not list(run.rglob("*.tmp"))
    assert not (run / "result.json").exists()
    for line in (run / "metrics.jsonl").read_text().splitlines():
        json.loads(line)
    assert tiny_train().code == 0
    assert worth_of(run) == straight


def _own_terminal() -> None:
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # the tests may be under nohup


@pytest.mark.slow
def test_b7_the_terminal_is_closed(
    processes: Processes,
    tiny_words: list[str],
    tiny_train: TinyTrain,
    fault: Fault,
    straight: dict[str, Any],
    tmp_path: Path,
) -> None:
    """The terminal on which a run draws its progress is closed while step 4 is computed.

    129, which is 128 + SIGHUP, after saving step 4, though nothing can be drawn or said any more; the
    same command ends in the bits of the undisturbed run.
    """
    master, slave = pty.openpty()
    words = [word for word in tiny_command(tiny_words) if word != "--quiet"]
    process = processes.start(
        *words,
        env={**fault("step.after_backward:stop:4"), "TERM": "xterm"},
        **dict.fromkeys(("stdin", "stdout", "stderr"), slave),
        preexec_fn=_own_terminal,
    )
    os.close(slave)
    os.set_blocking(master, False)
    drawn: list[bytes] = []

    def draw() -> None:  # a terminal that took nothing would hold the run up
        with contextlib.suppress(BlockingIOError):
            drawn.append(os.read(master, 2**16))

    wait_until_stopped(process.pid, draw)
    os.close(master)  # the kernel sends SIGHUP, and has what is stopped go on
    assert process.wait(60) == 129
    run = find_run(tmp_path / "outputs")
    assert run.name.encode() in b"".join(drawn)
    assert intact_steps(run) == [2, 4]
    assert [row["step"] for row in Run(run).rows()] == [1, 2, 3, 4]
    assert tiny_train().code == 0
    assert worth_of(run) == straight


@pytest.mark.slow
def test_b7_nohup(tiny_train: TinyTrain, fault: Fault, straight: dict[str, Any], tmp_path: Path) -> None:
    """SIGHUP to a run that was started so as to ignore it, as nohup does.

    It runs to its end.
    """
    ended = tiny_train(
        env=fault("step.after_backward:hup:3"),
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN),
    )
    assert ended.code == 0, ended.err
    assert worth_of(find_run(tmp_path / "outputs")) == straight


def _pipe(processes: Processes, command: str, reader: str) -> tuple[int, str, str]:
    """Exit code of a shell's command, what its reader printed, and what came on stderr."""
    shell = ["bash", "-c", f"{command} | {reader}; exit ${{PIPESTATUS[0]}}"]
    ended = processes.run(command=shell)
    return ended.code, ended.out, ended.err


@pytest.mark.slow
def test_b7_nobody_reads_a_run(
    processes: Processes, tiny_words: list[str], straight: dict[str, Any], tmp_path: Path
) -> None:
    """`glu-bench train … 2>&1 | true`: progress and result go into a pipe that nobody reads.

    The run goes on to its end and exits 0.
    """
    words = [word for word in tiny_command(tiny_words) if word != "--quiet"]
    assert _pipe(processes, f"{shlex.join(command_line(*words))} 2>&1", "true") == (0, "", "")
    assert worth_of(find_run(tmp_path / "outputs")) == straight


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("variants", "--json"), 0),  # more than a pipe holds
        (("variants",), 0),
        (("variants", "nosuch"), 2),
    ],
    ids=["json", "table", "mistake"],
)
def test_b7_nobody_reads_a_listing(words: tuple[str, ...], code: int, processes: Processes) -> None:
    """`glu-bench variants 2>&1 | true`, as a table, as JSON, and with a mistake in it.

    The exit code is that of a listing that is read.
    """
    assert _pipe(processes, f"{shlex.join(command_line(*words))} 2>&1", "true") == (code, "", "")


@pytest.mark.slow
def test_b7_the_reader_leaves_early(finished_run: Run, processes: Processes) -> None:
    """`glu-bench runs show RUN | head -1`.

    One line, exit code 0, and nothing on stderr.
    """
    command = shlex.join(command_line("runs", "show", str(finished_run.path)))
    code, out, err = _pipe(processes, command, "head -1")
    assert (code, out.count("\n"), err) == (0, 1, "")
