"""The loss curve of the live screen: where it is shown and where it is not."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from glu_bench.errors import InterruptedRunError
from glu_bench.show.loss_curve import LossCurve
from glu_bench.show.progress import TrainScreen
from glu_bench.train.run import train_run
from glu_bench.train.stop import StopRequest
from tests.conftest import StopAt, TinyConfig


def console_of(width: int = 80, height: int = 30, terminal: bool = True) -> Console:
    return Console(file=io.StringIO(), force_terminal=terminal, width=width, height=height)


def curve_of(n_rows: int, n_steps: int = 100) -> LossCurve:
    curve = LossCurve(n_steps)
    for step in range(1, n_rows + 1):
        curve.add(step, 5.5 / step)
    return curve


def test_what_is_to_come_stays_blank() -> None:
    lines = [line.plain.rstrip() for line in curve_of(50).render(console_of())]
    longest = max(len(line) for line in lines)
    assert longest <= 7 + (72 - 7) // 2 + 1  # half of the steps, half of the width beside the labels
    assert lines[0].lstrip()[:3] == f"{5.5 / 3:.3f}"[:3]  # the first twentieth is left out


@pytest.mark.parametrize("width", [1, 2, 20, 21, 100])
def test_it_is_as_wide_as_the_terminal_allows(width: int) -> None:
    lines = curve_of(300, 300).render(console_of(width))
    assert {len(line.plain) for line in lines} == ({min(72, width - 1)} if width > 1 else set())


def test_one_loss_or_a_low_screen_shows_none() -> None:
    assert curve_of(1).render(console_of()) == []
    assert curve_of(50).render(console_of(height=8)) == []


def test_a_long_run_is_thinned() -> None:
    assert len(curve_of(100_000, 100_000).render(console_of())) == 5


def shown_by(config: object, console: Console, output_dir: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("TERM", "xterm")
    with TrainScreen(console, quiet=False) as screen:
        for event in train_run(config, output_dir, StopRequest()):  # type: ignore[arg-type]
            screen.show(event)
            screen.progress.refresh()
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def has_braille(text: str) -> bool:
    return any(0x2800 < ord(character) <= 0x28FF for character in text)


@pytest.mark.parametrize("width", [20, 100])
def test_on_a_terminal_there_is_a_curve(
    tiny_config: TinyConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    assert has_braille(shown_by(tiny_config(), console_of(width), tmp_path, monkeypatch))


@pytest.mark.parametrize("why", ["NO_COLOR", "CI", "piped"])
def test_elsewhere_there_is_none(
    tiny_config: TinyConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, why: str
) -> None:
    if why != "piped":
        monkeypatch.setenv(why, "1")
    shown = shown_by(tiny_config(), console_of(terminal=why != "piped"), tmp_path, monkeypatch)
    assert "step 6/6" in shown
    assert not has_braille(shown)
    assert "\x1b[2K" not in shown  # nothing is drawn over


def test_a_resumed_run_shows_what_was_before(
    tiny_config: TinyConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    with pytest.raises(InterruptedRunError):
        list(train_run(tiny_config(), tmp_path, StopAt(4)))
    with TrainScreen(console_of(), quiet=False) as screen:
        for event in train_run(tiny_config(), tmp_path, StopRequest()):
            screen.show(event)
        assert screen.progress.curve is not None
        assert screen.progress.curve.steps == [1, 2, 3, 4, 5, 6]
