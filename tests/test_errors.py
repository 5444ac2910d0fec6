"""Exit codes and suggestions."""

from __future__ import annotations

import errno
import os
import signal

import pytest

from glu_bench import errors
from glu_bench.errors import DataError, InterruptedRunError, explain_end, explain_memory, suggest


@pytest.mark.parametrize(
    ("name", "exit_code"),
    [
        ("ConfigError", 2),
        ("DataError", 3),
        ("DivergedError", 4),
        ("SweepIncompleteError", 5),
        ("ResourceError", 6),
        ("DeviceError", 7),
        ("BusyError", 75),
    ],
)
def test_each_mistake_has_the_exit_code_that_scripts_rely_on(name: str, exit_code: int) -> None:
    assert getattr(errors, name).exit_code == exit_code


@pytest.mark.parametrize(("number", "exit_code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_run_exits_as_a_shell_reports_the_signal(number: int, exit_code: int) -> None:
    assert InterruptedRunError("stopped", number).exit_code == exit_code


@pytest.mark.parametrize(
    ("error", "exit_code", "line"),
    [
        (DataError("x: torn"), 3, "x: torn"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (BrokenPipeError(errno.EPIPE, "Broken pipe"), 0, None),
        (OSError(errno.ENOSPC, "No space left on device", "/x/y"), 6, "/x/y: No space left on device"),
        (OSError(errno.EACCES, "Permission denied", "/x/y"), 1, None),
        (RuntimeError("shapes differ"), 1, None),
    ],
)
def test_every_end_has_its_exit_code(error: BaseException, exit_code: int, line: str | None) -> None:
    assert explain_end(error) == (exit_code, line)


def test_memory_that_runs_out_is_no_bug() -> None:
    exit_code, line = explain_end(MemoryError())
    assert exit_code == 6
    assert line is not None
    assert line.startswith("out of memory")


def test_suggest_names_the_nearest_word_and_says_nothing_of_far_ones() -> None:
    assert suggest("swigloo", ["relu", "swiglu"]) == "; did you mean 'swiglu'?"
    assert suggest("quux", ["relu", "swiglu"]) == ""


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 268 bytes"),
        RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        OSError(errno.ENOMEM, os.strerror(errno.ENOMEM)),
    ],
)
def test_a_shortage_of_memory_is_known_by_its_words(error: Exception) -> None:
    found = explain_memory(error)
    assert found is not None
    assert found.exit_code == 6
    assert str(found).startswith("out of memory: ")


@pytest.mark.parametrize("error", [RuntimeError("shape"), errors.DataError("out of memory.txt: not there")])
def test_another_error_is_no_shortage_of_memory(error: Exception) -> None:
    assert explain_memory(error) is None
