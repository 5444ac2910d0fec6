"""Conditions and order of `runs list`."""

from __future__ import annotations

import pytest

from glu_bench.errors import ConfigError
from glu_bench.runs.folder import Run
from glu_bench.runs.selection import check_names, collect_facts, parse_condition, sort_key

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
