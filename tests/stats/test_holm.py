"""Holm's adjustment against its definition."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glu_bench.stats.holm import adjust_holm

P = st.floats(0, 1)


@given(st.lists(P, min_size=1, max_size=8), st.floats(0.001, 0.999))
def test_an_adjusted_p_rejects_exactly_where_stepping_down_does(values: list[float], alpha: float) -> None:
    rejected = set()
    for rank, at in enumerate(sorted(range(len(values)), key=values.__getitem__)):
        if values[at] * (len(values) - rank) > alpha:
            break
        rejected.add(at)
    adjusted = adjust_holm(values)
    assert {at for at, p in enumerate(adjusted) if p is not None and p <= alpha} == rejected


def test_a_worked_example() -> None:
    # Holm: 0.01*4, 0.02*3, 0.03*2, then monotone
    assert adjust_holm([0.03, 0.01, 0.5, 0.02]) == pytest.approx([0.06, 0.04, 0.5, 0.06])


def test_a_test_that_was_not_made_counts_in_no_family() -> None:
    assert adjust_holm([None, 0.02, None, 0.03]) == [None, 0.04, None, 0.04]
