"""What --help says of every command and group, on a terminal of 80 columns."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
import typer

from glu_bench import errors
from glu_bench.cli.main import app
from glu_bench.runs.folder import STATUSES
from tests.conftest import Command


def walk(command: Any, words: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], bool]]:
    """The words of each command below, and whether it is a group."""
    below = getattr(command, "commands", {})
    yield words, bool(below)
    for name, inner in below.items():
        yield from walk(inner, (*words, name))


FOUND = list(walk(typer.main.get_command(app)))
COMMANDS = [words for words, is_group in FOUND if not is_group]
GROUPS = [words for words, is_group in FOUND if is_group]


@pytest.fixture(autouse=True)
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")


def read_help(call_command: Command, words: tuple[str, ...]) -> str:
    ended = call_command(*words, "--help")
    assert (ended.code, ended.err) == (0, "")
    return str(ended.out)


def test_all_are_found() -> None:
    assert {(), ("runs",), ("data",), ("bench",)} == set(GROUPS)
    assert {("eval",), ("runs", "import"), ("bench", "step"), ("doctor",)} <= set(COMMANDS)


@pytest.mark.parametrize("words", [*COMMANDS, *GROUPS], ids=" ".join)
def test_examples_are_there_and_stand_alone(words: tuple[str, ...], call_command: Command) -> None:
    lines = read_help(call_command, words).splitlines()
    at = [number for number, line in enumerate(lines) if "Example:" in line]
    assert any(lines[number].startswith(f"  Example: glu-bench {' '.join(words)}") for number in at)
    for number in at:
        assert lines[number].startswith("  Example: glu-bench ")
        assert lines[number].count("Example:") == 1
        assert lines[number - 1] == ""


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_every_command_can_be_quiet_and_write_json(words: tuple[str, ...], call_command: Command) -> None:
    out = read_help(call_command, words)
    assert "--json" in out
    assert "--quiet" in out


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_arguments_are_in_capitals_and_repeated_once(words: tuple[str, ...], call_command: Command) -> None:
    usage = read_help(call_command, words).partition("\n\n")[0].partition("[OPTIONS]")[2]
    assert usage == usage.upper()
    assert "..]" not in usage
    assert "..}" not in usage


@pytest.mark.parametrize("words", GROUPS, ids=" ".join)
def test_no_summary_of_a_command_is_cut(words: tuple[str, ...], call_command: Command) -> None:
    listed = read_help(call_command, words).partition("Commands:\n")[2].partition("\n\n")[0]
    assert len(listed.splitlines()) == sum(found[:-1] == words for found, _ in FOUND if found)
    assert all(re.fullmatch(r"  \w+ +\S.*[^.]\.", line) for line in listed.splitlines()), listed


def test_the_exit_codes_are_those_of_the_errors(call_command: Command) -> None:
    (said,) = re.findall(r"Exit codes: .*", " ".join(read_help(call_command, ()).split()))
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, Exception)]
    codes = {vars(kind)["exit_code"] for kind in kinds if "exit_code" in vars(kind)}
    assert {int(code) for code in re.findall(r"\d+", said)} == codes | {0, 129, 130, 143}


@pytest.mark.parametrize("words", [("status",), ("runs", "list")], ids=" ".join)
def test_what_a_run_can_be_is_said(words: tuple[str, ...], call_command: Command) -> None:
    out = " ".join(read_help(call_command, words).split())
    assert f"A run is {', '.join(STATUSES[:-1])} or {STATUSES[-1]}" in out
