"""What a worker does for one run."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from glu_bench.launch import JobConfig
from glu_bench.study import job as room
from glu_bench.study.job import Launch, list_launches, run_job, write_launch
from tests.conftest import command_env

INTERPRETER = sys.executable


@pytest.fixture
def launch(tmp_path: Path) -> Launch:
    """A launch of two jobs."""
    words = {"a-s0": ["seed=0"], "a-s1": ["seed=1", "train.threads=3"]}
    return write_launch(tmp_path / "jobs" / "0000", "basic", words, tmp_path / "out", tmp_path / "logs")


def job(launch: Launch, number: int) -> JobConfig:
    return JobConfig(folder=str(launch.folder), name="x", number=number)


def put_in_place(code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that stands for the interpreter: it gets the train command's words."""
    program = tmp_path / "program"
    program.write_text(f"#!{INTERPRETER}\nimport os, signal, sys, json\n{code}\n")
    program.chmod(0o755)
    monkeypatch.setattr(room.sys, "executable", str(program))


def test_the_command_is_ours_and_its_output_is_in_the_log(
    launch: Launch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_in_place("print(json.dumps([sys.argv[1:], os.getcwd()]))", tmp_path, monkeypatch)
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "2")
    before = str(Path.cwd())
    monkeypatch.chdir(tmp_path)  # a worker starts anywhere
    for number, own in enumerate((["seed=0", "train.threads=2"], ["seed=1", "train.threads=3"])):
        assert not launch.has_begun(number)
        run_job(job(launch, number))
        assert (launch.has_begun(number), launch.exit_code(number), launch.is_alive(number)) == (
            True,
            0,
            False,
        )
        said = json.loads((tmp_path / "logs" / f"a-s{number}.log").read_text())
        options = ["--output-dir", str(tmp_path / "out"), "--quiet"]
        assert said == [["-m", "glu_bench", "train", *own, *options], before]


@pytest.mark.parametrize(
    ("code", "expected"),
    [("sys.exit(4)", 4), ("os.kill(os.getpid(), signal.SIGKILL)", -9), ("sys.exit(143)", 143)],
)
def test_how_the_process_ended_is_put_down_and_not_judged(
    code: str, expected: int, launch: Launch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SUBMITIT_EXECUTOR", raising=False)
    put_in_place(code, tmp_path, monkeypatch)
    run_job(job(launch, 0))
    assert launch.exit_code(0) == expected


def test_a_run_that_slurm_stopped_is_not_over_for_submitit(
    launch: Launch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SUBMITIT_EXECUTOR", "slurm")
    put_in_place("sys.exit(143)", tmp_path, monkeypatch)
    with pytest.raises(SystemExit):
        run_job(job(launch, 0))
    ended = launch.folder / "0" / "ended.json"
    put_in_place(f"sys.exit(os.path.exists({str(ended)!r}))", tmp_path, monkeypatch)
    run_job(job(launch, 0))  # the next attempt, during which nothing has ended
    assert launch.exit_code(0) == 0


def test_a_run_is_ended_after_its_time_and_asked_before_it_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "GRACE_S", 0.5)
    wait = subprocess.Popen.wait

    def wait_until_ready(process: subprocess.Popen[bytes], timeout: float | None = None) -> int:
        """Two seconds have passed once the program is ready to be asked."""
        if timeout != 2.0:
            return wait(process, timeout)
        while not (tmp_path / f"ready-{process.pid}").exists():
            if process.poll() is not None:
                return process.returncode
            time.sleep(0.01)
        raise subprocess.TimeoutExpired("program", timeout)

    monkeypatch.setattr(subprocess.Popen, "wait", wait_until_ready)
    monkeypatch.setenv("SUBMITIT_EXECUTOR", "slurm")  # this end is the job's own, not SLURM's
    words = {"a": ["seed=0"], "b": ["seed=1"], "c": ["seed=2"]}
    launch = write_launch(tmp_path / "j", "basic", words, tmp_path, tmp_path / "logs", run_timeout_s=2.0)
    code = f"""
import time
if sys.argv[4] == "seed=0":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
elif sys.argv[4] == "seed=1":
    signal.signal(signal.SIGTERM, lambda *_: (print("saved"), sys.exit(143)))
else:
    sys.exit(3)
open(f"{tmp_path}/ready-{{os.getpid()}}", "w").close()
time.sleep(600)"""
    put_in_place(code, tmp_path, monkeypatch)
    for number in range(3):
        run_job(job(launch, number))
    assert [launch.exit_code(number) for number in range(3)] == [-9, 143, 3]
    assert [launch.timeout_s(number) for number in range(3)] == [2.0, 2.0, None]
    assert (tmp_path / "logs" / "b.log").read_text() == "saved\n"


def test_slurms_warning_does_not_reach_the_run(
    launch: Launch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_in_place("os.kill(os.getpid(), signal.SIGUSR2); sys.exit(5)", tmp_path, monkeypatch)
    run_job(job(launch, 0))
    assert launch.exit_code(0) == 5
    assert signal.getsignal(signal.SIGUSR2) == signal.SIG_DFL


def test_a_run_is_told_to_stop_when_its_worker_is_gone(launch: Launch, tmp_path: Path) -> None:
    """A killed worker leaves no run that trains on unseen."""
    program = tmp_path / "program"
    program.write_text(
        f"#!{INTERPRETER}\nimport signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: (print('told', flush=True), sys.exit(143)))\n"
        "print('begun', flush=True); time.sleep(60)"
    )
    program.chmod(0o755)
    work = (
        f"import sys; sys.executable = {str(program)!r}\n"
        "from glu_bench.launch import JobConfig; from glu_bench.study.job import run_job\n"
        f"run_job(JobConfig(folder={str(launch.folder)!r}, name='x', number=0))"
    )
    log = tmp_path / "logs" / "a-s0.log"
    worker = subprocess.Popen([INTERPRETER, "-c", work], env=command_env())
    try:
        await_text(log, "begun\n")
        assert launch.is_alive(0)
    finally:
        worker.kill()
        worker.wait()
    await_text(log, "begun\ntold\n")
    assert not launch.is_alive(0)


def await_text(path: Path, text: str) -> None:
    deadline = time.monotonic() + 60
    while not path.exists() or path.read_text() != text:
        assert time.monotonic() < deadline, f"{path} never said {text!r}"
        time.sleep(0.02)


def test_launches_are_found_again_and_one_that_was_cut_off_is_passed_over(
    launch: Launch, tmp_path: Path
) -> None:
    (tmp_path / "jobs" / "0001").mkdir()
    (tmp_path / "jobs" / "0002").mkdir()
    (tmp_path / "jobs" / "0002" / "launch.json").write_text("{}")
    assert list_launches(tmp_path / "jobs") == [launch]
    assert list_launches(tmp_path / "none") == []
