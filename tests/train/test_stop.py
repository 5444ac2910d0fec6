"""Being asked to stop."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import pytest

from glu_bench.errors import InterruptedRunError
from glu_bench.runs.folder import Run
from glu_bench.train import loop
from glu_bench.train.run import train_run
from glu_bench.train.stop import SIGNALS, StopRequest, catch_signals
from tests.conftest import TinyConfig


@pytest.fixture(autouse=True)
def _terminal() -> Iterator[None]:
    """As under a terminal, though the tests may be under nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


def test_what_nohup_ignores_stays_ignored() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with catch_signals() as stop:
        signal.raise_signal(signal.SIGHUP)
        assert stop.number is None


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_while_there_is_nothing_to_save_ends_at_once(number: int) -> None:
    with catch_signals(), pytest.raises(InterruptedRunError) as caught:
        signal.raise_signal(number)
    assert caught.value.exit_code == 128 + number


def break_by(number: int) -> NoReturn:
    """As torch's compiler does: an exception of its own for whatever was raised in it."""
    try:
        signal.raise_signal(number)
    except InterruptedRunError as error:
        raise RuntimeError(f"backend raised {error}") from None
    raise AssertionError("the signal raised nothing")


@pytest.mark.parametrize("number", SIGNALS)
def test_a_stop_that_a_library_took_for_its_own_failure_is_a_stop(number: int) -> None:
    with pytest.raises(InterruptedRunError) as caught, catch_signals():
        break_by(number)
    assert caught.value.exit_code == 128 + number


@pytest.mark.parametrize("asked", [False, True])
def test_what_breaks_by_itself_is_no_stop(asked: bool) -> None:
    def fail(stop: StopRequest) -> None:
        if asked:
            stop.nothing_to_save = False
            signal.raise_signal(signal.SIGTERM)  # waits for the end of the step, which does not come
        raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"), catch_signals() as stop:
        fail(stop)


def test_a_run_stopped_inside_the_compiler_has_not_failed(
    tiny_config: TinyConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "make_decoder", lambda *rest: break_by(signal.SIGTERM))
    with pytest.raises(InterruptedRunError), catch_signals() as stop:
        list(train_run(tiny_config(), tmp_path, stop))
    (run,) = (tmp_path / "runs").iterdir()
    assert not (run / "failure.json").exists()
    assert Run(run).status() == "interrupted"


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_during_a_step_waits_for_its_end(number: int) -> None:
    with catch_signals() as stop:
        stop.nothing_to_save = False
        signal.raise_signal(number)
        assert stop.number == number


def test_a_second_signal_ends_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    left: list[int] = []
    monkeypatch.setattr(os, "_exit", left.append)
    stop = StopRequest()
    stop.nothing_to_save = False
    stop.receive(signal.SIGINT, None)
    assert left == []
    stop.receive(signal.SIGINT, None)
    assert left == [130]


def test_the_handlers_before_come_back() -> None:
    before = [signal.getsignal(number) for number in SIGNALS]
    with catch_signals():
        assert [signal.getsignal(number) for number in SIGNALS] != before
    assert [signal.getsignal(number) for number in SIGNALS] == before


def test_an_order_of_the_launcher_is_no_second_signal(monkeypatch: pytest.MonkeyPatch) -> None:
    left: list[int] = []
    monkeypatch.setattr("os._exit", left.append)
    with catch_signals(launched=True) as stop:
        stop.nothing_to_save = False
        for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2):
            signal.raise_signal(number)
        assert (stop.number, left) == (signal.SIGTERM, [])
    with catch_signals(launched=True) as stop:
        stop.nothing_to_save = False
        signal.raise_signal(signal.SIGUSR2)
        assert stop.number == signal.SIGINT


def test_the_signal_that_a_launcher_repeats_may_come_after_it(monkeypatch: pytest.MonkeyPatch) -> None:
    left: list[int] = []
    monkeypatch.setattr("os._exit", left.append)
    with catch_signals(launched=True) as stop:
        stop.nothing_to_save = False
        for number in (signal.SIGUSR1, signal.SIGTERM):
            signal.raise_signal(number)
        assert (stop.number, left) == (signal.SIGTERM, [])
        signal.raise_signal(signal.SIGTERM)
        assert left == [143]
