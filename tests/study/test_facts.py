"""Facts against arithmetic and scipy."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import optimize, special
from scipy import stats as scipy_stats

from glu_bench.study import facts


@pytest.mark.parametrize(
    ("find", "mode", "value", "holds"),
    [
        (facts.count_input_weights, "width", 2.0, True),
        (facts.count_input_weights, "params", 4 / 3, False),
        (facts.count_block_weights, "width", 1.5, False),
        (facts.count_block_weights, "params", 1.0, False),
        (facts.count_block_flops, "width", 1.5, True),
        (facts.count_block_flops, "params", 1.0, False),
    ],
)
def test_gated_counts_over_ungated_ones(find: facts.FindFact, mode: str, value: float, holds: bool) -> None:
    fact = find(mode)
    assert (fact.value, fact.holds) == (pytest.approx(value, rel=1e-12), holds)


def test_swish_falls_to_minus_w_of_one_over_e() -> None:
    """x sigma(x) is least where x = -1 - W(1/e), and there it is -W(1/e)."""
    least = -special.lambertw(1 / math.e).real
    fact = facts.find_swish_bound(None)
    assert fact.holds
    assert fact.value == pytest.approx(least, abs=1e-8)
    assert facts.find_swish_descent(None) == facts.Fact(value=pytest.approx(-least, abs=1e-8), holds=True)


def test_gelu_is_small_and_not_zero_below_zero() -> None:
    found = optimize.minimize_scalar(lambda x: x * scipy_stats.norm.cdf(x), bounds=(-3, 0), method="bounded")
    fact = facts.find_gelu_negatives(None)
    assert fact.holds
    assert fact.value == pytest.approx(found.fun, abs=1e-6)


def test_the_tanh_form_is_within_half_a_thousandth() -> None:
    x = np.linspace(-10, 10, 100_001)
    tanh_form = 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
    greatest = np.abs(tanh_form - x * scipy_stats.norm.cdf(x)).max()
    fact = facts.find_tanh_error(None)
    assert fact.holds
    assert fact.value == pytest.approx(greatest, rel=1e-4)
    assert 4e-4 < fact.value < 5e-4


def test_smooth_slopes_step_by_curvature_times_the_step() -> None:
    """Greatest curvature: of Swish 1/2, of GELU 2 phi(0) = sqrt(2/pi), both at 0."""
    assert facts.find_swish_smoothness(None).value == pytest.approx(0.5e-4, rel=1e-3)
    gelu = facts.find_gelu_smoothness(None)
    assert gelu.value == pytest.approx(math.sqrt(2 / math.pi) * 1e-4, rel=1e-3)
    assert gelu.holds
    assert gelu.note == "ReLU: 1"
