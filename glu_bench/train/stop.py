"""Being asked to stop: the first signal lets the current step end and a checkpoint be written."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
from collections.abc import Iterator
from types import FrameType

from glu_bench.errors import InterruptedRunError

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# what a launcher sends its ranks, and what it means; a signal of their own, as it is never a second one
ORDERS = {signal.SIGUSR1: signal.SIGTERM, signal.SIGUSR2: signal.SIGINT}


class StopRequest:
    """Which signal arrived, if any.

    While `nothing_to_save` the signal ends the process at once by an exception; otherwise the
    loop asks `number` after each step. A second signal ends the process in any case.
    """

    def __init__(self) -> None:
        self.number: int | None = None
        self.nothing_to_save = True
        self._ordered = False  # by the launcher; the signal that it repeats may arrive after it

    def receive(self, number: int, frame: FrameType | None) -> None:
        """The handler itself."""
        if self.number is not None:
            if not self._ordered:
                os._exit(128 + number)
            self._ordered = False
            return
        self.number = number
        if self.nothing_to_save:
            raise _make_error(number)

    def obey(self, number: int, frame: FrameType | None) -> None:
        """The handler for the launcher of several ranks, which may repeat what a person told them."""
        if self.number is None:
            self.receive(ORDERS[signal.Signals(number)], frame)
            self._ordered = True


@contextlib.contextmanager
def explain_stop(request: StopRequest) -> Iterator[None]:
    """What breaks by a signal's exception is the stop, whatever a library made of it: torch's compiler, say.

    Raises: InterruptedRunError.
    """
    try:
        yield
    except InterruptedRunError:
        raise
    except Exception:
        if request.number is None or not request.nothing_to_save:
            raise
        raise _make_error(request.number) from None


def _make_error(number: int) -> InterruptedRunError:
    name = signal.Signals(number).name
    return InterruptedRunError(f"stopped by {name}; the same command goes on", number)


@contextlib.contextmanager
def catch_signals(launched: bool = False) -> Iterator[StopRequest]:
    """Handle SIGINT, SIGTERM and SIGHUP by a StopRequest while inside, and a launcher's orders."""
    request = StopRequest()
    heard = [number for number in SIGNALS if not _is_for_others(number)]
    before = {number: signal.signal(number, request.receive) for number in heard}
    if launched:
        before |= {number: signal.signal(number, request.obey) for number in ORDERS}
    try:
        with explain_stop(request):
            yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _is_for_others(number: signal.Signals) -> bool:
    """Whether who started this process keeps a signal from it: `nohup glu-bench …` outlives its terminal."""
    return number == signal.SIGHUP and signal.getsignal(number) == signal.SIG_IGN


def end_with_parent() -> None:
    """Have this process told to stop, which saves first, when its parent is gone; for Linux."""
    pr_set_pdeathsig = 1  # linux/prctl.h
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGTERM)
