"""How a command executes a plan: where its runs go, what the screen shows, what did not finish."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from glu_bench.errors import SweepIncompleteError

if TYPE_CHECKING:
    from glu_bench.study.plan import Plan
    from glu_bench.study.slots import Slot
    from glu_bench.study.sweep import Limits, RunEnded
    from glu_bench.study.tuning import Tuning


@dataclass(frozen=True, kw_only=True)
class Execution:
    """What a person said about how runs are executed."""

    limits: Limits
    n_parallel: int | None = None  # None: by a short measurement
    per_gpu: int = 1
    launcher_words: Sequence[str] = ()
    extra_words: tuple[str, ...] = ()  # options of every train command
    quiet: bool = False


def make_limits(
    *,
    retry_failed: bool,
    max_hours: float | None,
    fail_fast: bool = False,
    run_timeout_s: float | None = None,
) -> Limits:
    """When a sweep gives up, as a person said it."""
    from glu_bench.study.sweep import Limits

    return Limits(
        retry_failed=retry_failed,
        fail_fast=fail_fast,
        run_timeout_s=run_timeout_s,
        max_s=None if max_hours is None else 3600 * max_hours,
    )


def list_options(
    plugins: Sequence[Path] | None = None,
    config_dir: Path | None = None,
    *,
    allow_unmatched: bool = False,
    deterministic: bool = False,
) -> list[str]:
    """Options that every train command of a sweep is given too, with paths that hold anywhere here."""
    words = ["--allow-unmatched"] if allow_unmatched else []
    words += ["--deterministic"] if deterministic else []
    words += [word for path in plugins or () for word in ("--plugin", str(path.resolve()))]
    return words + (["--config-dir", str(config_dir.resolve())] if config_dir else [])


def execute_plan(plan: Plan, how: Execution) -> list[RunEnded]:
    """How each run of the plan ended, those complete already included; shows them on the way."""
    from glu_bench.show.console import make_stderr, plain
    from glu_bench.show.sweep import SweepScreen
    from glu_bench.study.engine import run_on_engine
    from glu_bench.study.sweep import RunEnded, run_plan

    stderr = make_stderr()
    if how.launcher_words:
        events = run_on_engine(
            plan,
            how.launcher_words,
            retry_failed=how.limits.retry_failed,
            run_timeout_s=how.limits.run_timeout_s,
            extra_words=how.extra_words,
        )
    else:
        slots, remark = _choose_slots(plan, how.n_parallel, how.per_gpu)
        if remark and not how.quiet:
            stderr.print(plain(remark))
        events = run_plan(plan, slots=slots, limits=how.limits, extra_words=how.extra_words)
    ended: list[RunEnded] = []
    with SweepScreen(stderr, plan, how.quiet) as screen:
        for event in events:
            screen.show(event)
            if isinstance(event, RunEnded):
                ended.append(event)
    return ended


def execute_rest(plan: Plan, how: Execution) -> list[RunEnded]:
    """As `execute_plan`, but nothing is started or shown where all runs are complete."""
    from glu_bench.study.sweep import RunEnded

    if all(plan.run(planned).outcome() == "complete" for planned in plan.runs):
        return [RunEnded(planned, "skipped", None, None) for planned in plan.runs]
    return execute_plan(plan, how)


def execute_tuning(
    tuning: Tuning,
    execute: Callable[[Plan], Sequence[RunEnded]],
    *,
    widen: bool,
    accepted: tuple[str, ...],
    quiet: bool,
) -> Plan:
    """The plan of the sweep's own runs, each arm at what `execute` found; shows what was chosen.

    Raises: SweepIncompleteError if a run neither finished nor ended in an accepted way.
    """
    from glu_bench.show.console import make_stderr
    from glu_bench.show.sweep import render_tuning

    def tune(plan: Plan) -> None:
        check_ended(plan, execute(plan), accepted)

    choices = tuning.choose(tune, widen)
    if not quiet:
        make_stderr().print(render_tuning(choices))
    return tuning.confirm(choices)


def check_ended(plan: Plan, ended: Sequence[RunEnded], accepted: tuple[str, ...] = ()) -> None:
    """Refuse a plan whose runs did not all finish, or end in an accepted way.

    Raises: SweepIncompleteError naming those that did not.
    """
    failed = [event for event in ended if event.status not in ("complete", "skipped", *accepted)]
    n_not_begun = len(plan.runs) - len(ended)
    if not failed and not n_not_begun:
        return
    lines = [f"  {e.planned.run_id}: {e.status}, {e.reason}; log: {e.log}" for e in failed]
    if n_not_begun:
        lines.append(f"  {n_not_begun} not begun; the same command goes on")
    raise SweepIncompleteError(
        "\n".join([f"{len(failed) + n_not_begun} of {len(plan.runs)} runs did not finish", *lines])
    )


def _choose_slots(plan: Plan, n_parallel: int | None, per_gpu: int) -> tuple[list[Slot], str | None]:
    """Where runs go, and a remark if finished runs or a measurement decided it."""
    from glu_bench.study.slots import make_slots, make_slots_as_before

    pending = [p.config for p in plan.runs if p.config and plan.run(p).outcome() != "complete"]
    if not pending:
        return make_slots(1), None
    import torch

    from glu_bench.cost.estimate import choose_parallel

    n_gpus = torch.cuda.device_count() if any(c.train.device != "cpu" for c in pending) else 0
    if n_gpus:
        return make_slots(n_parallel or n_gpus * per_gpu, n_gpus, per_gpu), None
    if n_parallel is not None:
        return make_slots(n_parallel), None
    if pending[0].train.threads is None and (slots := make_slots_as_before(plan)):
        (threads,) = slots[0].words
        return slots, f"{_at_a_time(len(slots))}: {threads}, as its finished runs were trained"
    chosen, gain = choose_parallel(pending[0], len(pending))
    if gain is None:
        return make_slots(chosen), None
    how = _at_a_time(chosen)
    return make_slots(chosen), f"{how}: a thread each would give {gain:.2f} times the tokens/s of all in one"


def _at_a_time(n: int) -> str:
    return f"{n} runs at a time" if n > 1 else "one run at a time"
