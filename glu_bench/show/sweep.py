"""A sweep as it goes: a line a run in flight and the total on a terminal, a line an end elsewhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from glu_bench.errors import DataError, show_controls
from glu_bench.show.console import is_live, plain
from glu_bench.show.numbers import duration, fixed, si
from glu_bench.show.tables import render_rows
from glu_bench.study.plan import Plan, PlannedRun
from glu_bench.study.sweep import RunEnded, RunStarted, SweepEvent, Tick
from glu_bench.study.tuning import Choice


class SweepScreen:
    """Shows the events of a sweep; what runs do is read from their folders."""

    def __init__(self, console: Console, plan: Plan, quiet: bool) -> None:
        self.console = console
        self.plan = plan
        self.quiet = quiet
        self.live = is_live(console) and not quiet
        self.n_ended = 0
        self.n_failed = 0
        self.progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=16),
            TextColumn("{task.fields[words]}", markup=False),
            TimeElapsedColumn(),
            console=console,
            transient=True,
            disable=not self.live,
        )
        self.total = self.progress.add_task("all runs", total=len(plan.runs), words="")
        self.tasks: dict[str, TaskID] = {}

    def __enter__(self) -> SweepScreen:
        self.progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.progress.stop()

    def show(self, event: SweepEvent) -> None:
        """One event of `run_plan`."""
        if self.quiet:
            return
        if isinstance(event, RunStarted):
            if event.remark:
                self.console.print(plain(f"warning: {event.planned.run_id}: {event.remark}"))
            if self.live:
                self.tasks[event.planned.run_id] = self.progress.add_task(
                    show_controls(_shorten(event.planned.run_id)), total=1, words="starting"
                )
        elif isinstance(event, RunEnded):
            self._end(event)
        elif isinstance(event, Tick) and self.live:
            for planned in event.in_flight:
                self._update(planned)

    def _end(self, event: RunEnded) -> None:
        self.n_ended += 1
        run_id = event.planned.run_id
        if run_id in self.tasks:
            self.progress.remove_task(self.tasks.pop(run_id))
        self.n_failed += event.status not in ("complete", "skipped")
        failed = f", {self.n_failed} failed" if self.n_failed else ""
        self.progress.update(
            self.total, completed=self.n_ended, words=f"{self.n_ended}/{len(self.plan.runs)}{failed}"
        )
        words = event.status if event.status != "skipped" else "complete already"
        if event.status in ("complete", "skipped"):
            record = self.plan.run(event.planned).result()
            words += f", test loss {record['test_loss_nats']:.4f}, {si(record['tokens_per_s'])} tok/s"
        if event.reason:
            words += f": {event.reason} (log: {event.log})"
        self.console.print(plain(f"[{self.n_ended}/{len(self.plan.runs)}] {run_id}: {words}"))

    def _update(self, planned: PlannedRun) -> None:
        run = self.plan.run(planned)
        try:
            rows = run.rows()
        except DataError:
            return  # a row is being written
        if rows:
            row = rows[-1]
            words = f"step {row['step']}  loss {row['loss_nats']:.4f}  {si(row['tokens_per_s'])} tok/s"
            if row["step"] and row["tokens_per_s"]:
                tokens_left = row["tokens"] / row["step"] * (row["n_steps"] - row["step"])
                words += f"  {duration(tokens_left / row['tokens_per_s'])} left"
            self.progress.update(
                self.tasks[planned.run_id], completed=row["step"], total=row["n_steps"], words=words
            )


def _shorten(run_id: str) -> str:
    """A run's id without its hash: variant, model, text and seed say which it is."""
    return run_id.rpartition("-")[0] or run_id


def render_tuning(choices: Sequence[Choice]) -> Table:
    """What tuning tried for each arm: mean validation loss at each setting, the chosen one marked."""
    common = set.intersection(*(set(choice.arm.split()) for choice in choices)) if len(choices) > 1 else set()
    settings = list(dict.fromkeys(_spell(point.values) for choice in choices for point in choice.curve))
    rows = []
    for choice in choices:
        found = {_spell(point.values): point for point in choice.curve}
        cells = []
        for setting in settings:
            point = found.get(setting)
            mark = "*" if point and point.values == choice.chosen else ""
            cells.append(fixed(point.mean_loss_nats if point else None) + mark)
        edge = ", ".join(f"best at the {side} end: --widen" for side in choice.edges.values())
        name = " ".join(word for word in choice.arm.split() if word not in common)
        rows.append((name or "all", *cells, edge))
    return render_rows("validation loss by tuning", ("arm", *settings, ""), rows)


def _spell(values: Mapping[str, str]) -> str:
    return " ".join(f"{key.rpartition('.')[2]}={value}" for key, value in values.items())
