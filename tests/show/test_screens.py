"""A run or a sweep as it goes, on a terminal and elsewhere."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from glu_bench.show.progress import TrainScreen
from glu_bench.show.sweep import SweepScreen
from glu_bench.study.plan import Plan, PlannedRun
from glu_bench.study.sweep import RunEnded, RunStarted, Tick
from glu_bench.train.run import train_run
from glu_bench.train.stop import StopRequest
from tests.conftest import TinyConfig


def console_of(terminal: bool) -> tuple[Console, io.StringIO]:
    file = io.StringIO()
    return Console(file=file, force_terminal=terminal, width=150, highlight=False), file


def test_without_a_terminal_each_evaluation_is_a_line(tiny_config: TinyConfig, tmp_path: Path) -> None:
    console, file = console_of(terminal=False)
    with TrainScreen(console, quiet=False) as screen:
        for event in train_run(tiny_config(), tmp_path, StopRequest()):
            screen.show(event)
    lines = file.getvalue().splitlines()
    assert lines[0].startswith("swiglu-pico-text-s0-")
    assert "80.2k parameters, F=128 (+0.00% of the baseline's FFN), 6 steps, cpu fp32" in lines[0]
    assert any(line.startswith("step 3/6  loss ") for line in lines)
    assert any(line.startswith("step 6/6  loss ") for line in lines)
    assert "\x1b" not in file.getvalue()


def test_on_a_terminal_there_is_a_bar_and_it_is_gone_at_the_end(
    tiny_config: TinyConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    console, file = console_of(terminal=True)
    with TrainScreen(console, quiet=False) as screen:
        assert screen.live
        for event in train_run(tiny_config(), tmp_path, StopRequest(), on_prepare=screen.prepare):
            screen.show(event)
            screen.progress.refresh()
    assert "6/6" in file.getvalue()
    assert "evaluating test" in file.getvalue()


def test_quiet_says_nothing(tiny_config: TinyConfig, tmp_path: Path) -> None:
    console, file = console_of(terminal=True)
    with TrainScreen(console, quiet=True) as screen:
        for event in train_run(tiny_config(), tmp_path, StopRequest()):
            screen.show(event)
    assert file.getvalue() == ""


def hostile_plan(tmp_path: Path) -> Plan:
    return Plan("[/x]", tmp_path / "sweeps" / "x", [PlannedRun("[/x]\x1b[31m", ()), PlannedRun("b", ())])


@pytest.mark.parametrize("terminal", [False, True])
def test_a_sweep_shows_hostile_names_and_reasons_as_text(
    terminal: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    console, file = console_of(terminal)
    plan = hostile_plan(tmp_path)
    one = plan.runs[0]
    with SweepScreen(console, plan, quiet=False) as screen:
        for event in (
            RunStarted(one),
            Tick([one]),
            RunEnded(one, "failed", "[/y]\x1b[31m odd", tmp_path / "log"),
        ):
            screen.show(event)
            screen.progress.refresh()
    assert "[1/2] [/x]" in file.getvalue()
    assert "[/y]" in file.getvalue()
    assert "\x1b[31m" not in file.getvalue()


def test_a_quiet_sweep_says_nothing(tmp_path: Path) -> None:
    console, file = console_of(terminal=True)
    plan = hostile_plan(tmp_path)
    with SweepScreen(console, plan, quiet=True) as screen:
        screen.show(RunEnded(plan.runs[0], "failed", "odd", None))
    assert file.getvalue() == ""
