"""Errors of the first kind, power and coverage, by simulation: what the tables promise."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from glu_bench.stats.findings import judge_losses, judge_summaries
from glu_bench.stats.interval import find_mean_interval, summarise
from glu_bench.stats.power import find_detectable, find_n_seeds, find_power
from tests.stats.test_blocked import draw


def binomial_bounds(n: int, share: float) -> tuple[float, float]:
    """Where a share estimated from n trials lies, but for one time in 1,000."""
    low, high = stats.binom.interval(0.999, n, share)
    return low / n, high / n


SLOW = pytest.mark.slow


@pytest.mark.parametrize("n_seeds", [pytest.param(2, marks=SLOW), 3, pytest.param(5, marks=SLOW)])
def test_blocked_family_wise_error_is_at_most_five_percent(n_seeds: int) -> None:
    rng, n = np.random.default_rng(n_seeds), 400
    wrong = sum(
        any(pair.separable for pair in judge_losses(draw(5, n_seeds, rng), "arm0").pairs) for _ in range(n)
    )
    assert wrong / n <= binomial_bounds(n, 0.05)[1]
    assert wrong > 0  # it is no test that never rejects


def test_blocked_error_against_the_baseline_is_at_most_five_percent() -> None:
    rng, n = np.random.default_rng(11), 400
    found = [judge_losses(draw(5, 3, rng), "arm0") for _ in range(n)]
    wrong = sum(any(row.verdict in ("better", "worse") for row in one.estimates) for one in found)
    assert 0 < wrong / n <= binomial_bounds(n, 0.05)[1]


@pytest.mark.parametrize("n_seeds", [3, pytest.param(4, marks=SLOW), pytest.param(8, marks=SLOW)])
def test_welch_family_wise_error_is_at_most_five_percent(n_seeds: int) -> None:
    rng, n = np.random.default_rng(n_seeds), 400
    sds = (1.0, 2.0, 0.5, 1.0)
    wrong = 0
    for _ in range(n):
        values = {f"arm{i}": [*(sd * rng.standard_normal(n_seeds))] for i, sd in enumerate(sds)}
        found = judge_summaries({arm: summarise(v) for arm, v in values.items()}, "arm0")
        wrong += any(pair.separable for pair in found.pairs)
    assert wrong / n <= binomial_bounds(n, 0.05)[1]
    assert wrong > 0


@pytest.mark.parametrize(("k", "n_seeds"), [(2, 5), pytest.param(4, 3, marks=SLOW)])
def test_the_detectable_difference_is_seen_four_times_in_five(k: int, n_seeds: int) -> None:
    """With sigma known the stated difference must be found with 80 % power at Holm's first step."""
    df, n = (k - 1) * (n_seeds - 1), 500
    n_pairs = k * (k - 1) // 2
    effect = find_detectable(math.sqrt(2 / n_seeds), df, 0.05 / n_pairs)
    rng = np.random.default_rng(k)
    found = [judge_losses(draw(k, n_seeds, rng, (effect,)), "arm0") for _ in range(n)]
    pairs = [next(p for p in one.pairs if {p.a, p.b} == {"arm0", "arm1"}) for one in found]
    seen = sum(p.p_raw is not None and p.p_raw <= 0.05 / n_pairs for p in pairs)
    low, high = binomial_bounds(n, 0.8)
    assert low <= seen / n <= high
    # each table knows sigma from its own residuals, whose squares are right on average
    stated = [one.detectable_nats or 0.0 for one in found]
    assert math.sqrt(np.mean(np.square(stated))) == pytest.approx(effect, rel=0.08)


@pytest.mark.slow
def test_the_stated_number_of_seeds_has_the_stated_power() -> None:
    n = find_n_seeds(1.0, math.sqrt(2), lambda n: 3.0 * (n - 1), n_now=3, alpha=0.05 / 6)
    assert n is not None
    rng, trials = np.random.default_rng(0), 400

    def share(n_seeds: int) -> float:
        seen = 0
        for _ in range(trials):
            found = judge_losses(draw(4, n_seeds, rng, (1.0,)), "arm0")
            pair = next(p for p in found.pairs if {p.a, p.b} == {"arm0", "arm1"})
            seen += pair.p_raw is not None and pair.p_raw <= 0.05 / 6
        return seen / trials

    assert share(n) >= binomial_bounds(trials, 0.8)[0]
    assert find_power(math.sqrt((n - 1) / 2), 3.0 * (n - 2), 0.05 / 6) < 0.8


@pytest.mark.parametrize("n_seeds", [2, 3, 5])
def test_the_interval_of_a_mean_covers_it_nineteen_times_in_twenty(n_seeds: int) -> None:
    rng, n = np.random.default_rng(n_seeds), 4000
    covered = 0
    for _ in range(n):
        low, high = find_mean_interval(summarise([*rng.standard_normal(n_seeds)])) or (0.0, 0.0)
        covered += low <= 0 <= high
    low, high = binomial_bounds(n, 0.95)
    assert low <= covered / n <= high


def test_the_interval_of_a_difference_covers_it_nineteen_times_in_twenty() -> None:
    rng, n = np.random.default_rng(2), 400
    covered = 0
    for _ in range(n):
        pair = next(
            p for p in judge_losses(draw(4, 3, rng, (0.7,)), "arm0").pairs if {p.a, p.b} == {"arm0", "arm2"}
        )
        low, high = pair.ci95 or (0.0, 0.0)
        covered += low <= (0.7 if pair.a == "arm0" else -0.7) <= high
    assert binomial_bounds(n, 0.95)[0] <= covered / n <= binomial_bounds(n, 0.95)[1]


@pytest.mark.parametrize("effect", [0.0, 1.0, 3.0, 4.99, 5.01, 12.0, 70.0])
@pytest.mark.parametrize("df", [1, 3.7, 14, 3000])
def test_power_is_a_probability_that_grows(effect: float, df: float) -> None:
    power = find_power(effect, df, 0.01)
    assert 0.0099 < power <= 1
    assert find_power(effect + 0.5, df, 0.01) >= power


def test_power_agrees_with_simulation() -> None:
    rng = np.random.default_rng(0)
    t = (rng.standard_normal(200_000) + 2.5) / np.sqrt(rng.chisquare(6, 200_000) / 6)
    assert find_power(2.5, 6) == pytest.approx((abs(t) > stats.t.isf(0.025, 6)).mean(), abs=0.004)


def test_a_difference_of_nothing_needs_more_seeds_than_anybody_has() -> None:
    assert find_n_seeds(0.0, 1.0, lambda n: n - 1, n_now=3) is None
    assert find_n_seeds(1e-6, 1.0, lambda n: n - 1, n_now=3) is None
