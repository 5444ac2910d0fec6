"""What the fault matrix shares: the real command under a time limit, and what a run is worth on disk.

Most rows start glu-bench as a process of its own. A row is its tests' number: test_b12_… is a
test of row B12; its docstring says in the first paragraph what is done to glu-bench and in the
second what must then be true. Both stand with the times measured in README.md beside this file.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import signal
import subprocess
import time
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from glu_bench import faults
from tests.conftest import Command, Ended, command_env, command_line
from tests.faults.table import row_of

LIMIT_S = 240.0  # for a command on a machine that does other work; none takes a tenth of it
MARK = "GLU_BENCH_FAULT_TEST"  # in the environment of all that a test starts
# what two runs of one configuration may differ in: time, and what machine and moment give
FLEETING = (
    *("elapsed_s", "timed_elapsed_s", "timed_tokens", "tokens_per_s", "mfu", "peak_bytes", "record_sha256"),
    "files_sha256",  # of metrics.jsonl, which holds times
)

_elapsed_s: dict[str, float] = defaultdict(float)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    row = row_of(report.nodeid.rpartition("::")[2])
    if row is not None:
        _elapsed_s[row] += report.duration


def pytest_sessionfinish(session: pytest.Session) -> None:
    # each of xdist's workers writes what it ran; what they report to is told all of it again
    told = session.config.getoption("numprocesses", None) and not hasattr(session.config, "workerinput")
    if "GLU_BENCH_FAULT_TIMES" in os.environ and _elapsed_s and not told:
        folder = Path(os.environ["GLU_BENCH_FAULT_TIMES"])
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{uuid.uuid4().hex}.json").write_text(json.dumps(_elapsed_s))


class Processes:
    """Starts glu-bench in sessions of their own, and knows what is left of all it started."""

    def __init__(self, cwd: Path) -> None:
        self.cwd = cwd
        self.mark = uuid.uuid4().hex

    def start(self, *words: str, env: dict[str, str | None] | None = None, **options: Any) -> Any:
        """A glu-bench that runs on, stdout and stderr in pipes; `options` as for subprocess.Popen."""
        given = {"cwd": self.cwd, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        given |= {"stdin": subprocess.DEVNULL, "start_new_session": True}
        own = command_env(**{MARK: self.mark}, **(env or {}))
        command = options.pop("command", None) or command_line(*words)
        return subprocess.Popen(command, env=own, **(given | options))

    def run(
        self, *words: str, env: dict[str, str | None] | None = None, limit_s: float = LIMIT_S, **options: Any
    ) -> Ended:
        """glu-bench until it ends, and what is still running of it then; a hang fails the test."""
        process = self.start(*words, env=env, **options)
        return self.end(process, limit_s)

    def end(self, process: Any, limit_s: float = LIMIT_S) -> Ended:
        """How a started process ends within a time limit; it must leave no process behind."""
        try:
            out, err = process.communicate(timeout=limit_s)
        except subprocess.TimeoutExpired:
            self.kill_all()
            out, err = process.communicate()
            pytest.fail(f"still running after {limit_s} s\n{out}\n{err}")
        return Ended(process.returncode, out or "", err or "")

    def list_left(self) -> list[int]:
        """Processes that a test started, at any depth, and that have not ended."""
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                alive = (folder / "stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
                if alive and f"{MARK}={self.mark}".encode() in (folder / "environ").read_bytes():
                    found.append(int(folder.name))
        return found

    def kill_all(self) -> None:
        for pid in self.list_left():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[Processes]:
    """Starts glu-bench; after the test none of what it started may be alive."""
    found = Processes(tmp_path)
    yield found
    until = time.monotonic() + 3
    while found.list_left() and time.monotonic() < until:
        time.sleep(0.05)
    left = found.list_left()
    found.kill_all()
    assert not left, f"left running: {left}"


Fault = Callable[..., dict[str, str | None]]


@pytest.fixture
def fault() -> Fault:
    """The environment that makes a process break: fault("ckpt.tmp_half:kill9:2", rank=1)."""

    def make(*points: str, rank: int | None = None) -> dict[str, str | None]:
        env: dict[str, str | None] = {"GLU_BENCH_TESTING": "1", "GLU_BENCH_FAULT": ",".join(points)}
        return env | ({} if rank is None else {"GLU_BENCH_FAULT_RANK": str(rank)})

    return make


Here = Callable[..., Ended]


@pytest.fixture
def here(call_command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Here:
    """Runs glu-bench in this process and the test's folder, its fail points counted from here on."""
    monkeypatch.chdir(tmp_path)

    def run(*words: str, env: dict[str, str | None] | None = None) -> Ended:
        faults._passed.clear()
        with pytest.MonkeyPatch.context() as patch:
            for name, value in (env or {}).items():
                assert value is not None
                patch.setenv(name, value)
            return call_command(*words)

    return run


