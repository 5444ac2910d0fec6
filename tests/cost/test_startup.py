"""The start-up benchmark: least of the rounds, each beside its peer; every command works."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from glu_bench.cost import startup
from glu_bench.cost.process import Spent
from glu_bench.cost.startup import BARE, COMMANDS, PEERS, TORCH, bench_startup
from tests.conftest import Command

N_STEP_S = {"empty": 25.0, "filled": 3.0}


class Clock:
    """Times a command by its words instead of running it, and remembers what it was given."""

    def __init__(self) -> None:
        self.n_calls: dict[str, int] = {}
        self.changes: list[Mapping[str, str]] = []

    def __call__(self, command: Sequence[str], changes: Mapping[str, str] | None = None) -> Spent:
        name = " ".join(word for word in command[1:] if "/" not in word)
        self.n_calls[name] = n = self.n_calls.get(name, 0) + 1
        self.changes.append(changes or {})
        seconds = {"-c pass": 0.25, "-c import torch": 2.0}.get(name, 1.0)
        if "train.steps=1" in command:
            state = "empty" if n == 1 else "filled"
            outputs = Path(command[command.index("--output-dir") + 1])
            (outputs / "runs" / "pico").mkdir(parents=True)
            (outputs / "runs" / "pico" / "result.json").write_text(json.dumps({"elapsed_s": N_STEP_S[state]}))
            seconds = N_STEP_S[state] + 8
        # the second turn of each is the quickest
        return Spent(elapsed_s=seconds + (n - 2) ** 2, busy_s=seconds / 2 + (n - 2) ** 2, peak_bytes=1)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(startup, "time_command", made)
    return made


def test_the_least_of_the_rounds_stands_beside_its_peer(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(startup, "find_missing_compiler", lambda device: None)
    rows = {row.name: row for row in bench_startup(rounds=3)}
    assert len(rows) == 2 * (len(PEERS) + len(COMMANDS)) + 4
    assert (rows[BARE].ours, rows[BARE].peer, rows[TORCH].ours) == (0.25, None, 2.0)
    found = rows["glu-bench compare"]
    assert (found.ours, found.peer, found.ratio, found.unit) == (1.0, 0.25, 4.0, "s")
    assert (rows["glu-bench doctor"].peer, rows["glu-bench doctor"].ratio) == (2.0, 0.5)
    busy = rows["glu-bench compare, processor time"]
    assert (busy.ours, busy.peer, busy.ratio) == (0.5, 0.125, 4.0)


def test_the_first_compiled_step_is_made_twice_with_one_cache(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(startup, "find_missing_compiler", lambda device: None)
    rows = {row.name: row.ours for row in bench_startup(rounds=1)}
    assert rows["first compiled step, empty compiler cache"] == 25
    assert rows["first compiled step, filled compiler cache"] == 3
    assert rows["a run of one step, empty compiler cache"] == 25 + 8 + 1
    assert rows["a run of one step, filled compiler cache"] == 3 + 8
    places = [changes.get("TORCHINDUCTOR_CACHE_DIR") for changes in clock.changes]
    assert places[:-2] == [None] * (len(places) - 2)
    assert places[-1] is not None
    assert places[-1] == places[-2]


def test_without_a_compiler_the_rows_say_so(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(startup, "find_missing_compiler", lambda device: "no g++")
    rows = bench_startup(rounds=1)[-4:]
    assert [(row.ours, row.note) for row in rows] == [(None, "no g++")] * 4


@pytest.mark.slow
def test_every_command_is_one(call_command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command as it is: all commands end well, the compiled run aside, which takes a minute."""
    monkeypatch.setattr(startup, "find_missing_compiler", lambda device: "left out here")
    ended = call_command("bench", "startup", "--rounds", "1", "--json")
    assert ended.code == 0, ended.err
    rows = json.loads(ended.out)["rows"]
    assert [row["name"] for row in rows[: len(PEERS)]] == list(PEERS)
    assert {"name", "ours", "peer", "ratio", "unit"} <= set(rows[0])
    assert all(row["ours"] > 0 for row in rows[:-4])
    assert all(row["peer"] > 0 for row in rows if row["name"].startswith("glu-bench"))
    assert [row["note"] for row in rows[-4:]] == ["left out here"] * 4


def test_the_table_says_what_was_not_measured(
    clock: Clock, call_command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(startup, "find_missing_compiler", lambda device: "no g++")
    out = call_command("bench", "startup", "--rounds", "1").out
    assert "glu-bench train --cfg" in out
    assert "first compiled step, empty compiler cache: not measured, no g++" in out
    quiet = call_command("bench", "startup", "--rounds", "1", "--quiet").out
    assert "glu-bench train --cfg" in quiet
    assert "not measured" not in quiet
