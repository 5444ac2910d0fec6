"""Trackers listen to a run's events; metrics.jsonl stays the truth.

A tracker is a service of somebody else: what fails there is said once and the run goes on
without it. It is told settings and numbers, never environment variables or command lines.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

from glu_bench import schema
from glu_bench.errors import ConfigError, InterruptedRunError
from glu_bench.train.events import Event, Finished, Logged, Started


class Tracker(Protocol):
    """What a tracker must offer; each may raise anything."""

    def start(self, event: Started) -> None:
        """The run is about to train, or to go on after event.resumed_step."""

    def log(self, row: dict[str, Any]) -> None:
        """A row of metrics.jsonl."""

    def finish(self, record: dict[str, Any]) -> None:
        """The final record."""

    def close(self) -> None:
        """The run is over, finished or not; called once if `start` was."""


class Tracking:
    """Passes events on to a tracker until it fails, then says so once and forgets it."""

    def __init__(self, name: str, tracker: Tracker | None, warn: Callable[[str], None]) -> None:
        self.name = name
        self.tracker = tracker
        self.warn = warn
        self.started = False

    def __enter__(self) -> Tracking:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.tracker is not None and self.started:
            self._try(self.tracker.close)

    def hear(self, event: Event) -> None:
        """One event of `train_run`."""
        tracker = self.tracker
        if tracker is None:
            return
        if isinstance(event, Started):
            self.started = True
            self._try(lambda: tracker.start(event))
        elif self.started and isinstance(event, Logged):
            self._try(lambda: tracker.log(event.row))
        elif self.started and isinstance(event, Finished):
            self._try(lambda: tracker.finish(event.record))

    def _try(self, call: Callable[[], None]) -> None:
        try:
            call()
        except InterruptedRunError:  # a signal that arrived meanwhile is not the tracker's failure
            raise
        except (Exception, SystemExit) as error:
            self.tracker = None
            lines = str(error).splitlines()
            reason = f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
            self.warn(f"tracker={self.name} failed, the run goes on without it ({reason})")


def make_tracker(tracker: schema.Tracker, output_dir: Path) -> Tracker | None:
    """The tracker that the configuration names; it has not begun. None for none.

    Raises: ConfigError if its package is not installed.
    """
    if tracker.name == "none":
        return None
    if importlib.util.find_spec(tracker.name) is None:
        raise ConfigError(f"tracker={tracker.name}: not installed; pip install '.[{tracker.name}]'")
    if tracker.name == "tensorboard":
        from glu_bench.interop.tensorboard_tracker import TensorBoardTracker

        return TensorBoardTracker(output_dir / "tensorboard")
    from glu_bench.interop.wandb_tracker import WandbTracker

    return WandbTracker(output_dir)
