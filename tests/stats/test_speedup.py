"""Effective speedup: curves with a known answer, bounds where there is none, and how sure it is."""

from __future__ import annotations

import dataclasses
import math
import random
from collections.abc import Sequence

import numpy as np
import pytest
from scipy import stats

from glu_bench.errors import DataError
from glu_bench.stats.fit import Point
from glu_bench.stats.speedup import Speedup, measure_speedup

BUDGETS = (1e6, 3e6, 1e7, 3e7, 1e8)
JITTER = (-1e-5, 0.0, 1e-5)


def law(c: float) -> float:
    return 2.0 + 5.0 * c**-0.3


def baseline(budgets: Sequence[float] = BUDGETS) -> list[Point]:
    return [Point(c=c, losses=tuple(law(c) + e for e in JITTER)) for c in budgets]


def faster(c: float, times: float) -> Point:
    """An arm that is, by construction, where the baseline is after `times` its tokens."""
    return Point(c=c, losses=tuple(law(times * c) + e for e in JITTER))


@pytest.mark.parametrize("times", [1.37, 1.0, 0.8, 1.9])
@pytest.mark.parametrize("c", [3e6, 1e8])
def test_an_arm_that_is_faster_by_construction_is_found_to_be(times: float, c: float) -> None:
    speedup = measure_speedup(baseline(), faster(c, times))
    assert speedup.method == "law"
    assert speedup.tokens == speedup.compute == pytest.approx(times, rel=2e-4)
    assert speedup.compute_ci95 is not None
    low, high = speedup.compute_ci95
    assert low is not None
    assert high is not None
    assert low < times < high
    assert high - low < 0.05 * times
    assert speedup.compute_bounds is None


def test_wall_clock_counts_who_trains_slower() -> None:
    slower = measure_speedup(baseline(), faster(1e7, 1.37), rate_ratio=0.8)
    assert slower.wall == pytest.approx(1.37 * 0.8, rel=1e-3)
    assert slower.compute == pytest.approx(1.37, rel=1e-3)
    assert slower.wall_ci95 is not None
    assert slower.compute_ci95 is not None
    assert slower.wall_ci95[0] == pytest.approx(0.8 * (slower.compute_ci95[0] or 0))
    assert measure_speedup(baseline(), faster(1e7, 1.37)).wall is None


def test_a_dearer_token_counts_in_compute_and_not_again_in_wall_clock() -> None:
    """A baseline of 100 FLOPs a token, an arm of 150: at 1.37 times the tokens, 137 to 150."""
    speedup = measure_speedup(baseline(), faster(1e7, 1.37), flops_ratio=100 / 150, rate_ratio=0.9)
    assert speedup.tokens == pytest.approx(1.37, rel=1e-3)
    assert speedup.compute == pytest.approx(137 / 150, rel=1e-3)
    assert speedup.wall == pytest.approx(1.37 * 0.9, rel=1e-3)  # seconds know no FLOPs
    assert measure_speedup(baseline(), faster(1e7, 1.37), flops_ratio=None).compute is None


def test_the_order_of_budgets_and_seeds_changes_nothing() -> None:
    draw = random.Random(0)
    points = [Point(c=p.c, losses=tuple(x + draw.gauss(0, 0.001) for x in p.losses)) for p in baseline()]
    arm = faster(1e7, 1.37)
    first = measure_speedup(points, arm)
    draw.shuffle(points)
    backwards = [Point(c=p.c, losses=p.losses[::-1]) for p in points]
    assert measure_speedup(backwards, dataclasses.replace(arm, losses=arm.losses[::-1])) == first


def bounds_of(speedup: Speedup) -> tuple[float | None, float | None]:
    assert speedup.compute is None
    assert speedup.compute_ci95 is None
    return speedup.compute_bounds or (None, None)


