"""What goes wrong with one process of several: the run ends soon, says why, and leaves nobody behind."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from glu_bench.errors import BusyError, DeviceError, RankFailedError
from glu_bench.runs.checkpoint import list_checkpoints, load_checkpoint
from glu_bench.runs.folder import Run, list_runs
from glu_bench.train import launch as launching
from glu_bench.train.launch import launch_ranks
from tests.conftest import Ended, command_env, command_line

TIMEOUT_S = 8
STEPS = ("train.steps=20", "train.batch_size=8", "train.eval_every=10", "train.checkpoint_every=5")
TWO = ("parallel=ddp", "parallel.devices=2", f"parallel.timeout_s={TIMEOUT_S}")
LONG = (
    "train.steps=3000",
    "train.checkpoint_every=3000",
    "train.eval_every=3000",
    "train.keep_checkpoints=9",
)

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


@pytest.fixture
def words(tiny_words: list[str]) -> Callable[..., list[str]]:
    """The settings of a run of two processes; later ones replace earlier ones."""

    def make(*own: str) -> list[str]:
        return [*{word.split("=", 1)[0]: word for word in (*tiny_words, *STEPS, *TWO, *own)}.values()]

    return make


def fault(point: str, rank: int = 1) -> dict[str, str]:
    return {"GLU_BENCH_TESTING": "1", "GLU_BENCH_FAULT": point, "GLU_BENCH_FAULT_RANK": str(rank)}


def start(words: list[str], output_dir: Path, env: dict[str, str] | None = None) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command_line("train", *words, "--quiet", "--output-dir", str(output_dir)),
        env=command_env(**(env or {})),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen[str], limit_s: float = 90) -> Ended:
    try:
        out, err = process.communicate(timeout=limit_s)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    return Ended(process.returncode, out, err)


def list_ranks(output_dir: Path) -> dict[int, int]:
    """Pid by rank of all processes that train into a folder, zombies left out."""
    found = {}
    for path in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError):
            arguments = (path / "cmdline").read_bytes().split(b"\0")
            env = dict(
                line.split(b"=", 1) for line in (path / "environ").read_bytes().split(b"\0") if b"=" in line
            )
            if str(output_dir).encode() in arguments and b"RANK" in env:
                found[int(env[b"RANK"])] = int(path.name)
    return found


def only_run(output_dir: Path) -> Run:
    (run,) = list_runs(output_dir)
    return run


def steps_of(run: Run) -> list[int]:
    return [load_checkpoint(path, run.run_id).step for path in list_checkpoints(run.checkpoints)]


def wait_for_rows(process: subprocess.Popen[str], output_dir: Path, n_rows: int) -> Run:
    until = time.monotonic() + 60
    while time.monotonic() < until and process.poll() is None:
        for run in list_runs(output_dir):
            if run.metrics_path.exists() and len(run.metrics_path.read_bytes().splitlines()) >= n_rows:
                return run
        time.sleep(0.02)
    process.kill()
    raise AssertionError(process.communicate())


@pytest.fixture(autouse=True)
def _nobody_is_left(tmp_path: Path) -> Iterator[None]:
    yield
    left = list_ranks(tmp_path)
    for pid in left.values():
        os.kill(pid, signal.SIGKILL)
    assert left == {}


@pytest.mark.slow
def test_ranks_end_with_their_launcher(words: Callable[..., list[str]], tmp_path: Path) -> None:
    process = start(words(*LONG), tmp_path)
    run = wait_for_rows(process, tmp_path, 5)
    process.kill()
    process.communicate(timeout=10)
    until = time.monotonic() + 15
    while list_ranks(tmp_path) and time.monotonic() < until:
        time.sleep(0.1)
    assert list_ranks(tmp_path) == {}
    assert steps_of(run) == [run.rows()[-1]["step"]]


@pytest.mark.slow
def test_a_second_signal_ends_all_at_once(words: Callable[..., list[str]], tmp_path: Path) -> None:
    process = start(words(*LONG), tmp_path, fault("ckpt.before_rename:sleep", 0))
    wait_for_rows(process, tmp_path, 5)
    process.send_signal(signal.SIGINT)
    time.sleep(1)
    process.send_signal(signal.SIGINT)
    assert finish(process, 5).code == 130


@pytest.mark.slow
def test_a_folder_that_is_held_is_busy(words: Callable[..., list[str]], tmp_path: Path) -> None:
    holder = start(words(*LONG), tmp_path)
    run = wait_for_rows(holder, tmp_path, 2)
    ended = finish(start(words(*LONG), tmp_path))
    assert ended.code == BusyError.exit_code
    assert ended.err.startswith(f"glu-bench: {run.path}: another process works on it")
    holder.send_signal(signal.SIGTERM)
    assert finish(holder).code == 143


@pytest.mark.slow
def test_torchrun_shows_the_error_and_keeps_its_exit_code_in_a_file(
    words: Callable[..., list[str]], tmp_path: Path
) -> None:
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "glu_bench"]
    done = subprocess.run(
        [*torchrun, "train", *words(), "--quiet", "--output-dir", str(tmp_path)],
        env=command_env(**fault("step.after_backward:nan:12")),
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert done.returncode == 1
    assert "loss is nan on rank 1; the weights were not updated (exit code 4)" in done.stderr
    reports = [json.loads(path.read_text()) for path in (tmp_path / ".ranks").rglob("rank-*.json")]
    assert [report["exit_code"] for report in reports] == [4, 4]


BREAK = "import os, sys, time; rank = int(os.environ['RANK'])\n"


@pytest.mark.parametrize(
    ("code", "error", "message"),
    [
        ("os.kill(os.getpid(), 11) if rank else time.sleep(60)", DeviceError, "rank 1 killed by signal 11"),
        ("sys.exit(0) if rank else time.sleep(60)", DeviceError, "rank 1 left early"),
        (
            "sys.exit('no such thing') if rank else time.sleep(60)",
            RankFailedError,
            "exit code 1.*no such thing",
        ),
    ],
)
def test_whatever_a_rank_does_is_told_and_nobody_waits(
    code: str, error: type[Exception], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launching, "GRACE_S", 0.3)
    with pytest.raises(error, match=message):
        launch_ranks([sys.executable, "-c", BREAK + code], 2, tmp_path)


SAY = """
import json, pathlib
code, lost, ended_at_s = ENDS[rank]
report = {"rank": rank, "exit_code": code, "message": f"ended by {code}", "lost": lost}
report |= {"trace": None, "ended_at_s": ended_at_s}
folder = pathlib.Path(os.environ["GLU_BENCH_RANKS_DIR"])
(folder / f"rank-{rank}.json").write_text(json.dumps(report))
sys.exit(code)
"""


@pytest.mark.parametrize(
    ("ends", "message"),
    [
        ([(7, True, 1.0), (3, False, 2.0)], "rank 1: ended by 3"),  # who saw it go may say so first
        ([(3, False, 2.0), (7, True, 1.0)], "ended by 3"),  # of rank 0 alone: nobody asks which
        ([(6, False, 2.0), (3, False, 1.0)], "rank 1: ended by 3"),
        ([(6, False, 1.0), (3, False, 2.0)], "rank 0: ended by 6"),
    ],
)
def test_the_first_rank_that_failed_by_itself_is_the_cause(
    ends: list[tuple[int, bool, float]], message: str, tmp_path: Path
) -> None:
    program = f"{BREAK}ENDS = {ends}\n{SAY}"
    with pytest.raises(RankFailedError, match=f"^{message}$") as caught:
        launch_ranks([sys.executable, "-c", program], 2, tmp_path)
    assert caught.value.exit_code == int(message[-1])


@pytest.mark.slow
@pytest.mark.parametrize(("reader", "code"), [("nobody", 0), ("a full disk", 6)])
def test_what_rank_0_prints_is_not_lost_in_silence(
    reader: str, code: int, words: Callable[..., list[str]], tmp_path: Path
) -> None:
    if reader == "nobody":
        unread, stdout = os.pipe()
        os.close(unread)
    else:
        stdout = os.open("/dev/full", os.O_WRONLY)
    command = command_line("train", *words(), "--quiet", "--output-dir", str(tmp_path))
    ended = subprocess.run(
        command, env=command_env(), stdout=stdout, stderr=subprocess.PIPE, text=True, timeout=90, check=False
    )
    os.close(stdout)
    assert ended.returncode == code, ended.stderr
    assert ("No space left" in ended.stderr) == bool(code)
    assert bool(ended.stderr) == bool(code)
    assert only_run(tmp_path).status() == "complete"


def test_no_fault_is_live_outside_tests(monkeypatch: pytest.MonkeyPatch) -> None:
    from glu_bench.faults import reach

    monkeypatch.setenv("GLU_BENCH_FAULT", "step.after_backward:raise:1")
    monkeypatch.delenv("GLU_BENCH_TESTING", raising=False)
    assert not reach("step.after_backward")
    monkeypatch.setenv("GLU_BENCH_TESTING", "1")
    with pytest.raises(RuntimeError, match="asked to fail"):
        reach("step.after_backward")
