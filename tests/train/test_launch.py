"""What goes wrong with one process of several: the run ends soon, says why, and leaves nobody behind."""

from __future__ import annotations

import contextlib
import json
import math
import os
import resource
import signal
import socket
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
from tests.conftest import Ended, command_env, command_line, make_text

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


@pytest.fixture(scope="module")
def straight_sha256(tiny_words: list[str], tmp_path_factory: pytest.TempPathFactory) -> str:
    """The weights of the run of two processes, undisturbed."""
    folder = tmp_path_factory.mktemp("straight")
    words = {word.split("=", 1)[0]: word for word in (*tiny_words, *STEPS, *TWO)}
    ended = finish(start([*words.values()], folder))
    assert ended.code == 0, ended.err
    return str(only_run(folder).result()["parameters_sha256"])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("point", "rank", "code", "message", "kept"),
    [
        ("step.after_backward:kill9:12", 1, 7, "rank 1 killed by signal 9 at step 12", [5, 10]),  # G1
        ("step.after_backward:kill9:12", 0, 7, "rank 0 killed by signal 9 at step 12", [5, 10]),
        ("step.after_backward:raise:12", 1, 1, "rank 1 failed at step 12", [5, 10]),  # G2
        (
            "step.after_backward:exit0:12",
            1,
            7,
            "rank 1 left early with exit code 0 at step 12",
            [5, 10],
        ),  # G3
        ("step.after_backward:stop:12", 1, 7, "rank 1 did not answer in time at step 12", [5, 10]),  # G4
        ("ckpt.tmp_half:kill9:2", 0, 7, "rank 0 killed by signal 9 at step 10", [5]),  # G5
        ("ckpt.before_rename:kill9:2", 0, 7, "rank 0 killed by signal 9 at step 10", [5]),
        ("ckpt.begin:raise:2", 1, 1, "rank 1 failed at step 10", [5]),  # G8
        ("ckpt.tmp_half:enospc:2", 0, 6, "the disk is full", [5]),
    ],
)
def test_a_rank_that_breaks_ends_the_run_and_the_same_command_goes_on(
    point: str,
    rank: int,
    code: int,
    message: str,
    kept: list[int],
    words: Callable[..., list[str]],
    straight_sha256: str,
    tmp_path: Path,
) -> None:
    process = start(words(), tmp_path, fault(point, rank))
    wait_for_rows(process, tmp_path, 1)
    began = time.monotonic()
    ended = finish(process)
    assert ended.code == code, ended.err
    assert time.monotonic() - began < TIMEOUT_S + 10
    assert list_ranks(tmp_path) == {}
    assert ended.out == ""
    assert ended.err.startswith("glu-bench: ")
    assert message in ended.err.splitlines()[0]
    assert "Connection" not in ended.err
    assert ("Traceback" in ended.err) == (code == 1)
    run = only_run(tmp_path)
    assert steps_of(run) == kept
    failure = run.failure()
    assert failure is not None
    assert failure["status"] == "failed"
    assert failure["reason"] in ended.err
    if "kill9" not in point:
        return  # what is on disk is the same
    ended = finish(start(words(), tmp_path))
    assert ended.code == 0, ended.err
    assert run.result()["parameters_sha256"] == straight_sha256
    assert [row["step"] for row in run.rows()] == list(range(1, 21))
    assert run.failure() is None


@pytest.mark.slow
@pytest.mark.parametrize(
    ("to", "number", "code"),
    [
        ("launcher", signal.SIGTERM, 143),
        ("launcher", signal.SIGINT, 130),
        ("rank 1", signal.SIGTERM, 143),
        ("all", signal.SIGTERM, 143),
    ],
)
def test_a_stop_reaches_all_ranks_at_one_step(  # G6
    to: str, number: signal.Signals, code: int, words: Callable[..., list[str]], tmp_path: Path
) -> None:
    process = start(words(*LONG), tmp_path)
    run = wait_for_rows(process, tmp_path, 5)
    ranks = list_ranks(tmp_path)
    pids = {"launcher": [process.pid], "rank 1": [ranks[1]], "all": [process.pid, *ranks.values()]}[to]
    for pid in pids:
        os.kill(pid, number)
    ended = finish(process, 20)
    assert ended.code == code, ended.err
    (step,) = steps_of(run)
    assert step == run.rows()[-1]["step"] < 3000
    assert f"stopped and saved at step {step}; the same command goes on" in ended.err
    assert ended.err.count("\n") == 1
    assert run.status() == "interrupted"


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
@pytest.mark.parametrize("mode", ["ddp", "fsdp"])
def test_a_loss_that_is_no_number_on_one_rank_stops_all_before_the_update(  # G7
    mode: str, words: Callable[..., list[str]], tmp_path: Path
) -> None:
    process = start(
        words(f"parallel={mode}", "train.log_every=99"), tmp_path, fault("step.after_backward:nan:12")
    )
    ended = finish(process)
    assert ended.code == 4
    assert ended.err.count("\n") == 1
    assert "diverged at step 12, loss is nan on rank 1; the weights were not updated" in ended.err
    run = only_run(tmp_path)
    assert run.status() == "diverged"
    assert steps_of(run) == [5, 10]
    checkpoints = [load_checkpoint(path) for path in list_checkpoints(run.checkpoints)]
    assert all(tensor.isfinite().all() for c in checkpoints for tensor in c.model.values())
    ended = finish(start(words(), tmp_path))
    assert ended.code == 4
    assert "--restart" in ended.err


