"""The law of loss against budget: what it finds, how sure it is, what it refuses."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Sequence

import numpy as np
import pytest
from scipy import optimize, stats

from glu_bench.errors import DataError
from glu_bench.stats.fit import (
    Interpolation,
    Point,
    PowerLaw,
    collect_points,
    find_budget,
    fit_power_law,
    interpolate,
    make_curve,
)

BUDGETS = (1e6, 3e6, 1e7, 3e7, 1e8)


def law(c: float, l_inf: float = 2.0, a: float = 5.0, alpha: float = 0.3) -> float:
    return l_inf + a * c**-alpha


def exact(budgets: Sequence[float] = BUDGETS) -> tuple[Point, ...]:
    return collect_points((c, law(c)) for c in budgets)


def noisy(
    seed: int,
    *,
    sd: float,
    n: int,
    budgets: Sequence[float] = BUDGETS,
    l_inf: float = 1.0,
    a: float = 100.0,
    alpha: float = 0.3,
) -> tuple[Point, ...]:
    draw = np.random.default_rng(seed)
    return collect_points(
        (c, law(c, l_inf, a, alpha) + sd * float(draw.standard_normal())) for c in budgets for _ in range(n)
    )


@pytest.mark.parametrize(
    ("l_inf", "a", "alpha"), [(2.0, 5.0, 0.3), (0.0, 40.0, 0.2), (1.69, 410.7, 0.34), (1.0, 1e4, 0.9)]
)
def test_a_law_without_noise_is_found_again(l_inf: float, a: float, alpha: float) -> None:
    fitted = fit_power_law(collect_points((c, law(c, l_inf, a, alpha)) for c in BUDGETS))
    assert fitted.l_inf_nats == pytest.approx(l_inf, abs=1e-7)
    assert fitted.a_nats == pytest.approx(a, rel=1e-6)
    assert fitted.alpha == pytest.approx(alpha, rel=1e-7)
    assert fitted.l_inf_ci95 == pytest.approx((l_inf, l_inf), abs=1e-6)
    assert float(fitted.loss_at(1e9)) == pytest.approx(law(1e9, l_inf, a, alpha))


@pytest.mark.parametrize("seed", range(5))
def test_the_minimum_is_that_of_scipy(seed: int) -> None:
    points = noisy(seed, sd=0.005, n=2)
    fitted = fit_power_law(points)
    c = np.array([point.c for point in points for _ in point.losses])
    y = np.array([loss for point in points for loss in point.losses])
    found, covariance = optimize.curve_fit(
        lambda x, l_inf, b, alpha: l_inf + b * (x / 1e7) ** -alpha, c, y, p0=(1.0, 0.8, 0.3)
    )
    at_alpha = found[1] * 1e7 ** found[2]
    assert (fitted.l_inf_nats, fitted.alpha) == pytest.approx((found[0], found[2]), rel=1e-4)
    assert fitted.a_nats == pytest.approx(at_alpha, rel=1e-3)
    # with so little noise the profile is nearly the ellipse of the covariance
    if fitted.n_dof == len(y) - 3:
        half = stats.t.ppf(0.975, len(y) - 3) * math.sqrt(covariance[2, 2])
        low, high = fitted.alpha_ci95
        assert low is not None
        assert high is not None
        assert high - low == pytest.approx(2 * half, rel=0.1)


@pytest.mark.parametrize(("l_inf", "sd"), [(1.0, 0.03), (0.05, 0.06)])
def test_the_intervals_are_those_of_a_search_over_all_laws(l_inf: float, sd: float) -> None:
    points = noisy(3, sd=sd, n=1, l_inf=l_inf, budgets=np.geomspace(1e6, 1e8, 7).tolist())
    fitted = fit_power_law(points)
    middle = 1e7
    c = np.array([point.c for point in points])
    y = np.array([point.mean for point in points])
    alphas = np.geomspace(0.02, 3.0, 160)
    levels = np.linspace(0.0, 2.2, 221)
    l_inf_ends, far_ends, alpha_ends = [], [], []
    for alpha in alphas:
        # the sum of squares is a parabola in b for each level: its ends are solved, the rest searched
        u = (c / middle) ** -alpha
        rest = y[None, :] - levels[:, None]
        best = rest @ u / (u @ u)
        left = fitted.limit - ((rest - best[:, None] * u) ** 2).sum(axis=1)
        half = np.sqrt(np.maximum(left, 0.0) / (u @ u))
        inside = (left >= 0) & (best + half >= 0)
        if inside.any():
            alpha_ends.append(alpha)
            l_inf_ends += levels[inside].tolist()
            for b in (np.maximum(best - half, 0.0), best + half):
                far_ends += (levels + b * (1e9 / middle) ** -alpha)[inside].tolist()
    low, high = fitted.band_at(1e9)
    assert (low[0], high[0]) == pytest.approx((min(far_ends), max(far_ends)), abs=0.02)
    assert fitted.l_inf_ci95 == pytest.approx((min(l_inf_ends), max(l_inf_ends)), abs=0.02)
    assert fitted.alpha_ci95[0] == pytest.approx(min(alpha_ends), rel=0.05)
    if l_inf < 0.1:
        assert fitted.l_inf_ci95[0] == 0.0  # the bound cuts the region, or the test would not reach it


def test_more_seeds_weigh_more() -> None:
    base = [(c, law(c)) for c in BUDGETS]
    off = (1e8, law(1e8) + 0.01)
    once, often = (fit_power_law(collect_points([*base, *[off] * n])) for n in (1, 9))
    wanted = [law(1e8) + 0.01 * n / (n + 1) for n in (1, 9)]
    assert float(once.loss_at(1e8)) < float(often.loss_at(1e8)) < wanted[1]


@pytest.mark.parametrize("n", [4, 5])
def test_the_order_of_the_runs_changes_nothing(n: int) -> None:
    runs = [(point.c, loss) for point in noisy(n, sd=0.01, n=3) for loss in point.losses]
    laws = []
    for seed in range(3):
        random.Random(seed).shuffle(runs)
        laws.append(fit_power_law(collect_points(runs)))
    assert laws[0] == laws[1] == laws[2]


def test_the_unit_of_the_budget_changes_only_a() -> None:
    points = noisy(1, sd=0.01, n=3)
    in_millions = [Point(c=point.c / 1e6, losses=point.losses) for point in points]
    one, other = fit_power_law(points), fit_power_law(in_millions)
    assert other.alpha == pytest.approx(one.alpha, rel=1e-6)
    assert other.l_inf_nats == pytest.approx(one.l_inf_nats, rel=1e-6)
    assert other.a_nats == pytest.approx(one.a_nats * 1e6**-one.alpha, rel=1e-5)


def test_the_residual_has_the_degrees_of_freedom_of_the_runs() -> None:
    fitted = fit_power_law(noisy(0, sd=0.01, n=3))
    assert fitted.lack_of_fit_p is not None
    assert fitted.lack_of_fit_p > 0.05
    assert fitted.n_dof == 5 * 3 - 3
    assert fit_power_law(noisy(0, sd=0.01, n=1)).n_dof == 2


def test_means_that_lie_off_the_law_widen_the_intervals_and_are_said() -> None:
    bumps = dict(zip(BUDGETS, (0.005, -0.005, 0.005, -0.005, 0.005), strict=True))
    points = collect_points((c, law(c) + bumps[c] + jitter) for c in BUDGETS for jitter in (-1e-4, 0.0, 1e-4))
    fitted = fit_power_law(points)
    assert fitted.lack_of_fit_p is not None
    assert fitted.lack_of_fit_p < 1e-6
    assert fitted.n_dof == len(BUDGETS) - 3
    assert fitted.residual_sd_nats > 0.005  # of a mean of three, times root three
    assert any("off the law" in note for note in fitted.notes)


@pytest.mark.parametrize(
    ("losses", "why"),
    [
        ((2.0, 2.0, 2.0, 2.0), "does not fall"),
        ((2.0, 2.1, 2.2, 2.3), "does not fall"),
        ((2.0, 1.9, 1.8), "3 budgets: a fit takes 4"),
        ((2.0, 1.9, math.nan, 1.7), "leave diverged runs out"),
        ((2.0, 1.9, 1.8, math.inf), "leave diverged runs out"),
    ],
)
def test_what_no_law_describes_is_refused(losses: tuple[float, ...], why: str) -> None:
    points = [Point(c=c, losses=(loss,)) for c, loss in zip(BUDGETS, losses, strict=False)]
    with pytest.raises(DataError, match=why):
        fit_power_law(points)


@pytest.mark.parametrize("c", [0.0, -1.0, math.nan, math.inf])
def test_a_budget_that_is_none_is_refused(c: float) -> None:
    with pytest.raises(DataError, match="a budget of"):
        collect_points([(c, 2.0)])


def test_a_level_at_its_bound_is_said() -> None:
    # falling faster and faster in log C: no asymptote above zero fits
    points = collect_points(zip(BUDGETS, (2.0, 1.9, 1.7, 1.4, 1.0), strict=True))
    fitted = fit_power_law(points)
    assert fitted.l_inf_nats == 0.0
    assert any("L_inf at 0" in note for note in fitted.notes)


def test_a_single_drop_is_said() -> None:
    points = collect_points(zip(BUDGETS, (3.0, 2.0, 2.0, 2.0, 2.0), strict=True))
    fitted = fit_power_law(points)
    assert fitted.alpha_ci95[1] is None
    assert any("alpha at 10" in note for note in fitted.notes)


def test_noise_that_a_constant_explains_leaves_the_exponent_open() -> None:
    points = collect_points(zip(BUDGETS, (2.00, 2.02, 1.97, 2.01, 1.98), strict=True))
    fitted = fit_power_law(points)
    assert fitted.alpha_ci95 == (None, None)
    low, high = fitted.band_at(BUDGETS[2])
    assert high[0] - low[0] < 0.3  # and the loss within the data is known all the same


def test_the_budget_for_a_loss_is_the_inverse() -> None:
    fitted = fit_power_law(exact())
    assert fitted.c_for_loss(law(4.2e7)) == pytest.approx(4.2e7, rel=1e-5)
    assert fitted.c_for_loss(2.0 - 1e-6) is None
    assert fitted.c_for_loss(-1.0) is None
    tiny = fit_power_law(collect_points((c, law(c, 2.0, 5.0, 0.05)) for c in BUDGETS))
    assert tiny.c_for_loss(math.nextafter(tiny.l_inf_nats, 3.0)) is None  # e^740, beyond any number


def test_limits_of_a_loss_become_limits_of_the_budget() -> None:
    fitted = fit_power_law(exact())
    loss = law(2e7)
    found = find_budget(fitted, loss, (law(2.6e7), law(1.5e7)))
    assert found.c == pytest.approx(2e7, rel=1e-5)
    assert (found.low, found.high) == pytest.approx((1.5e7, 2.6e7), rel=1e-4)


def test_square_and_add_joins_both_uncertainties() -> None:
    """At each limit the gap to the curve is the root of both squares."""
    fitted = fit_power_law(noisy(0, sd=0.01, n=3))
    loss, half = float(fitted.loss_at(2e7)), 0.004
    found = find_budget(fitted, loss, (loss - half, loss + half))
    assert found.low is not None
    assert found.high is not None
    curve_low = float(fitted.loss_at(found.low)) - float(fitted.band_at(found.low)[0][0])
    assert float(fitted.loss_at(found.low)) - loss == pytest.approx(math.hypot(curve_low, half), rel=1e-6)
    curve_high = float(fitted.band_at(found.high)[1][0]) - float(fitted.loss_at(found.high))
    assert loss - float(fitted.loss_at(found.high)) == pytest.approx(math.hypot(curve_high, half), rel=1e-6)


@pytest.mark.parametrize(
    ("loss", "beyond"),
    [(law(2.1e8), "above"), (law(0.4e6), "below"), (2.0 - 1e-3, "never"), (law(1.9e8), ""), (law(0.6e6), "")],
)
def test_twice_the_measured_range_is_the_end_of_trust(loss: float, beyond: str) -> None:
    found = find_budget(fit_power_law(exact()), loss, (loss, loss))
    assert found.beyond == beyond
    assert (found.c is None) is bool(beyond)
    if beyond in ("above", "never"):
        assert found.low == pytest.approx(2e8)
        assert found.high is None
    if beyond == "below":
        assert found.high == pytest.approx(0.5e6)


THREE = ((1e6, (3.0, 3.1)), (1e7, (2.0, 2.2)), (1e8, (1.5, 1.5)))


def three() -> Interpolation:
    return interpolate([Point(c=c, losses=losses) for c, losses in THREE])


def test_three_budgets_are_read_between_in_log_c() -> None:
    curve = make_curve(three().points)
    assert isinstance(curve, Interpolation)
    assert float(curve.loss_at(math.sqrt(1e6 * 1e7))) == pytest.approx((3.05 + 2.1) / 2)
    assert curve.c_for_loss((3 * 2.1 + 1.5) / 4) == pytest.approx(1e7 * 10**0.25)
    assert curve.c_for_loss(3.06) is None
    assert curve.c_for_loss(1.49) is None
    assert isinstance(make_curve(exact()), PowerLaw)


def test_the_band_of_an_interpolation_is_that_of_two_means() -> None:
    curve = three()
    sd = math.sqrt((2 * 0.05**2 + 2 * 0.1**2 + 0) / 3)
    t = stats.t.ppf(0.975, 3)
    for c, share in (
        (1e7, 1 / 2),
        (math.sqrt(1e13), 1 / 4),
    ):  # variance of a mean of two; of half of two such
        band = curve.band_at(c)
        assert band is not None
        assert (band[1][0] - band[0][0]) / 2 == pytest.approx(t * sd * math.sqrt(share))
    assert interpolate([Point(c=c, losses=losses[:1]) for c, losses in THREE]).band_at(1e7) is None


@pytest.mark.parametrize("losses", [*list(itertools.permutations((2.0, 1.9, 1.8)))[1:], (2.0, 1.9, 1.9)])
def test_three_budgets_whose_loss_does_not_fall_are_refused(losses: tuple[float, ...]) -> None:
    with pytest.raises(DataError, match="does not fall"):
        interpolate([Point(c=c, losses=(loss,)) for c, loss in zip(BUDGETS, losses, strict=False)])


def test_two_budgets_are_too_few_for_any_curve() -> None:
    with pytest.raises(DataError, match="2 budgets: three to interpolate, 4 to fit"):
        make_curve(exact((1e6, 1e7)))


def holds(limits: tuple[float | None, float | None], value: float) -> bool:
    low, high = limits
    return (low is None or low <= value) and (high is None or value <= high)


def count_coverage(n_trials: int, n_seeds: int, n_budgets: int, sd: float) -> dict[str, float]:
    """Shares of simulated experiments whose 95 % intervals hold the truth."""
    budgets = np.geomspace(1e6, 3e7, n_budgets).tolist()
    target = budgets[-2] * 1.37
    hits = dict.fromkeys(("l_inf", "a", "alpha", "beyond", "needed"), 0)
    for trial in range(n_trials):
        fitted = fit_power_law(noisy(trial, sd=sd, n=n_seeds, budgets=budgets))
        hits["l_inf"] += holds(fitted.l_inf_ci95, 1.0)
        hits["a"] += holds(fitted.a_ci95, 100.0)
        hits["alpha"] += holds(fitted.alpha_ci95, 0.3)
        low, high = fitted.band_at(2 * budgets[-1])
        hits["beyond"] += bool(low[0] <= law(2 * budgets[-1], 1.0, 100.0, 0.3) <= high[0])
        loss = law(target, 1.0, 100.0, 0.3)
        found = find_budget(fitted, loss, (loss, loss))
        hits["needed"] += holds((found.low, found.high), target)
    return {name: count / n_trials for name, count in hits.items()}


def test_the_intervals_hold_the_truth_as_often_as_they_say() -> None:
    for share in count_coverage(150, n_seeds=2, n_budgets=5, sd=0.01).values():
        assert 0.95 - 3 * math.sqrt(0.95 * 0.05 / 150) <= share


@pytest.mark.slow
@pytest.mark.parametrize("n_seeds", [1, 3])
@pytest.mark.parametrize("n_budgets", [4, 6])
@pytest.mark.parametrize("sd", [0.003, 0.05])
def test_the_intervals_hold_the_truth_over_many_experiments(n_seeds: int, n_budgets: int, sd: float) -> None:
    for name, share in count_coverage(400, n_seeds, n_budgets, sd).items():
        assert share >= 0.95 - 3 * math.sqrt(0.95 * 0.05 / 400), name
