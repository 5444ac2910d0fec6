"""A variant's function as numbers to draw: values from the formula, slopes by autograd."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from glu_bench.ffn.formula import Formula


@dataclass(frozen=True, kw_only=True)
class Curve:
    """The function on the gate (of an ungated variant: its activation) at evenly spaced points."""

    of: str  # gate or activation
    x: list[float]
    values: list[float]
    slopes: list[float]


def sample_curve(formula: Formula, low: float = -4.0, high: float = 4.0, n_points: int = 321) -> Curve:
    """Values and derivatives of the variant's function on [low, high], in fp64.

    At a kink the slope is the one training uses, for it is autograd's.
    """
    with torch.enable_grad():
        x = torch.linspace(low, high, n_points, dtype=torch.float64, requires_grad=True)
        values = formula.on_gate(x)
        (slopes,) = torch.autograd.grad(values.sum(), x)
    return Curve(
        of="gate" if formula.gated else "activation",
        x=x.detach().tolist(),
        values=values.detach().tolist(),
        slopes=slopes.tolist(),
    )
