"""Weighted sums of arms against scipy and the textbook's formula."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from glu_bench.stats.contrast import weigh_arms
from glu_bench.stats.interval import find_interval, find_p


def draw(k: int, n: int, sd: tuple[float, ...] = (), seed: int = 3) -> dict[str, dict[int, float]]:
    rng = np.random.default_rng(seed)
    sds = np.array([*sd, *[1.0] * (k - len(sd))])
    values = 100 + 5 * rng.standard_normal(n) + sds[:, None] * rng.standard_normal((k, n))
    return {f"arm{i}": {j: float(values[i, j]) for j in range(n)} for i in range(k)}


def test_two_arms_are_a_paired_t() -> None:
    values = draw(2, 5)
    found = weigh_arms(values, {"arm0": 1.0, "arm1": -1.0})
    witness = stats.ttest_rel([*values["arm0"].values()], [*values["arm1"].values()])
    assert found.contrast is not None
    low, high = witness.confidence_interval()
    interval = find_interval(found.difference, found.contrast.standard_error, found.contrast.df)
    assert interval == pytest.approx((low, high))
    t = found.difference / found.contrast.standard_error
    assert find_p(t, found.contrast.df) == pytest.approx(witness.pvalue)
    assert found.n_seeds == 5


def test_groups_have_the_error_of_complete_blocks() -> None:
    """sd sqrt(sum w^2 / n), sd from the residuals of the table of all five arms."""
    values = draw(5, 4)
    weights = {"arm0": 0.5, "arm1": 0.5, "arm4": -1.0}
    found = weigh_arms(values, weights)
    table = np.array([[*by_seed.values()] for by_seed in values.values()])
    residual = table - table.mean(1, keepdims=True) - table.mean(0, keepdims=True) + table.mean()
    sd = math.sqrt((residual**2).sum() / (4 * 3))
    means = table.mean(1)
    assert found.difference == pytest.approx((means[0] + means[1]) / 2 - means[4])
    assert found.contrast is not None
    assert found.contrast.standard_error == pytest.approx(sd * math.sqrt(1.5 / 4))
    assert found.contrast.df == 12
    assert found.test == "seed-blocked, 12 degrees of freedom"


def test_arms_that_do_not_vary_alike_answer_for_themselves() -> None:
    values = draw(4, 6, sd=(1e-3, 1e-3, 40.0))
    found = weigh_arms(values, {"arm0": 1.0, "arm1": -1.0})
    witness = stats.ttest_rel([*values["arm0"].values()], [*values["arm1"].values()])
    assert found.contrast is not None
    assert found.contrast.df == 5
    assert found.difference / found.contrast.standard_error == pytest.approx(witness.statistic)
    assert "own difference" in found.test


def test_a_level_is_a_t_of_each_seeds_mean() -> None:
    values = draw(3, 5)
    found = weigh_arms(values, {"arm0": 0.5, "arm1": 0.5})
    sums = [(values["arm0"][seed] + values["arm1"][seed]) / 2 for seed in range(5)]
    assert found.contrast is not None
    t = found.difference / found.contrast.standard_error
    assert t == pytest.approx(stats.ttest_1samp(sums, 0).statistic)


@pytest.mark.parametrize(
    ("values", "difference", "n", "why"),
    [
        ({"a": {0: 3.0}, "b": {0: 1.0}}, 2.0, 1, "one seed"),
        ({"a": {0: 3.0, 1: 4.0}, "b": {0: 1.0, 1: 2.0}}, 2.0, 2, "nothing estimates"),
        ({"a": {0: 3.0, 1: 5.0}, "b": {2: 1.0, 3: 2.0}}, 2.5, 0, "no seed in common"),
        ({"a": {0: 0.0, 1: 0.0}, "b": {0: 0.0, 1: 0.0}}, 0.0, 2, "nothing estimates"),
    ],
    ids=["one seed", "constant", "no common seed", "zeros"],
)
def test_without_noise_there_is_no_error(
    values: dict[str, dict[int, float]], difference: float, n: int, why: str
) -> None:
    found = weigh_arms(values, {"a": 1.0, "b": -1.0})
    assert (found.contrast, found.difference, found.n_seeds) == (None, difference, n)
    assert why in found.test
