"""Turns, and what is read from their times."""

from __future__ import annotations

import pytest

from glu_bench.cost.race import make_groups, paired_ratio, race, spread


def test_ratio_pairs_the_rounds() -> None:
    """A machine that halves its speed between rounds moves both, and so not the ratio."""
    assert paired_ratio([1.0, 2.0, 2.0], [1.5, 3.0, 3.0]) == pytest.approx(1.5)


def test_spread_is_a_share_of_the_median() -> None:
    assert spread([2.0, 5.0, 4.0]) == pytest.approx(0.75)


def test_each_takes_its_turn_and_the_order_turns_round() -> None:
    turns: list[str] = []
    seconds = race({"a": lambda: turns.append("a"), "b": lambda: turns.append("b")}, 2, 1)
    order = [name for at, name in enumerate(turns) if at == 0 or turns[at - 1] != name]
    assert order == ["a", "b", "a"]  # a then b, b then a
    assert {name: len(times) for name, times in seconds.items()} == {"a": 2, "b": 2}


def test_groups_are_bounded_and_each_is_led_by_the_anchor() -> None:
    assert make_groups(["a", "x", "b", "c"], "x", 2) == [["x", "a", "b"], ["x", "c"]]
    assert make_groups(["x"], "x", 2) == [["x"]]
