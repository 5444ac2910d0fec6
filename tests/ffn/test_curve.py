"""Curves against formulas written out and finite differences."""

from __future__ import annotations

import math

import pytest
import torch

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
    x, values, slopes = (
        torch.tensor(row, dtype=torch.float64) for row in (curve.x, curve.values, curve.slopes)
    )
    smooth = torch.stack([(x - kink).abs() > 2 * h for kink in kinks]).all(0)[1:-1]
    assert smooth.sum() > 3900
    differences = (values[2:] - values[:-2]) / (2 * h)
    torch.testing.assert_close(slopes[1:-1][smooth], differences[smooth], rtol=0, atol=1e-5)