TinyTrain = Callable[..., Ended]


@pytest.fixture
def tiny_train(processes: Processes, tiny_words: list[str]) -> TinyTrain:
    """Trains the tiny run by command, under the test's folder; its words replace the shared ones."""

    def run(*words: str, **options: Any) -> Ended:
        return processes.run(*tiny_command(tiny_words, *words), **options)

    return run


def tiny_command(tiny_words: list[str], *words: str) -> list[str]:
    """The words behind glu-bench that train the tiny run, some of them replaced or added."""
    keys = {word.split("=", 1)[0] for word in words if not word.startswith("-")}
    kept = [word for word in tiny_words if word.split("=", 1)[0] not in keys]
    return ["train", "--quiet", *kept, *words]


def find_run(output_dir: Path) -> Path:
    """The one run folder of an output folder."""
    (folder,) = [path for path in (output_dir / "runs").iterdir() if not path.name.startswith(".")]
    return folder


def newest_checkpoint(run: Path) -> Path:
    """The checkpoint of the highest step."""
    return max(path for path in (run / "checkpoints").iterdir() if path.name.startswith("step-"))


def worth_of(run: Path) -> dict[str, Any]:
    """All of a finished run that must be the same however it came about.

    Checksums of the last checkpoint's parameters, optimiser and generators, the held-out loss of
    every window, the rows of metrics.jsonl, and result.json; times left out.
    """
    last = newest_checkpoint(run)
    state = json.loads((last / "state.json").read_text())
    result = json.loads((run / "result.json").read_text())
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return {
        "step": last.name,
        "model": hash_file(last / "model.safetensors"),
        "optimizer": hash_file(last / "optimizer.safetensors"),
        "state": _without_times(state),
        "result": _without_times(result),
        "rows": [_without_times(row) for row in rows],
        "blocks": hash_file(run / "blocks.safetensors"),
    }


def hash_file(path: Path) -> str:
    """sha256 of a file's content."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def snapshot(folder: Path) -> dict[str, str]:
    """sha256 of every file under a folder, and the target of every link, by relative name."""
    return {
        str(path.relative_to(folder)): str(path.readlink()) if path.is_symlink() else hash_file(path)
        for path in sorted(folder.rglob("*"))
        if path.is_symlink() or path.is_file()
    }


def _without_times(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_times(part) for name, part in value.items() if name not in FLEETING}
    return value


@pytest.fixture(scope="session")
def straight(tiny_words: list[str], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the tiny run is worth that nothing disturbs."""
    folder = tmp_path_factory.mktemp("straight")
    ended = Processes(folder).run(*tiny_command(tiny_words))
    assert ended.code == 0, ended.err
    return worth_of(find_run(folder / "outputs"))


def check_refused(ended: Ended, code: int, *parts: str) -> None:
    """A command ended with this code and one line on stderr that has all these parts."""
    assert (ended.code, ended.out) == (code, ""), ended.err
    (line,) = ended.err.splitlines()
    assert line.startswith("glu-bench: ")
    for part in parts:
        assert part in line


def intact_steps(run: Path) -> list[int]:
    """Steps of the checkpoints all files of which have the checksums that their manifest says, in order."""
    found = []
    for path in sorted((run / "checkpoints").glob("step-*")):
        with contextlib.suppress(OSError, ValueError):
            manifest = json.loads((path / "manifest.json").read_text())
            if all(hash_file(path / name) == sha256 for name, sha256 in manifest["sha256"].items()):
                found.append(int(manifest["step"]))
    return found


def wait_until_stopped(pid: int, meanwhile: Callable[[], object] = lambda: None) -> None:
    """Come back once a process has stopped itself (the fail points' action stop)."""
    until = time.monotonic() + 120
    while Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "T":
        assert time.monotonic() < until, "did not stop"
        meanwhile()
        time.sleep(0.02)
