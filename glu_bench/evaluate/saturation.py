"""Where a gate no longer answers to its input: one definition for every variant.

The gate is what `Formula.gate_part` computes: the gate's function with its clamps, or the
activation of an ungated variant. It is saturated where its slope is at most 0.19 of the
steepest slope it has for inputs within [-1, 1], which is where initial weights put most gates;
low where the input lies below the steepest point, high above it. For the logistic function
this says sigma < 0.05 or sigma > 0.95 exactly, as sigma' = sigma (1 - sigma) has its greatest
value 1/4 at 0 and 4 * 0.05 * 0.95 = 0.19; tanh has the same two ends. ReLU is saturated for
every negative input and SiLU from where its slope has almost gone (below -0.75); neither has a
high end, as an unbounded gate never stops answering, and one held by a clamp has. The
identity is never saturated. Source: saturation as vanishing slope, Glorot & Bengio 2010,
section 3; the ends as shares, Karpathy, Johnson & Fei-Fei 2015, arXiv 1506.02078, who
take 0.1 and 0.9.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from glu_bench.ffn.curve import is_pointwise
from glu_bench.ffn.formula import Formula

FLAT = 4 * 0.05 * 0.95
REACH = 1.0  # one standard deviation of a gate under fan-in weights
N_POINTS = 201


@dataclass(frozen=True, kw_only=True)
class Steepest:
    """The greatest |slope| of a gate within [-1, 1], and where it is. Shapes: (F,)."""

    slope: Tensor
    at: Tensor


def find_slopes(formula: Formula, gate: Tensor, learned: Mapping[str, Tensor]) -> Tensor:
    """d gate_part / d gate, each number by itself, as training has it; of the same shape as `gate`."""
    fixed = {argument: value.detach() for argument, value in learned.items()}
    with torch.enable_grad():
        gate = gate.detach().clone().requires_grad_()
        (slopes,) = torch.autograd.grad(formula.gate_part(gate, fixed).sum(), gate)
    return slopes


def find_steepest(formula: Formula, learned: Mapping[str, Tensor], like: Tensor) -> Steepest | None:
    """The yardstick of saturation at these learned arguments; None if the gate reads the whole width.

    `like` gives width (its last dimension), dtype and device.
    """
    if not is_pointwise(formula):
        return None
    grid_G = torch.linspace(-REACH, REACH, N_POINTS, dtype=like.dtype, device=like.device)
    grid_GF = grid_G[:, None].expand(N_POINTS, like.shape[-1])
    steepness_GF = find_slopes(formula, grid_GF, learned).abs()
    slope_F, place_F = steepness_GF.max(dim=0)
    return Steepest(slope=slope_F, at=grid_G[place_F])
