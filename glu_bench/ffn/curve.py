"""A variant's function as numbers to draw: values from the formula, slopes by autograd."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from glu_bench.ffn.activations import REDUCING
from glu_bench.ffn.formula import Formula

REACH = 4.0
N_OTHERS = 63  # hidden numbers that stand beside the one drawn, where a function reads them all


@dataclass(frozen=True, kw_only=True)
class Curve:
    """The function on the gate (of an ungated variant: its activation) at evenly spaced points."""

    of: str  # gate or activation
    x: list[float]
    values: list[float]
    slopes: list[float]


def sample_curve(formula: Formula, n_points: int = 321) -> Curve:
    """Values and derivatives of the variant's function on [-REACH, REACH], in fp64.

    At a kink the slope is the one training uses, for it is autograd's.
    """
    x = torch.linspace(-REACH, REACH, n_points, dtype=torch.float64)
    values, slopes = trace_function(formula, x)
    return Curve(
        of="gate" if formula.gated else "activation",
        x=x.tolist(),
        values=values.tolist(),
        slopes=slopes.tolist(),
    )


def trace_function(formula: Formula, x: Tensor) -> tuple[Tensor, Tensor]:
    """Values and slopes of the gate's function, clamps included, or of the activation.

    A function that reads the whole width is shown for one hidden number among others, which stay
    at the quantiles of N(0, 1).
    Shapes: all (N,).
    """
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        if is_pointwise(formula):
            values = formula.gate_part(x)
        else:
            shares = (torch.arange(N_OTHERS, dtype=x.dtype) + 0.5) / N_OTHERS
            others = torch.special.ndtri(shares).expand(len(x), N_OTHERS)
            values = formula.gate_part(torch.cat([x[:, None], others], dim=1))[:, 0]
        (slopes,) = torch.autograd.grad(values.sum(), x)
    return values.detach(), slopes


def is_pointwise(formula: Formula) -> bool:
    """Whether the function drawn depends on its own number alone; a norm after it does not count."""
    return (formula.spec.gate if formula.gated else formula.spec.activation) not in REDUCING
