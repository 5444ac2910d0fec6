"""Published numbers, and what any statistician would find in them."""

from __future__ import annotations

import itertools
import random

import pytest

from glu_bench.stats.findings import judge_summaries
from glu_bench.stats.interval import Summary

# Shazeer 2020, Table 1, 65,536 steps: held-out log-perplexity, mean and sd of four runs
SHAZEER = {
    "relu": (1.997, 0.005),
    "gelu": (1.983, 0.005),
    "swish": (1.994, 0.003),
    "glu": (1.982, 0.006),
    "bilinear": (1.960, 0.005),
    "geglu": (1.942, 0.004),
    "swiglu": (1.944, 0.010),
    "reglu": (1.953, 0.003),
}
TIED = {
    frozenset(pair.split("-"))
    for pair in (
        *("geglu-swiglu", "swiglu-reglu", "geglu-reglu", "bilinear-swiglu", "bilinear-reglu", "gelu-glu"),
        *("relu-swish", "relu-gelu", "relu-glu", "gelu-swish", "swish-glu"),
    )
}
LETTERS = {"geglu": "a", "swiglu": "ab", "reglu": "ab", "bilinear": "b"}


def shazeer(order: list[str]) -> dict[str, Summary]:
    return {arm: Summary(n=4, mean=SHAZEER[arm][0], sd=SHAZEER[arm][1]) for arm in order}


def test_seventeen_of_shazeers_28_pairs_are_separable() -> None:
    found = judge_summaries(shazeer(list(SHAZEER)), "relu")
    assert len(found.pairs) == 28
    assert sum(pair.separable for pair in found.pairs) == 17
    assert {frozenset((pair.a, pair.b)) for pair in found.pairs if not pair.separable} == TIED


def test_geglu_and_reglu_are_a_tie_only_after_holm() -> None:
    found = judge_summaries(shazeer(list(SHAZEER)), "relu")
    (pair,) = (pair for pair in found.pairs if {pair.a, pair.b} == {"geglu", "reglu"})
    assert (round(pair.p_raw or 0, 4), round(pair.p_holm or 0, 3)) == (0.0055, 0.060)


def test_shazeers_letters() -> None:
    found = judge_summaries(shazeer(list(SHAZEER)), "relu")
    assert {e.arm: e.letters for e in found.estimates} == LETTERS | dict.fromkeys(
        ("glu", "gelu", "swish", "relu"), "c"
    )


def test_the_order_of_the_arms_changes_nothing() -> None:
    orders = [list(SHAZEER) for _ in range(5)]
    for seed, order in enumerate(orders):
        random.Random(seed).shuffle(order)
    found = [judge_summaries(shazeer(order), "relu") for order in orders]
    assert all(one == other for one, other in itertools.pairwise(found))


@pytest.mark.parametrize("baseline", ["relu", "geglu", "nosuch"])
def test_each_arm_is_set_against_the_baseline_in_a_family_of_its_own(baseline: str) -> None:
    found = judge_summaries(shazeer(list(SHAZEER)), baseline)
    tested = [row for row in found.estimates if row.p_holm is not None]
    assert len(tested) == (0 if baseline == "nosuch" else 7)
    if tested:
        smallest = min(tested, key=lambda row: row.p_raw or 1)
        assert smallest.p_holm == pytest.approx(7 * (smallest.p_raw or 1))
        for row in tested:
            difference = SHAZEER[row.arm][0] - SHAZEER[baseline][0]
            assert row.difference_nats == pytest.approx(difference)
            assert row.difference_ci95 is not None
            assert row.difference_ci95[0] < difference < row.difference_ci95[1]
            expected = (
                "not_separable" if (row.p_holm or 0) > 0.05 else "better" if difference < 0 else "worse"
            )
            assert row.verdict == expected
