"""Running a plan on this machine: a pool of subprocesses, each one `glu-bench train`.

A run that fails, hangs, is killed or diverges touches no other. What happened is read from the
run folders, never from what a process says of itself. The same sweep again does what is left,
and two of them at once share the work: a run belongs to whoever holds its folder's lock.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from glu_bench.errors import BusyError, DataError, InterruptedRunError
from glu_bench.files import hold_lock, is_locked, make_folder, remove_strays, write_json
from glu_bench.runs.folder import Run
from glu_bench.study.plan import Plan, PlannedRun
from glu_bench.study.slots import Slot
from glu_bench.train.stop import end_with_parent

POLL_S = 0.2
ALONE = (Slot(),)  # one run at a time, on all cores
GRACE_S = 10.0  # from asking a run to save and end until it is killed
# asked to end, by a code of its own after saving, or by the signal itself where nothing was to be saved
ASKED = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM)
ASKED_CODES = (*(-number for number in ASKED), *(128 + number for number in ASKED))


@dataclass(frozen=True)
class RunStarted:
    """A run's process began; `remark` says what was odd about what it found."""

    planned: PlannedRun
    remark: str | None = None


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


@dataclass(frozen=True, kw_only=True)
class Limits:
    """When a sweep gives up: on a run, or altogether."""

    retry_failed: bool = False
    fail_fast: bool = False
    run_timeout_s: float | None = None
    max_s: float | None = None


NO_LIMITS = Limits()


@dataclass(kw_only=True)
class _Flight:
    process: subprocess.Popen[bytes]
    slot: Slot
    began: float
    timed_out: bool = False


def run_plan(
    plan: Plan,
    *,
    slots: Sequence[Slot] = ALONE,
    limits: Limits = NO_LIMITS,
    extra_words: tuple[str, ...] = (),
) -> Iterator[SweepEvent]:
    """Execute what is left of a plan, a run a slot at a time; yields what happens.

    Seed by seed, so that what changes with time (other work, heat) meets all arms alike, and a sweep
    that was stopped holds whole comparisons.
    A run that failed before is tried again only with `limits.retry_failed`; one that was
    interrupted or killed goes on. `extra_words` are options added to every train command.
    Raises: InterruptedRunError after SIGINT or SIGTERM, once the runs in flight have saved.
    """
    waiting: list[PlannedRun] = []
    for planned in plan.runs:
        settled = settle_run(plan, planned, limits.retry_failed)
        if settled is None:
            waiting.append(planned)
        else:
            yield settled
    waiting.sort(key=lambda planned: int(planned.identity["seed"]))
    pool = _Pool(plan, list(slots), limits, extra_words)
    before = {number: signal.signal(number, pool.hear) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield from pool.run(waiting)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        pool.kill()  # only if the caller broke off


class _Pool:
    """The runs in flight, and why no more may start."""

    def __init__(self, plan: Plan, slots: list[Slot], limits: Limits, extra_words: tuple[str, ...]) -> None:
        self.plan, self.limits, self.extra_words = plan, limits, extra_words
        self.free = slots
        self.flights: dict[PlannedRun, _Flight] = {}
        self.signal: int | None = None
        self.stopping = False

    def hear(self, number: int, frame: object) -> None:
        """A signal to this process: no more is started, and the runs save."""
        self.signal = number
        self.stop()

    def stop(self) -> None:
        """Start no more, and ask those in flight to save and end.

        Always by SIGTERM: SIGINT is an exception while Python starts, and exits with 1.
        """
        self.stopping = True
        for flight in self.flights.values():
            flight.process.terminate()

    def kill(self) -> None:
        """End every process at once."""
        for flight in self.flights.values():
            flight.process.kill()
            flight.process.wait()

    def run(self, waiting: list[PlannedRun]) -> Iterator[SweepEvent]:
        """Start, watch and judge until nothing is left to do."""
        began = time.monotonic()
        while (waiting and not self.stopping) or self.flights:
            yield from self._start_some(waiting)
            idle = True
            for planned, flight in list(self.flights.items()):
                code = flight.process.poll()
                if code is None:
                    self._check_timeout(flight)
                    continue
                idle = False  # its place is taken without a wait
                del self.flights[planned]
                self.free.append(flight.slot)
                if code == BusyError.exit_code:
                    waiting.append(planned)  # another sweep was quicker; see what becomes of it
                    continue
                limit_s = self.limits.run_timeout_s if flight.timed_out else None
                ended = judge_run(self.plan, planned, code, describe_timeout(limit_s))
                yield ended
                if self.limits.fail_fast and ended.status not in ("complete", "interrupted"):
                    self.stop()
            late = self.limits.max_s is not None and time.monotonic() - began > self.limits.max_s
            if late and not self.stopping:
                self.stop()
            if idle and (self.flights or (waiting and not self.stopping)):
                yield Tick(list(self.flights))
                time.sleep(POLL_S)
        if self.signal is not None:
            number = signal.Signals(self.signal)
            raise InterruptedRunError(
                f"{self.plan.sweep_id}: stopped by {number.name}, {len(waiting)} runs not begun; "
                "the same command goes on",
                number,
            )

    def _start_some(self, waiting: list[PlannedRun]) -> Iterator[SweepEvent]:
        for planned in list(waiting):
            if not self.free or self.stopping:
                return
            if is_locked(self.plan.run(planned).path):
                continue  # another process trains it
            waiting.remove(planned)
            # between the plan and now another sweep may have done it
            settled = settle_run(self.plan, planned, self.limits.retry_failed)
            if settled is not None:
                yield settled
                continue
            slot = self.free.pop(0)
            torn = (self.plan.run(planned).path / "result.json").exists()
            process = _start(self.plan, planned, slot, self.extra_words)
            self.flights[planned] = _Flight(process=process, slot=slot, began=time.monotonic())
            if self.signal is not None:  # it came while this run was begun
                process.terminate()
            yield RunStarted(
                planned, "its result.json was torn or edited and does not count" if torn else None
            )

    def _check_timeout(self, flight: _Flight) -> None:
        limit = self.limits.run_timeout_s
        if limit is None:
            return
        elapsed_s = time.monotonic() - flight.began
        if elapsed_s > limit + GRACE_S:
            flight.process.kill()
        elif elapsed_s > limit and not flight.timed_out:
            flight.timed_out = True
            flight.process.terminate()


def describe_timeout(limit_s: float | None) -> str | None:
    """Why a run was ended, if it was after so many seconds."""
    return None if limit_s is None else f"timeout: more than {limit_s:g} s"


def log_path(plan: Plan, planned: PlannedRun) -> Path:
    """Where a run's process writes its output."""
    return plan.folder / "logs" / f"{planned.run_id}.log"


def settle_run(plan: Plan, planned: PlannedRun, retry_failed: bool) -> RunEnded | None:
    """How a run ended before, if nothing is to be done about it now."""
    run = plan.run(planned)
    outcome = run.outcome()
    if outcome == "complete":
        return RunEnded(planned, "skipped", None, None)
    if outcome == "diverged" or (outcome == "failed" and not retry_failed):
        failure = run.failure() or {}
        hint = "--retry-failed tries it again" if outcome == "failed" else "it would again"
        return RunEnded(planned, outcome, f"{failure.get('reason')}, before; {hint}", log_path(plan, planned))
    return None


def _start(
    plan: Plan, planned: PlannedRun, slot: Slot, extra_words: tuple[str, ...]
) -> subprocess.Popen[bytes]:
    log = log_path(plan, planned)
    make_folder(log.parent)
    words = list_words(plan.run(planned), planned, slot)
    command = [sys.executable, "-m", "glu_bench", "train", *words, *extra_words]
    command += ["--output-dir", str(plan.output_dir), "--quiet"]
    with log.open("wb") as file:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            env={**os.environ, **slot.env},
            start_new_session=True,  # Ctrl-C reaches the runs once, through `hear`
            preexec_fn=end_with_parent if sys.platform == "linux" else None,
        )


