"""glu-bench variants NAME: the drawing and the figure."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Command = Callable[..., Any]


def test_a_variant_is_drawn(call_command: Command) -> None:
    ended = call_command("variants", "swiglu")
    assert ended.code == 0
    assert "gate function, -4 to 4" in ended.out
    assert "-0.278" in ended.out  # the least value of SiLU
    assert any(0x2800 < ord(c) <= 0x28FF for c in ended.out)


def test_without_utf8_it_is_drawn_in_ascii(run_command: Command) -> None:
    ended = run_command("variants", "gelu", env=[("PYTHONIOENCODING", "ascii"), ("COLUMNS", "20")])
    assert ended.code == 0
    assert "***" in ended.out
    assert ended.out.isascii()


def test_numbers_come_with_json(call_command: Command) -> None:
    value = json.loads(call_command("variants", "relu", "--json").out)
    assert value["curve"]["of"] == "activation"
    assert set(value["curve"]["slopes"]) == {0.0, 1.0}


@pytest.mark.parametrize(("ending", "head"), [("svg", b"<?xml"), ("png", b"\x89PNG"), ("pdf", b"%PDF")])
def test_a_figure_by_its_ending(call_command: Command, tmp_path: Path, ending: str, head: bytes) -> None:
    pytest.importorskip("matplotlib")
    path = tmp_path / "new" / f"swiglu.{ending}"
    assert call_command("variants", "swiglu", "--figure", str(path)).code == 0
    assert path.read_bytes().startswith(head)
    if ending == "svg":
        before = path.read_bytes()
        call_command("variants", "swiglu", "--figure", str(path))
        assert path.read_bytes() == before


@pytest.mark.parametrize("words", [("swiglu", "--figure", "a.gif"), ("--figure", "a.svg")])
def test_a_figure_that_cannot_be_is_one_line(call_command: Command, words: tuple[str, ...]) -> None:
    ended = call_command("variants", *words)
    assert ended.code == 2
    assert len(ended.err.splitlines()) == 1


def test_without_matplotlib_the_extra_is_named(
    call_command: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    ended = call_command("variants", "swiglu", "--figure", str(tmp_path / "a.svg"))
    assert ended.code == 2
    assert ended.err == "glu-bench: --figure needs matplotlib: pip install 'glu-bench[figures]'\n"
