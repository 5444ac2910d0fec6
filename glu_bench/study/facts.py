"""Facts that need no run: what widths cost, and what an activation's function is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from glu_bench.config import read_variant
from glu_bench.ffn.curve import trace_function
from glu_bench.ffn.formula import load_variant
from glu_bench.ffn.matching import Receipt, match_width
from glu_bench.ffn.properties import Properties, find_properties
from glu_bench.schema import Match

D_MODEL = 768  # ratios of counts are the same at every width that 3 divides
GATED = ("glu", "bilinear", "reglu", "geglu", "swiglu")
D_FF = 8  # properties of functions that read one number each do not depend on it


@dataclass(frozen=True, kw_only=True)
class Fact:
    """A number and whether it is what was claimed."""

    value: float
    holds: bool
    note: str = ""


FindFact = Callable[[str | None], Fact]


def _receive(name: str, mode: str | None) -> Receipt:
    match = Match(mode=mode or "params", expansion=4.0, multiple_of=1, d_ff=None)
    return match_width(read_variant(name), D_MODEL, match, bias=False)


def count_input_weights(mode: str | None) -> Fact:
    """Weights of the input projections over those of the ungated one; claimed: 2.

    Gated 2 D F, ungated D F'. At equal width F = F': 2. At equal parameters F = 2/3 F': 4/3.
    """
    ungated = _receive("relu", mode)
    ratios = [2 * _receive(name, mode).d_ff / ungated.d_ff for name in GATED]
    return Fact(value=sum(ratios) / len(ratios), holds=all(abs(ratio - 2) < 0.01 for ratio in ratios))


def count_block_weights(mode: str | None) -> Fact:
    """Parameters of the whole feed-forward block over the ungated one's; claimed: 2.

    Gated 3 D F, ungated 2 D F'. At equal width 1.5, at equal parameters 1.
    """
    ungated = _receive("relu", mode)
    ratios = [_receive(name, mode).n_ffn_params / ungated.n_ffn_params for name in GATED]
    return Fact(value=sum(ratios) / len(ratios), holds=all(abs(ratio - 2) < 0.01 for ratio in ratios))


def count_block_flops(mode: str | None) -> Fact:
    """FLOPs of the block's matrix multiplies over the ungated one's; claimed: above 1."""
    ungated = _receive("relu", mode)
    ratios = [_receive(name, mode).flops_per_token / ungated.flops_per_token for name in GATED]
    return Fact(value=sum(ratios) / len(ratios), holds=all(ratio > 1.005 for ratio in ratios))


def find_gelu_negatives(mode: str | None) -> Fact:
    """The least value of GELU; claimed: on negatives small, below |x|/2 as Phi(x) < 1/2, and never 0."""
    x = -torch.linspace(0.001, 8.0, 8000, dtype=torch.float64)
    values, _ = trace_function(load_variant("gelu"), x)
    small, not_zero = bool((values.abs() < x.abs() / 2).all()), bool((values < 0).all())
    return Fact(value=values.min().item(), holds=small and not_zero, note="from -8 to 0, in fp64")


def find_tanh_error(mode: str | None) -> Fact:
    """Greatest |GELU - its tanh form|; close: below the step of bf16 at 1, 2^-8 = 0.0039."""
    x = torch.linspace(-10.0, 10.0, 200_001, dtype=torch.float64)
    exact, _ = trace_function(load_variant("gelu"), x)
    other, _ = trace_function(load_variant("gelu_tanh"), x)
    value = (exact - other).abs().max().item()
    return Fact(value=value, holds=value < 2**-8, note="close: below the step of bf16 at 1, 0.0039")


def _describe(name: str) -> Properties:
    return find_properties(load_variant(name), D_FF)


def find_swish_bound(mode: str | None) -> Fact:
    """The least value of Swish; claimed: -0.278 to its three digits, and no bound above."""
    found = _describe("swish")
    assert found.lower_bound is not None
    holds = abs(found.lower_bound + 0.278) <= 0.0005 and found.upper_bound is None
    return Fact(value=found.lower_bound, holds=holds, note="no bound above" if holds else "")


def find_swish_descent(mode: str | None) -> Fact:
    """How far Swish falls before it rises; claimed: it is not monotone."""
    found = _describe("swish")
    assert found.lower_bound is not None
    return Fact(value=-found.lower_bound, holds=found.monotone is False)


def find_swish_smoothness(mode: str | None) -> Fact:
    """The greatest step of Swish's slope over 1e-4; claimed: smooth."""
    return _measure_smoothness("swish")


def find_gelu_smoothness(mode: str | None) -> Fact:
    """The same of GELU; claimed: smooth, where ReLU has a kink."""
    fact = _measure_smoothness("gelu")
    relu = _measure_smoothness("relu")
    return Fact(value=fact.value, holds=fact.holds and not relu.holds, note=f"ReLU: {relu.value:.3g}")


def _measure_smoothness(name: str) -> Fact:
    x = torch.arange(-5.0, 5.0, 1e-4, dtype=torch.float64) + 1e-4 / 3
    _, slopes = trace_function(load_variant(name), x)
    return Fact(value=slopes.diff().abs().max().item(), holds=_describe(name).smoothness == "smooth")