@pytest.mark.parametrize(
    ("c", "times", "at_least", "at_most", "why"),
    [
        (1e8, 2.5, 2.0, None, "above 2 times the measured range"),
        (1e6, 0.3, None, 0.5, "below 2 times the measured range"),
        (5e7, 20, 4.0, None, "above 2 times"),
    ],
)
def test_outside_twice_the_measured_range_there_is_a_bound(
    c: float, times: float, at_least: float | None, at_most: float | None, why: str
) -> None:
    speedup = measure_speedup(baseline(), faster(c, times), flops_ratio=0.5, rate_ratio=3.0)
    assert speedup.tokens_bounds == pytest.approx((at_least, at_most))
    assert bounds_of(speedup) == pytest.approx((at_least and at_least / 2, at_most and at_most / 2))
    assert speedup.wall_bounds == pytest.approx((at_least and at_least * 3, at_most and at_most * 3))
    assert why in speedup.note


@pytest.mark.parametrize("loss", [2.0, 1.9])
def test_at_or_below_the_asymptote_there_is_a_bound(loss: float) -> None:
    arm = Point(c=1e8, losses=tuple(loss - 0.001 + e for e in JITTER))
    speedup = measure_speedup(baseline(), arm)
    assert bounds_of(speedup) == pytest.approx((2.0, None))
    assert "L_inf" in speedup.note


def test_noise_can_leave_no_bound() -> None:
    arm = Point(c=1e8, losses=(1.5, 2.4))
    speedup = measure_speedup(baseline(), arm)
    assert bounds_of(speedup) == (None, None)
    assert "the noise is too great" in speedup.note


def test_three_budgets_are_read_between() -> None:
    speedup = measure_speedup(baseline((1e6, 1e7, 1e8)), faster(1e7, 1.0))
    assert speedup.method == "interpolation"
    assert speedup.compute == pytest.approx(1.0)
    assert speedup.compute_ci95 is not None
    assert "three budgets" in speedup.note
    halfway = (law(1e7) + law(1e8)) / 2
    arm = Point(c=1e7, losses=(halfway, halfway))
    assert measure_speedup(baseline((1e6, 1e7, 1e8)), arm).compute == pytest.approx(math.sqrt(10))


def test_outside_three_budgets_there_is_a_bound() -> None:
    three = baseline((1e6, 1e7, 1e8))
    assert bounds_of(measure_speedup(three, faster(1e8, 1.5))) == pytest.approx((1.0, None))
    assert bounds_of(measure_speedup(three, faster(1e6, 0.5))) == pytest.approx((None, 1.0))
    assert "above the measured range" in measure_speedup(three, faster(1e8, 1.5)).note


@pytest.mark.parametrize(
    ("budgets", "c", "times", "at_least", "at_most"),
    [
        ((1e7,), 1e7, 1.4, 1.0, None),
        ((1e7,), 1e7, 0.7, None, 1.0),
        ((1e7,), 2e7, 3.0, 0.5, None),
        ((1e7, 4e7), 1e7, 2.0, 1.0, 4.0),
        ((1e7, 4e7), 1e7, 6.0, 4.0, None),
        ((1e7, 4e7), 1e7, 0.5, None, 1.0),
    ],
)
def test_fewer_than_three_budgets_give_bounds(
    budgets: tuple[float, ...], c: float, times: float, at_least: float | None, at_most: float | None
) -> None:
    speedup = measure_speedup(baseline(budgets), faster(c, times))
    assert bounds_of(speedup) == pytest.approx((at_least, at_most))
    assert f"{len(budgets)} budget" in speedup.note
    assert "97.5 % sure" in speedup.note


def test_a_bound_is_given_only_where_it_is_no_chance() -> None:
    """Just inside and just outside the Welch interval of the difference."""
    base, arm = (2.00, 2.02, 2.04, 2.05), (1.90, 1.95, 2.01)
    margin = stats.ttest_ind(base, arm, equal_var=False).confidence_interval(0.95)
    half = (margin.high - margin.low) / 2
    gap = np.mean(base) - np.mean(arm)
    for beyond, expected in ((1e-6, (1.0, None)), (-1e-6, (None, None))):
        moved = tuple(float(loss - (half + beyond - gap)) for loss in arm)
        speedup = measure_speedup([Point(c=1e7, losses=base)], Point(c=1e7, losses=moved))
        assert bounds_of(speedup) == expected
    assert "not separable" in speedup.note