def start_by_hand(
    each: list[list[str]], output_dir: Path, ports: tuple[int, int] | None = None
) -> list[subprocess.Popen[str]]:
    """Ranks without a launcher, as srun would start them."""
    port = launching.find_port()
    processes = []
    for rank, words in enumerate(each):
        env = {"RANK": str(rank), "WORLD_SIZE": str(len(each)), "MASTER_ADDR": "127.0.0.1"}
        env["MASTER_PORT"] = str(ports[rank] if ports else port)
        processes.append(start(words, output_dir, env))
    return processes


@pytest.mark.slow
@pytest.mark.parametrize(("differs", "code"), [("settings", 2), ("text", 3)])
def test_ranks_that_see_something_else_do_not_begin(  # G9
    differs: str, code: int, words: Callable[..., list[str]], tmp_path: Path
) -> None:
    other = tmp_path / "other.txt"
    other.write_text(make_text(600, seed=1))
    own = words("optim.lr=3e-4") if differs == "settings" else words(f"data.files={other}")
    each = [finish(process) for process in start_by_hand([words(), own], tmp_path)]
    what = {"settings": "configuration", "text": "text"}[differs]
    for rank, ended in enumerate(each):
        assert ended.code == code, ended.err
        assert (
            ended.err
            == f"glu-bench: rank {rank}: rank 1 has another {what} than rank 0; nothing was trained\n"
        )
        (report,) = (tmp_path / ".ranks").rglob(f"rank-{rank}.json")
        assert json.loads(report.read_text())["exit_code"] == code
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["ddp", "fsdp"])
def test_a_text_of_few_blocks_is_shared_without_a_hang(  # G10
    mode: str, words: Callable[..., list[str]], tmp_path: Path
) -> None:
    path = tmp_path / "short.txt"
    path.write_text(make_text(28))
    few = (f"data.files={path}", "model.seq_len=64", "train.batch_size=2", f"parallel={mode}")
    ended = finish(start(words(*few), tmp_path))
    assert ended.code == 0, ended.err
    n_windows = math.ceil(only_run(tmp_path).result()["n_test_tokens"] / 64)
    assert math.ceil(n_windows / 2) % 2  # batches of two windows: one rank has one more


@pytest.mark.slow
def test_a_port_that_is_taken_is_left_for_another(  # G11
    words: Callable[..., list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as holder:
        holder.bind(("0.0.0.0", 0))
        holder.listen()
        taken = holder.getsockname()[1]
        ports = iter([taken, launching.find_port()])
        monkeypatch.setattr(launching, "find_port", lambda: next(ports))
        monkeypatch.setenv("PYTHONPATH", command_env()["PYTHONPATH"])
        command = command_line("train", *words(), "--quiet", "--output-dir", str(tmp_path))
        launch_ranks(command, 2, tmp_path)
    assert only_run(tmp_path).status() == "complete"
    assert next(ports, None) is None


@pytest.mark.slow
def test_a_rank_that_cannot_find_the_others_gives_up(  # G11
    words: Callable[..., list[str]], tmp_path: Path
) -> None:
    began = time.monotonic()
    processes = start_by_hand([words(), words()], tmp_path, (launching.find_port(), launching.find_port()))
    for ended in [finish(process) for process in processes]:
        assert ended.code == 7
        assert "another process of the run ended or does not answer" in ended.err
    assert time.monotonic() - began < 30  # the time-out, and the start of Python


@pytest.mark.slow
def test_two_runs_at_once_do_not_meet(words: Callable[..., list[str]], tmp_path: Path) -> None:  # G11
    processes = [start(words(f"seed={seed}"), tmp_path / str(seed)) for seed in (0, 1)]
    assert [finish(process).code for process in processes] == [0, 0]


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
def test_a_rank_that_cannot_write_ends_the_run(
    words: Callable[..., list[str]], tmp_path: Path
) -> None:  # G14
    process = start(words(*LONG), tmp_path)
    run = wait_for_rows(process, tmp_path, 3)
    resource.prlimit(list_ranks(tmp_path)[1], resource.RLIMIT_FSIZE, (0, 0))
    ended = finish(process, 20)
    assert ended.code == 6, ended.err
    assert "rank 1 ended with exit code 6" in ended.err
    assert steps_of(run) == []


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


def test_no_fault_is_live_outside_tests(monkeypatch: pytest.MonkeyPatch) -> None:
    from glu_bench.faults import reach

    monkeypatch.setenv("GLU_BENCH_FAULT", "step.after_backward:raise:1")
    monkeypatch.delenv("GLU_BENCH_TESTING", raising=False)
    assert not reach("step.after_backward")
    monkeypatch.setenv("GLU_BENCH_TESTING", "1")
    with pytest.raises(RuntimeError, match="asked to fail"):
        reach("step.after_backward")
