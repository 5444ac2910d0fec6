"""Several ranks of one run as processes of this machine: started, watched, and never left behind.

A rank that ends badly ends all. What is said of it is its own error, not what the others saw
of its going; the exit code is that of this error.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from glu_bench.errors import DeviceError, InterruptedRunError, RankFailedError
from glu_bench.files import make_folder
from glu_bench.ranks import STORE_FD
from glu_bench.train.reports import FOLDER, RankReport, note_failure, read_report, read_step
from glu_bench.train.stop import ORDERS, end_with_parent

POLL_S = 0.05
GRACE_S = 4.0  # for the others to end by themselves once one has


@dataclass(frozen=True)
class Launched:
    """The processes of one run, by rank, and the folder of their reports and logs."""

    processes: tuple[subprocess.Popen[bytes], ...]
    folder: Path


def launch_ranks(command: Sequence[str], n_ranks: int, output_dir: Path) -> None:
    """Run a command as so many ranks; comes back when all have ended well.

    Rank 0 has this process's stdout and stderr, the others write to a log each, which stays if
    the run fails.
    Raises: RankFailedError with the exit code and the words of the rank that failed first;
    DeviceError if one was killed, left early or did not answer; InterruptedRunError.
    """
    make_folder(output_dir / ".ranks")
    folder = Path(tempfile.mkdtemp(prefix=f"{os.getpid()}-", dir=output_dir / ".ranks"))
    error = _run(command, n_ranks, folder)
    if error is None or isinstance(error, InterruptedRunError):
        shutil.rmtree(folder)
    else:
        note_failure(folder, error)
    if error is not None:
        raise error


def _run(command: Sequence[str], n_ranks: int, folder: Path) -> Exception | None:
    """The ranks from start to end, whatever happens; what the run ended of, None if all is well."""
    asked: list[int] = []

    def hear(number: int, frame: FrameType | None) -> None:
        asked.append(number)

    before = {number: signal.signal(number, hear) for number in ORDERS.values()}
    # the port is taken from here on, and nobody else's machine is heard on it
    with socket.create_server(("127.0.0.1", 0)) as listener:
        launched = Launched(_start(command, n_ranks, folder, listener), folder)
    try:
        suspects = _watch(launched, asked)
    finally:
        for process in launched.processes:
            process.kill()
        for process in launched.processes:
            process.wait()
        for number, handler in before.items():
            signal.signal(number, handler)
    return None if suspects is None else _judge(launched, suspects, asked)


Processes = tuple[subprocess.Popen[bytes], ...]


def _start(command: Sequence[str], n_ranks: int, folder: Path, listener: socket.socket) -> Processes:
    processes = []
    port, fd = listener.getsockname()[1], listener.fileno()
    for rank in range(n_ranks):
        places = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": n_ranks, "LOCAL_WORLD_SIZE": n_ranks}
        env = os.environ | {name: str(number) for name, number in places.items()}
        env |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), FOLDER: str(folder)}
        env |= {STORE_FD: str(fd)} if rank == 0 else {}
        with (folder / f"rank-{rank}.log").open("wb") as log:
            processes.append(
                subprocess.Popen(
                    command,
                    env=env,
                    stdin=subprocess.DEVNULL,
                    stdout=None if rank == 0 else log,
                    stderr=None if rank == 0 else log,
                    pass_fds=(fd,) if rank == 0 else (),
                    start_new_session=True,  # Ctrl-C reaches them once, through the launcher
                    preexec_fn=end_with_parent if sys.platform == "linux" else None,
                )
            )
    return tuple(processes)


def _watch(launched: Launched, asked: list[int]) -> list[int] | None:
    """Wait until all have ended; None if well, else the ranks that had to be ended from here."""
    n_told, until = 0, float("inf")
    while True:
        if len(asked) > n_told:
            n_told = len(asked)
            if n_told > 1:
                return []  # twice: at once
            order = next(order for order, number in ORDERS.items() if number == asked[0])
            for process in launched.processes:
                process.send_signal(order)
        codes = [process.poll() for process in launched.processes]
        ended = [rank for rank, code in enumerate(codes) if code is not None]
        failed = [rank for rank in ended if codes[rank] or read_report(launched.folder, rank) is None]
        if len(ended) == len(codes):
            return [] if failed else None
        if failed and until == float("inf"):
            until = time.monotonic() + GRACE_S
        if time.monotonic() > until:
            return [rank for rank, code in enumerate(codes) if code is None]
        time.sleep(POLL_S)


def _judge(launched: Launched, suspects: list[int], asked: list[int]) -> Exception:
    """What the run ended of: the first of its ranks that failed by itself."""
    folder = launched.folder
    codes = [process.returncode for process in launched.processes]
    reports = [read_report(folder, rank) for rank in range(len(codes))]
    if asked and not any(_is_cause(report) and report.exit_code < 128 for report in reports if report):
        words = [report.message for report in reports if report and report.exit_code > 128]
        name = signal.Signals(asked[0]).name
        return InterruptedRunError(words[0] if words else f"stopped by {name}", asked[0])
    # a rank that finds its peer gone may abort: that is no cause
    for rank, code in enumerate(codes):
        if code < 0 and code != -signal.SIGABRT and rank not in suspects:
            name = signal.Signals(-code).name + (", possibly out of memory" if code == -9 else "")
            where = _say_step(folder, rank)
            return DeviceError(f"rank {rank} killed by signal {-code}{where} ({name}); logs in {folder}")
    causes = [report for report in reports if report and _is_cause(report)]
    if causes:
        first = min(causes, key=lambda report: report.ended_at_s)
        common = len({report.message for report in causes}) == 1 and causes[0].rank == 0
        return _repeat(first, folder, "" if common else f"rank {first.rank}: ")
    for rank, code in enumerate(codes):
        if code == 0 and reports[rank] is None:
            return DeviceError(f"rank {rank} left early with exit code 0{_say_step(folder, rank)}")
        if code > 0 and reports[rank] is None:
            where = _say_step(folder, rank) + _say_log(folder, rank)
            return RankFailedError(f"rank {rank} ended with exit code {code}{where}", code)
    silent = suspects or [rank for rank, report in enumerate(reports) if report is None]
    named = " and ".join(f"rank {rank}" for rank in silent) or "a rank"
    where = _say_step(folder, silent[0]) if silent else ""
    return DeviceError(f"{named} did not answer in time{where}, and was ended; logs in {folder}")


def _is_cause(report: RankReport) -> bool:
    return report.exit_code != 0 and not report.lost


def _repeat(report: RankReport, folder: Path, who: str) -> Exception:
    if report.exit_code > 128:
        return InterruptedRunError(report.message, report.exit_code - 128)
    if report.trace is not None:
        text = f"rank {report.rank} failed{_say_step(folder, report.rank)}\n{report.trace.strip()}"
        return RankFailedError(text, report.exit_code)
    return RankFailedError(who + report.message, report.exit_code)


def _say_step(folder: Path, rank: int) -> str:
    step = read_step(folder, rank)
    return " before the first step" if step is None else f" at step {step}"


def _say_log(folder: Path, rank: int) -> str:
    path = folder / f"rank-{rank}.log"
    lines = path.read_text(errors="replace").strip().splitlines()
    return f": {lines[-1]}" if lines else ""
