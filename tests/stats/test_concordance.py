"""Agreement of orders, against counting by hand and Kendall's exact distribution."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest

from glu_bench.stats.concordance import N_DRAWS, count_agreements, find_concordance

BEST, REST = ["geglu", "swiglu", "reglu", "bilinear"], ["glu", "gelu", "swish", "relu"]
SEVENTEEN = [*itertools.product(BEST, REST), ("geglu", "bilinear")]
PUBLISHED = {
    **{"geglu": 1.942, "swiglu": 1.944, "reglu": 1.953, "bilinear": 1.960},
    **{"glu": 1.982, "gelu": 1.983, "swish": 1.994, "relu": 1.997},
}


def all_pairs(k: int) -> list[tuple[str, str]]:
    return list(itertools.combinations([f"arm{i}" for i in range(k)], 2))


def count_inversions(k: int) -> list[int]:
    """Permutations of k by their inversions: the product of 1 + x + … + x^(i-1), i = 1…k."""
    counts = [1]
    for i in range(1, k + 1):
        counts = [
            sum(counts[at - j] for j in range(i) if 0 <= at - j < len(counts))
            for at in range(len(counts) + i - 1)
        ]
    return counts


@pytest.mark.parametrize("k", [2, 3, 5, 8])
def test_with_all_pairs_the_chance_level_is_kendalls(k: int) -> None:
    found = np.bincount(count_agreements(all_pairs(k)))
    assert found.tolist() == count_inversions(k)


def test_the_seventeen_pairs_of_shazeer() -> None:
    found = find_concordance(SEVENTEEN, PUBLISHED)
    assert (found.agree, found.of, found.chance_level) == (17, 17, 8.5)
    # four arms above four others: 1 of C(8, 4) = 70; and geglu before bilinear: half of them
    assert found.p_at_least == pytest.approx(float(Fraction(1, math.comb(8, 4)) / 2), abs=1e-15)
    assert found.p_at_most == 1.0
    assert found.is_exact
    assert found.opposite == []


def test_a_reversed_order_agrees_nowhere() -> None:
    found = find_concordance(SEVENTEEN, {arm: -value for arm, value in PUBLISHED.items()})
    assert (found.agree, found.p_at_least) == (0, 1.0)
    assert found.p_at_most == pytest.approx(1 / 140, abs=1e-15)
    assert sorted(found.opposite) == sorted(SEVENTEEN)


def test_one_pair_turned_is_named() -> None:
    found = find_concordance(SEVENTEEN, {**PUBLISHED, "geglu": 1.961})
    assert (found.agree, found.opposite) == (16, [("geglu", "bilinear")])


def test_the_pairs_are_not_as_if_independent() -> None:
    """Sixteen pairs that share arms: a binomial would give 2^-16."""
    found = find_concordance(SEVENTEEN[:16], PUBLISHED)
    assert found.p_at_least == pytest.approx(1 / 70)


def test_equal_values_are_no_agreement() -> None:
    assert find_concordance([("a", "b")], {"a": 1.0, "b": 1.0}).agree == 0


def test_no_pair_says_nothing() -> None:
    found = find_concordance([], {"a": 1.0, "b": 2.0})
    assert (found.agree, found.of, found.p_at_least, found.p_at_most) == (0, 0, 1.0, 1.0)


def test_beyond_eight_arms_orders_are_drawn_the_same_each_time() -> None:
    pairs = all_pairs(9)
    values = {f"arm{i}": float(i) for i in range(9)} | {"arm0": 4.5}
    found, again = find_concordance(pairs, values), find_concordance(pairs, values)
    assert found == again
    assert not found.is_exact
    counts = count_inversions(9)
    exact = sum(counts[found.agree :]) / math.factorial(9)
    assert found.p_at_least == pytest.approx(exact, abs=5 * math.sqrt(exact * (1 - exact) / N_DRAWS))
    assert find_concordance(all_pairs(12), {f"arm{i}": float(i) for i in range(12)}).p_at_least > 0
