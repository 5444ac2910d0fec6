"""Differences at equal cost, on curves with a known answer."""

from __future__ import annotations

import numpy as np
import pytest

from glu_bench.stats.equal_cost import compare_at_equal_cost
from glu_bench.stats.fit import Point
from tests.stats.test_speedup import BUDGETS, baseline, faster, law


@pytest.mark.parametrize("ratio", [0.5, 1.0, 1.5])
@pytest.mark.parametrize("c", [3e6, 3e7])
def test_a_dearer_token_gives_the_baseline_more_of_them(ratio: float, c: float) -> None:
    found = compare_at_equal_cost(baseline(), faster(c, 1.3), ratio)
    assert found is not None
    assert found.difference_nats == pytest.approx(law(1.3 * c) - law(ratio * c), abs=3e-5)
    assert found.ci95 is not None
    assert found.ci95[0] < law(1.3 * c) - law(ratio * c) < found.ci95[1]


def test_what_costs_as_much_more_as_it_is_faster_gains_nothing() -> None:
    found = compare_at_equal_cost(baseline(), faster(1e7, 1.37), 1.37)
    assert found is not None
    assert found.difference_nats == pytest.approx(0, abs=3e-5)


@pytest.mark.parametrize("ratio", [0.04, 25.0])
def test_outside_twice_the_measured_range_nothing_is_said(ratio: float) -> None:
    assert compare_at_equal_cost(baseline(), faster(1e7, 1.0), ratio) is None


def test_too_few_budgets_say_nothing() -> None:
    assert compare_at_equal_cost(baseline(BUDGETS[:2]), faster(1e6, 1.0), 1.0) is None


def test_one_seed_gives_no_interval() -> None:
    arm = Point(c=1e7, losses=(3.0,))
    found = compare_at_equal_cost(baseline(), arm, 1.0)
    assert found is not None
    assert found.ci95 is None


def test_the_interval_holds_the_truth_as_often_as_it_says() -> None:
    rng, sd, held, n = np.random.default_rng(4), 0.01, 0, 300
    for _ in range(n):
        points = [Point(c=c, losses=tuple(law(c) + sd * rng.standard_normal(3))) for c in BUDGETS]
        arm = Point(c=1e7, losses=tuple(law(1.3e7) + sd * rng.standard_normal(3)))
        found = compare_at_equal_cost(points, arm, 1.5)
        assert found is not None
        assert found.ci95 is not None
        held += found.ci95[0] <= law(1.3e7) - law(1.5e7) <= found.ci95[1]
    assert 0.91 <= held / n <= 0.99  # 95 %, three standard errors of 1.3 %
