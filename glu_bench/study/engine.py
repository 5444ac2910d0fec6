"""Running a plan on other machines, through a launcher; the same events as `sweep.run_plan`.

Jobs are watched through the folders they leave on a disk that all machines share, and SLURM's
through its queue too; what an engine reports of a job's success is never asked.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from glu_bench.errors import ConfigError, InterruptedRunError
from glu_bench.files import hold_lock
from glu_bench.launch import Launcher, make_launcher
from glu_bench.study.job import Launch, list_launches, run_job, write_launch
from glu_bench.study.plan import Plan, PlannedRun
from glu_bench.study.slurm import list_queued
from glu_bench.study.sweep import (
    RunEnded,
    RunStarted,
    SweepEvent,
    Tick,
    describe_timeout,
    judge_run,
    log_path,
    settle_run,
)

POLL_S = 0.5
QUEUE_S = 5.0  # between two questions to SLURM, which others ask as well
SETTLE_S = 5.0  # until what a machine wrote last is seen on another
QUIET_S = 60.0  # without any job alive, once the launcher gave up: the rest never begins


@dataclass
class _Watch:
    """A launch as seen from here."""

    launch: Launch
    is_submitting: bool = False
    error: BaseException | None = None
    queued: set[int] | None = None
    asked_at: float = -QUEUE_S
    alive_at: float = field(default_factory=time.monotonic)
    over_at: dict[int, float] = field(default_factory=dict)

    def refresh(self) -> None:
        """Ask SLURM again if it is time; elsewhere see whether any job is alive."""
        now = time.monotonic()
        if self.launch.engine == "submitit_slurm":
            if now - self.asked_at >= QUEUE_S:
                self.queued, self.asked_at = list_queued(self.launch.folder), now
        elif self.is_submitting or any(
            self.launch.is_alive(number) for number in range(len(self.launch.run_ids))
        ):
            self.alive_at = now

    def has_failed(self) -> bool:
        """Whether the launcher gave up before any job came to be."""
        numbers = range(len(self.launch.run_ids))
        submitted = self.queued is not None or any(map(self.launch.has_begun, numbers))
        return self.error is not None and not submitted

    def is_over(self, number: int) -> bool:
        """Whether the engine will do nothing more for a job."""
        if self.launch.engine == "submitit_slurm":
            return self.queued is not None and number not in self.queued
        if self.launch.is_alive(number):
            return False
        if self.launch.exit_code(number) is not None:
            return True
        if self.is_submitting:
            return False
        quiet = time.monotonic() - self.alive_at > QUIET_S
        return self.error is None or self.launch.has_begun(number) or quiet


def run_on_engine(
    plan: Plan,
    launcher_words: Sequence[str],
    *,
    retry_failed: bool = False,
    run_timeout_s: float | None = None,
    extra_words: tuple[str, ...] = (),
) -> Iterator[SweepEvent]:
    """Submit what is left of a plan, and wait for it; yields what happens.

    Jobs of an earlier launch that are still queued or alive are waited for, not submitted again.
    Each job ends its run after `run_timeout_s`, counted from when the job begins, and anew if it
    is queued again. `extra_words` are options added to every train command, such as --config-dir.
    Raises: InterruptedRunError after SIGINT or SIGTERM, ConfigError if nothing can be submitted.
    """
    with hold_lock(plan.folder):
        yield from _run(plan, launcher_words, retry_failed, run_timeout_s, extra_words)


def _run(
    plan: Plan,
    launcher_words: Sequence[str],
    retry_failed: bool,
    run_timeout_s: float | None,
    extra_words: tuple[str, ...],
) -> Iterator[SweepEvent]:
    left: dict[str, PlannedRun] = {}
    for planned in plan.runs:
        settled = settle_run(plan, planned, retry_failed)
        if settled is None:
            left[planned.run_id] = planned
        else:
            yield settled
    jobs = _find_jobs(plan, left)
    new = {run_id: planned for run_id, planned in left.items() if run_id not in jobs}
    stop: list[int] = []
    before = {
        number: signal.signal(number, lambda received, frame: stop.append(received))
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        if new:
            watch = _submit(plan, new, launcher_words, run_timeout_s, extra_words)
            jobs |= {run_id: (watch, number) for number, run_id in enumerate(new)}
        begun: set[str] = set()
        while left:
            watches = {id(watch): watch for watch, _ in jobs.values()}
            for watch in watches.values():
                watch.refresh()
                if watch.has_failed():
                    raise ConfigError(f"{' '.join(launcher_words)}: {_first_error(watch.error)}")
            for run_id, planned in list(left.items()):
                watch, number = jobs[run_id]
                if run_id not in begun and watch.launch.has_begun(number):
                    begun.add(run_id)
                    yield RunStarted(planned)
                ended = _look(plan, planned, watch, number)
                if ended is not None:
                    del left[run_id]
                    yield ended
            if left:
                if stop:
                    raise InterruptedRunError(
                        _say_goodbye(plan, {jobs[run_id][0].launch.engine for run_id in left}, len(left)),
                        stop[0],
                    )
                yield Tick([planned for run_id, planned in left.items() if run_id in begun])
                time.sleep(POLL_S)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _find_jobs(plan: Plan, left: dict[str, PlannedRun]) -> dict[str, tuple[_Watch, int]]:
    """Jobs of earlier launches that still wait or live, by the run they train."""
    found: dict[str, tuple[_Watch, int]] = {}
    for launch in list_launches(plan.folder / "jobs"):
        watch = _Watch(launch)
        watch.refresh()
        for number, run_id in enumerate(launch.run_ids):
            goes_on = number in (watch.queued or ()) or launch.is_alive(number)
            if run_id in left and goes_on:
                found[run_id] = (watch, number)
    return found


def _submit(
    plan: Plan,
    new: dict[str, PlannedRun],
    launcher_words: Sequence[str],
    run_timeout_s: float | None,
    extra_words: tuple[str, ...],
) -> _Watch:
    jobs = plan.folder / "jobs"
    n_before = len(list(jobs.iterdir())) if jobs.is_dir() else 0
    folder = (jobs / f"{n_before:04}").absolute()
    launcher = make_launcher(launcher_words, folder, plan.sweep_id, run_job)
    commands = {run_id: [*planned.words, *extra_words] for run_id, planned in new.items()}
    logs = log_path(plan, next(iter(new.values()))).parent
    launch = write_launch(folder, launcher.engine, commands, plan.output_dir, logs, run_timeout_s)
    watch = _Watch(launch, is_submitting=True)
    threading.Thread(target=_launch, args=(launcher, watch), daemon=True).start()
    return watch


def _launch(launcher: Launcher, watch: _Watch) -> None:
    """Submit and wait in a thread: a launcher waits job by job and leaves at the first that broke."""
    try:
        launcher.launch(len(watch.launch.run_ids))
    except BaseException as error:  # kept: what became of the runs is on disk
        watch.error = error
    finally:
        watch.is_submitting = False
    if watch.launch.engine == "ray":  # ends its servers with this thread; a next launch needs them
        threading.Event().wait()


def _look(plan: Plan, planned: PlannedRun, watch: _Watch, number: int) -> RunEnded | None:
    """How a run ended, or None while it may go on."""
    if plan.run(planned).outcome() == "complete":
        return judge_run(plan, planned, 0)
    if not watch.is_over(number):
        watch.over_at.pop(number, None)
        return None
    code = watch.launch.exit_code(number)
    if code is not None:
        return judge_run(plan, planned, code, describe_timeout(watch.launch.timeout_s(number)))
    now = time.monotonic()
    if now - watch.over_at.setdefault(number, now) < SETTLE_S:
        return None
    reason = "its job was killed" if watch.launch.has_begun(number) else "its job never began"
    log = log_path(plan, planned)
    return RunEnded(planned, "failed", reason, log if log.exists() else watch.launch.folder)


def _first_error(error: BaseException | None) -> str:
    """The line of a launcher's complaint that says what is wrong."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return next((line for line in lines if "error:" in line or "fatal:" in line), lines[0])


def _say_goodbye(plan: Plan, engines: set[str], n_left: int) -> str:
    lines = {
        "submitit_slurm": f"its jobs go on, `scancel --name={plan.sweep_id}` ends them",
        "submitit_local": "its jobs go on",
    }
    fate = "; ".join(lines.get(engine, "runs in flight save and stop") for engine in sorted(engines))
    return f"{plan.sweep_id}: no longer waiting for {n_left} runs; {fate}; the same command goes on"