def test_single_seeds_give_numbers_without_intervals_and_say_so() -> None:
    arm = Point(c=1e7, losses=(law(1.37e7),))
    speedup = measure_speedup(baseline(), arm)
    assert speedup.compute == pytest.approx(1.37, rel=1e-3)
    assert speedup.compute_ci95 is None
    assert "one seed" in speedup.note
    single = [Point(c=c, losses=(law(c),)) for c in (1e6, 1e7, 1e8)]
    between = measure_speedup(single, faster(1e7, 1.37))
    assert (between.compute is None, between.compute_ci95) == (False, None)
    far = measure_speedup(baseline(), Point(c=1e8, losses=(law(1e9),)))
    assert bounds_of(far) == pytest.approx((2.0, None))
    assert "nothing of chance" in far.note
    one = measure_speedup(single[1:2], arm)
    assert bounds_of(one) == pytest.approx((1.0, None))
    assert "nothing of chance" in one.note


@pytest.mark.parametrize("losses", [(2.0,) * 5, (2.0, 2.1, 2.2, 2.3, 2.4)])
def test_losses_that_do_not_fall_give_no_number(losses: tuple[float, ...]) -> None:
    points = [Point(c=c, losses=(loss, loss)) for c, loss in zip(BUDGETS, losses, strict=True)]
    speedup = measure_speedup(points, Point(c=1e7, losses=(2.15, 2.15)))
    assert speedup.compute is None
    assert "does not fall" in speedup.note


def test_budgets_that_contradict_one_another_give_no_bound() -> None:
    points = [Point(c=c, losses=(loss, loss)) for c, loss in ((1e6, 2.0), (1e7, 2.2))]
    speedup = measure_speedup(points, Point(c=1e6, losses=(2.1, 2.1)))
    assert bounds_of(speedup) == (None, None)
    assert "contradict" in speedup.note


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_no_number_is_refused(bad: float) -> None:
    with pytest.raises(DataError, match="diverged"):
        measure_speedup(baseline(), Point(c=1e7, losses=(2.0, bad)))
    with pytest.raises(DataError, match="diverged"):
        measure_speedup([*baseline(), Point(c=2e8, losses=(bad,))], faster(1e7, 1.2))
    with pytest.raises(DataError, match="without a finished run"):
        measure_speedup(baseline(), Point(c=1e7, losses=()))


def count_coverage(n_trials: int, n_seeds: int, n_budgets: int, sd: float, times: float = 1.37) -> float:
    """Share of simulated experiments whose limits hold the truth; with three budgets that is a line."""
    budgets = np.geomspace(1e6, 3e7, n_budgets)
    means = 1 + 100 * budgets**-0.3
    c = float(budgets[-2])
    hits = 0
    for trial in range(n_trials):
        draw = np.random.default_rng(trial)

        def measure(at: float, draw: np.random.Generator = draw) -> tuple[float, ...]:
            bent = 1 + 100 * at**-0.3
            mean = np.interp(math.log(at), np.log(budgets), means) if n_budgets == 3 else bent
            return tuple((mean + sd * draw.standard_normal(n_seeds)).tolist())

        points = [Point(c=float(budget), losses=measure(float(budget))) for budget in budgets]
        speedup = measure_speedup(points, Point(c=c, losses=measure(times * c)))
        low, high = speedup.tokens_ci95 or speedup.tokens_bounds or (None, None)
        hits += (low is None or low <= times) and (high is None or times <= high)
    return hits / n_trials


@pytest.mark.parametrize("n_budgets", [3, 5])
def test_the_interval_holds_the_truth_as_often_as_it_says(n_budgets: int) -> None:
    share = count_coverage(150, n_seeds=3, n_budgets=n_budgets, sd=0.01)
    assert share >= 0.95 - 3 * math.sqrt(0.95 * 0.05 / 150)


@pytest.mark.slow
@pytest.mark.parametrize("n_seeds", [2, 5])
@pytest.mark.parametrize("n_budgets", [3, 4, 6])
@pytest.mark.parametrize("sd", [0.003, 0.03])
def test_the_interval_holds_the_truth_over_many_experiments(n_seeds: int, n_budgets: int, sd: float) -> None:
    assert count_coverage(400, n_seeds, n_budgets, sd) >= 0.95 - 3 * math.sqrt(0.95 * 0.05 / 400)
