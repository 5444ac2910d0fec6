"""Where words go, and that text from outside stays text."""

from __future__ import annotations

import io
import json
import math
import os
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from glu_bench.show.console import is_live, make_stderr, make_stdout, plain, print_json

HOSTILE = ["[/x]", "[bold]x", "[link=http://x]y[/link]", "\x1b[31mred", "a\u202eb", "\x9b31m", "a\rb", "\a"]


def shown(text: object) -> str:
    console = Console(file=io.StringIO(), force_terminal=True, width=200, color_system="truecolor")
    console.print(text)
    file = console.file
    assert isinstance(file, io.StringIO)
    return file.getvalue()


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_is_shown_as_text(text: str) -> None:
    out = shown(plain(text))
    assert not set(out) & {"\x1b", "\u202e", "\x9b", "\r", "\a"}
    assert out.strip() == "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)


@given(st.text(max_size=40))
def test_nothing_unprintable_gets_through(text: str) -> None:
    assert plain(text).plain.isprintable()


def test_printable_text_stays_as_it_is() -> None:
    assert plain("Grüße 🙂 [x]").plain == "Grüße 🙂 [x]"


def test_json_is_one_line_with_the_version_first(capsys: pytest.CaptureFixture[str]) -> None:
    print_json({"run_id": "ü", "x": None})
    out = capsys.readouterr().out
    assert out.count("\n") == 1
    assert list(json.loads(out)) == ["schema_version", "run_id", "x"]
    assert json.loads(out)["schema_version"] == 1


def test_json_with_nan_is_never_printed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match="JSON"):
        print_json({"x": math.nan})
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("columns", ["20", "0", "x", "100000"])
def test_piped_tables_are_not_cut_to_a_narrow_terminal(columns: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    assert make_stdout().width >= 200


def test_progress_and_results_go_to_different_streams(capsys: pytest.CaptureFixture[str]) -> None:
    make_stdout().print("result")
    make_stderr().print("progress")
    assert capsys.readouterr() == ("result\n", "progress\n")


def test_a_remark_that_nobody_reads_is_lost_and_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    reading, writing = os.pipe()
    with os.fdopen(writing, "w") as stream:
        os.close(reading)
        monkeypatch.setattr(sys, "stderr", stream)
        for _ in range(2):
            make_stderr().print("progress")
        stream.write("more")  # goes nowhere now, also when it is closed


@pytest.mark.parametrize(("name", "value"), [("NO_COLOR", "1"), ("CI", "true"), ("TERM", "dumb")])
def test_a_moving_screen_is_for_willing_terminals_alone(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    terminal = Console(file=io.StringIO(), force_terminal=True)
    assert is_live(terminal)
    assert not is_live(Console(file=io.StringIO()))
    monkeypatch.setenv(name, value)
    assert not is_live(terminal)
