"""Conditions and order of `runs list`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from glu_bench.errors import ConfigError, DataError
from glu_bench.runs import selection as room
from glu_bench.runs.folder import Run
from glu_bench.runs.selection import check_names, collect_facts, parse_condition, select_runs, sort_key

FACTS = {"variant": "swiglu", "optim.lr": 0.002, "tokens": 2_000_000, "match.d_ff": None, "unstable": False}


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("variant=swiglu", True),
        ("variant=gelu", False),
        ("variant != gelu", True),
        ("optim.lr=2e-3", True),
        ("optim.lr>1e-3", True),
        ("optim.lr>0.002", False),
        ("optim.lr>=0.002", True),
        ("tokens=2_000_000", True),
        ("tokens<=2e6", True),
        ("tokens<2e6", False),
        ("match.d_ff=null", True),
        ("match.d_ff!=512", True),
        ("match.d_ff<512", False),
        ("unstable=false", True),
    ],
)
def test_condition_holds(text: str, holds: bool) -> None:
    assert parse_condition(text).holds(FACTS) is holds


@pytest.mark.parametrize("text", ["variant", "=3", "optim.lr<fast", ""])
def test_a_condition_that_says_nothing_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="--where"):
        parse_condition(text)


def test_facts_hold_settings_labels_and_results(finished_run: Run) -> None:
    facts = collect_facts(finished_run)
    assert facts["variant"] == facts["variant.name"] == "swiglu"
    assert facts["status"] == "complete"
    assert facts["test_loss_nats"] == finished_run.result()["test_loss_nats"]


def test_settings_are_read_only_when_asked_for(finished_run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Run, "config", lambda run: pytest.fail("slow"))
    assert collect_facts(finished_run, ["test_loss_nats"])["variant"] == "swiglu"


def test_an_unknown_key_is_named_with_the_nearest(finished_run: Run) -> None:
    with pytest.raises(ConfigError, match="did you mean 'test_loss_nats'"):
        check_names(["test_los_nats"], [collect_facts(finished_run)])


def test_order_has_numbers_then_text_then_nothing() -> None:
    assert sorted([None, "b", 10, "a", 9.5], key=sort_key) == [9.5, 10, "a", "b", None]


def test_runs_are_chosen_and_ordered_and_what_cannot_be_read_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses = {"a": 2.0, "b": 1.0, "c": None, "d": 3.0}

    def collect(run: Run, names: Sequence[str]) -> dict[str, Any]:
        if run.path.name == "broken":
            raise DataError("broken: its configuration was edited")
        seed = "abcd".index(run.path.name)
        return {"run_id": run.path.name, "seed": seed, "test_loss_nats": losses[run.path.name]}

    monkeypatch.setattr(room, "collect_facts", collect)
    runs = [Run(tmp_path / name) for name in ("a", "b", "broken", "c", "d")]

    def select(*where: str, sort: str | None = None, reverse: bool = False) -> list[str]:
        conditions = [parse_condition(text) for text in where]
        return [facts["run_id"] for facts in select_runs(runs, conditions, sort, reverse).found]

    assert select() == ["a", "b", "broken", "c", "d"]
    assert select(reverse=True) == ["d", "c", "broken", "b", "a"]
    assert select("seed>0") == ["b", "c", "d"]
    assert select("seed>0", "test_loss_nats<2") == ["b"]
    assert select(sort="test_loss_nats") == ["b", "a", "d", "broken", "c"]
    assert select(sort="test_loss_nats", reverse=True) == ["d", "a", "b", "broken", "c"]
    selected = select_runs(runs, [parse_condition("seed<1")], "test_loss_nats")
    assert selected.names == ["seed", "test_loss_nats"]
    assert selected.unread == ["broken: its configuration was edited"]
    assert [facts["run_dir"] for facts in selected.found] == [str(tmp_path / "a")]
    with pytest.raises(ConfigError, match="los: no run has such a setting or result"):
        select(sort="los")
