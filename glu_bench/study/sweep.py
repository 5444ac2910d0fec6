"""Running a plan on this machine: a pool of subprocesses, each one `glu-bench train`.

A run that fails, is killed or diverges touches no other. What happened is read from the run
folders, never from what a process says of itself. The same sweep again does what is left.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from glu_bench.errors import InterruptedRunError
from glu_bench.files import hold_lock, make_folder
from glu_bench.study.job import end_with_parent
from glu_bench.study.plan import Plan, PlannedRun

POLL_S = 0.2


@dataclass(frozen=True)
class RunStarted:
    """A run's process began."""

    planned: PlannedRun


@dataclass(frozen=True)
class RunEnded:
    """A run ended; `status` is complete, skipped, or what went wrong, `reason` says why."""

    planned: PlannedRun
    status: str
    reason: str | None
    log: Path | None


@dataclass(frozen=True)
class Tick:
    """Time passed; these runs are in flight."""

    in_flight: list[PlannedRun]


SweepEvent = RunStarted | RunEnded | Tick


def run_plan(
    plan: Plan,
    *,
    n_parallel: int = 1,
    extra_words: tuple[str, ...] = (),
) -> Iterator[SweepEvent]:
    """Execute what is left of a plan, `n_parallel` at a time; yields what happens.

    `extra_words` are options added to every train command, such as --config-dir.
    Raises: InterruptedRunError after SIGINT or SIGTERM, once the runs in flight have saved.
    """
    with hold_lock(plan.folder):
        yield from _run_plan(plan, n_parallel, extra_words)


def _run_plan(plan: Plan, n_parallel: int, extra_words: tuple[str, ...]) -> Iterator[SweepEvent]:
    waiting: list[PlannedRun] = []
    for planned in plan.runs:
        if plan.run(planned).outcome() == "complete":
            yield RunEnded(planned, "skipped", None, None)
        else:
            waiting.append(planned)
    in_flight: dict[PlannedRun, subprocess.Popen[bytes]] = {}
    stop: list[int] = []

    def forward(number: int, frame: object) -> None:
        stop.append(number)
        for process in in_flight.values():
            process.send_signal(number)

    before = {number: signal.signal(number, forward) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        while waiting or in_flight:
            while waiting and len(in_flight) < n_parallel and not stop:
                planned = waiting.pop(0)
                in_flight[planned] = _start(plan, planned, n_parallel, extra_words)
                yield RunStarted(planned)
            for planned, process in list(in_flight.items()):
                if process.poll() is not None:
                    del in_flight[planned]
                    yield judge_run(plan, planned, process.returncode)
            if stop and not in_flight:
                number = signal.Signals(stop[0])
                raise InterruptedRunError(
                    f"{plan.sweep_id}: stopped by {number.name}, {len(waiting)} runs not begun; "
                    "the same command goes on",
                    number,
                )
            if in_flight:
                yield Tick(list(in_flight))
                time.sleep(POLL_S)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for process in in_flight.values():  # only if the caller broke off
            process.kill()
            process.wait()


def log_path(plan: Plan, planned: PlannedRun) -> Path:
    """Where a run's process writes its output."""
    return plan.folder / "logs" / f"{planned.run_id}.log"


def _start(
    plan: Plan, planned: PlannedRun, n_parallel: int, extra_words: tuple[str, ...]
) -> subprocess.Popen[bytes]:
    log = log_path(plan, planned)
    make_folder(log.parent)
    words = list(planned.words)
    if n_parallel > 1 and not any(word.startswith("train.threads=") for word in words):
        words.append(f"train.threads={max(1, (os.cpu_count() or 1) // n_parallel)}")
    command = [sys.executable, "-m", "glu_bench", "train", *words, *extra_words]
    command += ["--output-dir", str(plan.folder.parent.parent), "--quiet"]
    with log.open("wb") as file:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C reaches the runs once, through `forward`
            preexec_fn=end_with_parent if sys.platform == "linux" else None,
        )


def judge_run(plan: Plan, planned: PlannedRun, code: int) -> RunEnded:
    """What became of a run whose process ended with this code, a signal as a negative number."""
    run, log = plan.run(planned), log_path(plan, planned)
    if run.outcome() == "complete":
        return RunEnded(planned, "complete", None, log)
    if code < 0:
        name = signal.Signals(-code).name
        hint = " (possibly out of memory)" if -code == signal.SIGKILL else ""
        return RunEnded(planned, "failed", f"killed by signal {-code}, {name}{hint}", log)
    failure = run.failure() if run.path.exists() else None
    if failure is not None:
        return RunEnded(planned, str(failure["status"]), str(failure["reason"]), log)
    if code in (130, 143):
        return RunEnded(planned, "interrupted", f"exit {code}", log)
    lines = log.read_text(errors="replace").strip().splitlines()
    return RunEnded(planned, "failed", f"exit {code}: {lines[-1] if lines else 'no output'}", log)