def list_words(run: Run, planned: PlannedRun, slot: Slot) -> list[str]:
    """The settings of a run in a slot. One that began keeps its thread count: another changes the bits."""
    if any(word.startswith("train.threads=") for word in planned.words):
        return list(planned.words)
    try:
        n_threads = run.environment().get("n_threads")
    except DataError:
        n_threads = None  # broken; its process will say so, and no other run is harmed
    if isinstance(n_threads, int):
        return [*planned.words, f"train.threads={n_threads}"]
    return [*planned.words, *slot.words]


def judge_run(plan: Plan, planned: PlannedRun, code: int, reason: str | None = None) -> RunEnded:
    """What became of a run whose process ended with this code, a signal as a negative number.

    A failure that the run could not record itself is recorded; `reason` says why it was ended.
    """
    run, log = plan.run(planned), log_path(plan, planned)
    _sweep_up(run)
    if run.outcome() == "complete":
        return RunEnded(planned, "complete", None, log)
    if reason is not None:
        _record_failure(run, reason)
        return RunEnded(planned, "timeout", reason, log)
    if code < 0:
        return _judge_killed(run, planned, -code, log)
    failure = run.failure() if run.path.exists() else None
    if failure is not None:
        return RunEnded(planned, str(failure["status"]), str(failure["reason"]), log)
    if code in ASKED_CODES:
        return RunEnded(planned, "interrupted", f"exit {code}", log)
    lines = log.read_text(errors="replace").strip().splitlines()
    reason = f"exit {code}: {lines[-1] if lines else 'no output'}"
    _record_failure(run, reason)
    return RunEnded(planned, "failed", reason, log)


def _judge_killed(run: Run, planned: PlannedRun, number: int, log: Path) -> RunEnded:
    """What to call a run that a signal ended: only a crash of its own is on record, and would come again."""
    reason = f"killed by signal {number}, {signal.Signals(number).name}"
    if -number in ASKED_CODES:
        return RunEnded(planned, "interrupted", reason, log)
    if number == signal.SIGKILL:
        return RunEnded(planned, "failed", f"{reason} (possibly out of memory)", log)
    _record_failure(run, reason)
    return RunEnded(planned, "failed", reason, log)


def _sweep_up(run: Run) -> None:
    """Delete what a process left behind that was killed, unless another one is at work there."""
    if run.path.is_dir():
        with contextlib.suppress(BusyError), hold_lock(run.path, timeout_s=0):
            remove_strays(run.path)
            remove_strays(run.checkpoints)


def _record_failure(run: Run, reason: str) -> None:
    # a run that ended before it had a folder is simply tried again
    if (run.path / "environment.json").exists():
        write_json(run.path / "failure.json", {"status": "failed", "reason": reason})
