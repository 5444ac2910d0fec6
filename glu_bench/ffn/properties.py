"""What can be said of a variant's function in a few words, computed from the formula alone."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from glu_bench.ffn.curve import is_pointwise, trace_function
from glu_bench.ffn.formula import Formula
from glu_bench.ffn.moments import second_moment, zero_share

REACH = 15.0  # every kink and every least value of the family lies within
FAR = (1e2, 1e3, 1e4, 1e5, 1e6)
UNBOUNDED = 1e3  # a value beyond this at FAR has no bound


@dataclass(frozen=True, kw_only=True)
class Properties:
    """Facts about the gate's function (of an ungated variant: the activation) and about hidden.

    None where a function reads the whole width.
    """

    lower_bound: float | None  # None too where there is none
    upper_bound: float | None
    monotone: bool | None
    smoothness: str | None  # jump, kink, C1 (continuous slope, jumping curvature), smooth
    zero_share: float  # of hidden, for N(0, 1) projections
    second_moment: float  # E[hidden^2], for N(0, 1) projections


def find_properties(formula: Formula, d_ff: int) -> Properties:
    """Bounds, monotony, smoothness, share of zeros and second moment at the initial values.

    `d_ff` matters only where the formula reads the whole width.
    """
    lower, upper, monotone, smoothness = None, None, None, None
    if is_pointwise(formula):
        near = torch.linspace(-REACH, REACH, 300_001, dtype=torch.float64)
        far = torch.tensor(FAR, dtype=torch.float64)
        x = torch.cat([-far.flip(0), near, far])
        values, _ = trace_function(formula, x)
        lower = None if values.min() < -UNBOUNDED else values.min().item()
        upper = None if values.max() > UNBOUNDED else values.max().item()
        rounding = 1e-12 * values.abs().clamp(min=1.0)[1:]
        steps = values.diff()
        monotone = bool((steps >= -rounding).all() or (steps <= rounding).all())
        smoothness = _find_smoothness(formula)
    return Properties(
        lower_bound=lower,
        upper_bound=upper,
        monotone=monotone,
        smoothness=smoothness,
        zero_share=zero_share(formula, d_ff),
        second_moment=second_moment(formula, d_ff),
    )


def _find_smoothness(formula: Formula) -> str:
    """The lowest derivative that jumps: a difference that does not shrink with the step is a jump."""
    coarse, fine = (_greatest_differences(formula, step) for step in (1e-3, 1e-4))
    for word, wide, narrow in zip(("jump", "kink", "C1"), coarse, fine, strict=True):
        if narrow > 0.5 * wide and narrow > 1e-4:
            return word
    return "smooth"


def _greatest_differences(formula: Formula, step: float) -> tuple[float, float, float]:
    """Greatest change of value, slope and curvature between neighbours `step` apart."""
    n = round(2 * REACH / step)
    # a third of a step aside, so that no point falls on a kink
    x = -REACH + step * (torch.arange(n, dtype=torch.float64) + 1 / 3)
    values, slopes = trace_function(formula, x)
    curvatures: Tensor = slopes.diff() / step
    return tuple(v.diff().abs().max().item() for v in (values, slopes, curvatures))  # type: ignore[return-value]
