"""A run as it goes: a live bar on a terminal, now and then a line elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterable
from types import TracebackType
from typing import Any

from rich.console import Console, RenderableType
from rich.progress import BarColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

from glu_bench.show.console import is_live, plain
from glu_bench.show.loss_curve import LossCurve
from glu_bench.show.numbers import duration, fixed, si
from glu_bench.train.events import Evaluating, Event, Logged, Started

LINE_EVERY_S = 15.0  # between lines that no evaluation calls for


class CurveProgress(Bars):
    """A bar with the loss curve below it."""

    curve: LossCurve | None = None

    def get_renderables(self) -> Iterable[RenderableType]:
        """What rich draws at each refresh."""
        yield from super().get_renderables()
        if self.curve is not None:
            yield from self.curve.render(self.console)


class TrainScreen:
    """Shows the events of one run on a console; nothing if quiet."""

    def __init__(self, console: Console, quiet: bool) -> None:
        self.console = console
        self.quiet = quiet
        self.live = is_live(console) and not quiet
        self.val_text = "-"
        self.last_line_at = 0.0
        self.prepare_began = 0.0
        self.progress = CurveProgress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            TextColumn("{task.completed}/{task.total}"),
            TextColumn("{task.fields[words]}", markup=False),
            TimeRemainingColumn(compact=True),
            console=console,
            transient=True,
            disable=not self.live,
        )
        self.task: TaskID | None = None

    def __enter__(self) -> TrainScreen:
        self.progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.progress.stop()

    def prepare(self, n_done: int, n_bytes: int | None) -> None:
        """Text is being tokenised."""
        if not self.live:
            return
        if self.task is None:
            self.prepare_began = time.monotonic()
            self.task = self.progress.add_task("tokenising", total=n_bytes, words="")
        speed = n_done / 1e6 / max(time.monotonic() - self.prepare_began, 1e-3)
        self.progress.update(self.task, completed=n_done, words=f"bytes  {speed:.0f} MB/s")

    def show(self, event: Event) -> None:
        """One event of `train_run`."""
        if self.quiet:
            return
        if isinstance(event, Started):
            self._start(event)
        elif isinstance(event, Logged):
            self._log(event)
        elif isinstance(event, Evaluating):
            self._describe(f"evaluating {event.split}")

    def _start(self, event: Started) -> None:
        for remark in event.remarks:
            self.console.print(plain(f"note: {remark}"))
        receipt, train = event.receipt, event.config.train
        self.console.print(
            plain(
                f"{event.run.run_id}: {si(event.counts.n_params)} parameters, F={receipt.d_ff} "
                f"({receipt.residual:+.2%} of the baseline's FFN), {event.n_steps} steps, "
                f"{train.device} {train.precision}" + (" compiled" if train.compile == "true" else "")
            )
        )
        if event.resumed_step:
            self.console.print(plain(f"going on after step {event.resumed_step}"))
        if self.live:
            if self.task is not None:
                self.progress.remove_task(self.task)
            self.progress.curve = LossCurve(event.n_steps)
            for row in event.run.rows() if event.resumed_step else ():
                self.progress.curve.add(row["step"], row["loss_nats"])
            name = event.config.variant.name
            self.task = self.progress.add_task(
                name, total=event.n_steps, completed=event.resumed_step, words="first step: compiling"
            )

    def _log(self, event: Logged) -> None:
        row = event.row
        if "val_loss_nats" in row:
            self.val_text = fixed(row["val_loss_nats"])
        speed = si(row["tokens_per_s"])
        words = f"loss {row['loss_nats']:.4f}  val {self.val_text}  {speed} tok/s"
        if self.live and self.task is not None:
            if self.progress.curve is not None:
                self.progress.curve.add(row["step"], row["loss_nats"])
            self.progress.update(self.task, completed=row["step"], words=words)
        elif "val_loss_nats" in row or time.monotonic() - self.last_line_at > LINE_EVERY_S:
            self.last_line_at = time.monotonic()
            self.console.print(plain(f"step {row['step']}/{row['n_steps']}  {words}  {_say_left(row)}"))

    def _describe(self, words: str) -> None:
        if self.live and self.task is not None:
            self.progress.update(self.task, words=words)


def _say_left(row: dict[str, Any]) -> str:
    """Time left; unknown until the first steps, which compile, are over."""
    if row["tokens_per_s"] is None:
        return "the first steps compile"
    n_tokens_left = (row["n_steps"] - row["step"]) * row["tokens"] / row["step"]
    return f"{duration(n_tokens_left / row['tokens_per_s'])} left"
