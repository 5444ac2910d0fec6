"""Being asked to stop: the first signal lets the current step end and a checkpoint be written."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from types import FrameType

from glu_bench.errors import InterruptedRunError

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class StopRequest:
    """Which signal arrived, if any.

    While `nothing_to_save` the signal ends the process at once by an exception; otherwise the
    loop asks `number` after each step. A second signal ends the process in any case.
    """

    def __init__(self) -> None:
        self.number: int | None = None
        self.nothing_to_save = True

    def receive(self, number: int, frame: FrameType | None) -> None:
        """The handler itself."""
        if self.number is not None:
            os._exit(128 + number)
        self.number = number
        if self.nothing_to_save:
            raise InterruptedRunError(f"stopped by {signal.Signals(number).name}", number)


@contextlib.contextmanager
def catch_signals() -> Iterator[StopRequest]:
    """Handle SIGINT, SIGTERM and SIGHUP by a StopRequest while inside."""
    request = StopRequest()
    before = {number: signal.signal(number, request.receive) for number in SIGNALS}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
