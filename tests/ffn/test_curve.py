"""Curves against formulas written out and finite differences."""

from __future__ import annotations

import math

import pytest

from glu_bench.ffn.curve import sample_curve
from glu_bench.ffn.formula import list_variants, load_variant


def test_silu_written_out() -> None:
    curve = sample_curve(load_variant("swiglu"))
    assert curve.of == "gate"
    for x, value, slope in zip(curve.x, curve.values, curve.slopes, strict=True):
        sigma = 1 / (1 + math.exp(-x))
        assert value == pytest.approx(x * sigma, abs=1e-12)
        assert slope == pytest.approx(sigma + x * sigma * (1 - sigma), abs=1e-12)


@pytest.mark.parametrize("name", list_variants())
def test_slopes_are_those_of_finite_differences(name: str) -> None:
    curve = sample_curve(load_variant(name), n_points=4001)
    h = curve.x[1] - curve.x[0]
    kinks = (0.0, 0.03, 3.0, -3.0)
    for i in range(1, 4000):
        if all(abs(curve.x[i] - kink) > 2 * h for kink in kinks):
            difference = (curve.values[i + 1] - curve.values[i - 1]) / (2 * h)
            assert curve.slopes[i] == pytest.approx(difference, abs=1e-5)
