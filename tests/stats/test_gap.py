"""The gap between two groups of arms, against scipy and the formulas written out."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from glu_bench.stats.gap import Gap, find_gap, find_summary_gap
from glu_bench.stats.interval import Summary

SHORT = {
    **{"relu": (1.997, 0.005), "gelu": (1.983, 0.005), "swish": (1.994, 0.003), "glu": (1.982, 0.006)},
    **{
        "bilinear": (1.960, 0.005),
        "geglu": (1.942, 0.004),
        "swiglu": (1.944, 0.010),
        "reglu": (1.953, 0.003),
    },
}
GATED = {"glu", "bilinear", "geglu", "swiglu", "reglu"}


def summaries(n: int = 4, sd: bool = True) -> dict[str, Summary]:
    return {arm: Summary(n=n, mean=mean, sd=s if sd else None) for arm, (mean, s) in SHORT.items()}


def found(gap: Gap | None) -> Gap:
    assert gap is not None
    return gap


def test_the_published_gap_of_shazeer() -> None:
    gap = found(find_summary_gap(summaries(), GATED))
    # (1.982 + 1.960 + 1.942 + 1.944 + 1.953) / 5 - (1.997 + 1.983 + 1.994) / 3
    assert gap.difference_nats == pytest.approx(1.9562 - 5.974 / 3, abs=1e-12)
    parts = [sd**2 / 4 / (25 if arm in GATED else 9) for arm, (_, sd) in SHORT.items()]
    df = sum(parts) ** 2 / sum(part**2 / 3 for part in parts)
    low, high = stats.t.interval(0.95, df, gap.difference_nats, math.sqrt(sum(parts)))
    assert gap.ci95 == pytest.approx((low, high), abs=1e-12)
    assert gap.sign == -1


def test_with_one_arm_a_side_it_is_welchs() -> None:
    rng = np.random.default_rng(1)
    a, b = rng.normal(1.0, 0.1, 5), rng.normal(2.0, 0.3, 9)
    given = {
        name: Summary(n=len(x), mean=float(x.mean()), sd=float(x.std(ddof=1)))
        for name, x in (("a", a), ("b", b))
    }
    expected = stats.ttest_ind(a, b, equal_var=False).confidence_interval(0.95)
    assert found(find_summary_gap(given, {"a"})).ci95 == pytest.approx(
        (expected.low, expected.high), abs=1e-12
    )


def test_an_assumed_noise_takes_the_place_of_sds() -> None:
    gap = found(find_summary_gap(summaries(n=1, sd=False), GATED, (0.0055, 24)))
    half = stats.t.ppf(0.975, 24) * 0.0055 * math.sqrt(5 / 25 + 3 / 9)
    assert gap.ci95 == pytest.approx((gap.difference_nats - half, gap.difference_nats + half), abs=1e-12)


def test_without_noise_there_is_no_interval_and_no_sign() -> None:
    gap = found(find_summary_gap(summaries(n=1, sd=False), GATED))
    assert (gap.ci95, gap.sign) == (None, 0)


def test_over_seeds_it_is_the_t_interval_of_each_seeds_gap() -> None:
    losses = {
        "geglu": {0: 1.00, 1: 1.10, 2: 1.04, 7: 5.0},
        "glu": {0: 1.20, 1: 1.22, 2: 1.27},
        "relu": {0: 1.30, 1: 1.33, 2: 1.36},
    }
    gap = found(find_gap(losses, GATED))
    gaps = [(1.00 + 1.20) / 2 - 1.30, (1.10 + 1.22) / 2 - 1.33, (1.04 + 1.27) / 2 - 1.36]
    low, high = stats.t.interval(0.95, 2, np.mean(gaps), stats.sem(gaps))
    assert gap.difference_nats == pytest.approx(np.mean(gaps), abs=1e-12)
    assert gap.ci95 == pytest.approx((low, high), abs=1e-12)
    assert gap.n_seeds == 3  # seed 7 is not every arm's


@pytest.mark.parametrize(
    ("losses", "n_seeds"),
    [
        ({"geglu": {0: 1.0}, "relu": {0: 2.0}}, 1),
        ({"geglu": {0: 1.0, 1: 1.0}, "relu": {2: 2.0}}, 0),
        ({"geglu": {0: 1.0, 1: 2.0}, "relu": {0: 2.0, 1: 3.0}}, 2),  # nothing varies
    ],
)
def test_a_gap_without_an_interval(losses: dict[str, dict[int, float]], n_seeds: int) -> None:
    gap = found(find_gap(losses, GATED))
    assert (gap.difference_nats, gap.ci95, gap.n_seeds) == (-1.0, None, n_seeds)


def test_arms_of_one_kind_have_no_gap() -> None:
    assert find_gap({"geglu": {0: 1.0}, "glu": {0: 2.0}}, GATED) is None
    assert find_summary_gap({"relu": Summary(n=4, mean=1.0, sd=0.1)}, GATED) is None


@pytest.mark.parametrize(("ci95", "sign"), [((0.1, 0.3), 1), ((-0.3, -0.1), -1), ((-0.1, 0.5), 0), (None, 0)])
def test_the_sign_is_said_only_where_the_interval_leaves_out_zero(
    ci95: tuple[float, float] | None, sign: int
) -> None:
    centre = 0.2 if ci95 is None else sum(ci95) / 2
    assert Gap(difference_nats=centre, ci95=ci95, n_seeds=3).sign == sign
