"""Saturation of every kind of gate, against slopes written out."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from scipy.stats import norm

from glu_bench.ffn.formula import list_variants, load_variant
from tests.evaluate.made import measure


def logit(share: float) -> float:
    return math.log(share / (1 - share))


def sigma(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def test_of_the_logistic_gate_it_is_sigma_below_5_and_above_95_percent() -> None:
    gate = torch.tensor([[logit(share) for share in (0.001, 0.049, 0.051, 0.5, 0.949, 0.951, 0.96, 0.999)]])
    found = measure("glu", gate)
    assert found.saturation_low == 2 / 8
    assert found.saturation_high == 3 / 8
    assert found.saturation == 5 / 8


SLOPES: dict[str, tuple[Callable[[float], float], float]] = {  # slope, steepest within [-1, 1]
    "relu": (lambda x: float(x > 0), 1.0),
    "reglu": (lambda x: float(x > 0), 1.0),
    "relu2": (lambda x: 2 * max(x, 0.0), 2.0),
    "tanh": (lambda x: 1 - math.tanh(x) ** 2, 1.0),
    "bilinear": (lambda x: 1.0, 1.0),
    "leaky_reglu": (lambda x: 1.0 if x > 0 else 0.01, 1.0),
    "swiglu": (lambda x: sigma(x) * (1 + x * (1 - sigma(x))), sigma(1) * (2 - sigma(1))),
    "gelu": (lambda x: norm.cdf(x) + x * norm.pdf(x), norm.cdf(1) + norm.pdf(1)),
    "softplus_glu": (sigma, sigma(1)),
    "elu": (lambda x: 1.0 if x > 0 else math.exp(x), 1.0),
}


@pytest.mark.parametrize("name", SLOPES)
def test_shares_are_those_of_the_slope_written_out(name: str) -> None:
    slope, steepest = SLOPES[name]
    grid = [-6 + 12 * (at + 0.5) / 480 for at in range(480)]
    flat = [x for x in grid if abs(slope(x)) <= 0.19 * steepest]
    found = measure(name, torch.tensor([grid]))
    place = 0 if name == "tanh" else 1  # where it is steepest; of relu and elu anywhere above 0
    assert found.saturation_low == pytest.approx(sum(x < place for x in flat) / 480)
    assert found.saturation_high == pytest.approx(sum(x > place for x in flat) / 480)
    assert found.zero_slope_share == pytest.approx(sum(slope(x) == 0 for x in grid) / 480)


def test_what_a_clamp_holds_is_saturated_high() -> None:
    found = measure("swiglu_clamp", torch.tensor([[1.0, 9.9, 10.1, 30.0]]))  # held at 10
    assert (found.saturation_low, found.saturation_high) == (0, 0.5)


@pytest.mark.parametrize("name", ["polynorm", "solu"])
def test_a_gate_that_reads_the_whole_width_has_none(name: str) -> None:
    found = measure(name, torch.randn(5, 8, generator=torch.Generator().manual_seed(0)))
    assert found.saturation is found.saturation_low is found.saturation_high is found.zero_slope_share is None
    assert found.dead_share == 0


@pytest.mark.parametrize("name", list_variants())
def test_every_variant_answers_somewhere(name: str) -> None:
    """Its two ends are shares of one whole, and not all of N(0, 1) is an end."""
    if load_variant(name).reduces and name != "reglu2_norm":
        return
    found = measure(name, torch.randn(100, 8, generator=torch.Generator().manual_seed(0)))
    assert found.saturation is not None
    assert found.saturation_low is not None
    assert found.saturation_high is not None
    assert found.saturation == pytest.approx(found.saturation_low + found.saturation_high)
    assert 0 <= found.saturation < 0.7
