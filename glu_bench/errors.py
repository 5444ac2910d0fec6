"""Mistakes a person can fix: one line each, with the exit code a script can rely on.

Every failure that is not a bug of ours is one of these classes. The command line prints
the message alone, without a traceback, and exits with `exit_code`.
"""

from __future__ import annotations

import difflib
import errno
from collections.abc import Iterable

DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class GluBenchError(Exception):
    """A failure with a message for a person; the base of all below. Never raised itself."""

    exit_code = 1


class ConfigError(GluBenchError):
    """Usage or configuration: a key, a value, a name that does not work."""

    exit_code = 2


class DataError(GluBenchError):
    """Text, tokens or a run folder that cannot be used as it is."""

    exit_code = 3


class DivergedError(GluBenchError):
    """Loss, gradient or weights became NaN or infinite, or the gradient zero; nothing of that is kept."""

    exit_code = 4


class SweepIncompleteError(GluBenchError):
    """Some runs of a sweep did not finish."""

    exit_code = 5


class ResourceError(GluBenchError):
    """Out of memory or out of disk."""

    exit_code = 6


class DeviceError(GluBenchError):
    """A device, or a process of a distributed run, that is not there."""

    exit_code = 7


class LostRankError(DeviceError):
    """Another process of a distributed run ended or does not answer; its own error is the cause."""


class BusyError(GluBenchError):
    """Another process holds the run folder."""

    exit_code = 75


class RankFailedError(GluBenchError):
    """A process of a distributed run ended badly; the exit code is that of its own error."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class InterruptedRunError(GluBenchError):
    """Stopped by a signal after saving; the same command goes on.

    The exit code is 128 plus the number of the signal: 130 for SIGINT, 143 for SIGTERM.
    """

    def __init__(self, message: str, signal_number: int) -> None:
        super().__init__(message)
        self.exit_code = 128 + signal_number


def explain_memory(error: BaseException) -> ResourceError | None:
    """The error that a shortage of memory is, in one line; None for any other error."""
    words = ("out of memory", "can't allocate memory", "cannot allocate memory")
    short = isinstance(error, MemoryError) or any(word in str(error).lower() for word in words)
    if not short or isinstance(error, GluBenchError):  # the latter has its line, be it a file's odd name
        return None
    line = str(error).splitlines()[0] if str(error) else "MemoryError"
    hint = "a smaller model.d_model or train.batch_size, or more train.grad_accum, needs less"
    return ResourceError(f"out of memory: {line}; {hint}")


def explain_end(error: BaseException) -> tuple[int, str | None]:
    """The exit code of a process that ends by an error, and the line that says so.

    No line where nobody reads on, and for 1, a bug of ours: its traceback says more.
    """
    if isinstance(error, GluBenchError):
        return error.exit_code, str(error)
    if isinstance(error, KeyboardInterrupt):
        return 130, "interrupted"
    if isinstance(error, BrokenPipeError):  # `glu-bench … | head`
        return 0, None
    if isinstance(error, OSError) and error.errno in DISK_FULL:
        return ResourceError.exit_code, f"{error.filename or 'a file'}: {error.strerror}"
    if isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG:  # any of a command's paths
        return ConfigError.exit_code, f"{error.filename}: not a usable name ({error.strerror})"
    shortage = explain_memory(error)
    if shortage is not None:
        return shortage.exit_code, str(shortage)
    return 1, None


def show_controls(text: str) -> str:
    """The text on one line with control characters and direction marks made visible."""
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)


def suggest(word: str, known: Iterable[str]) -> str:
    """The end of a message: `; did you mean 'swiglu'?`, or nothing if no known word is near."""
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f"; did you mean '{near[0]}'?" if near else ""
