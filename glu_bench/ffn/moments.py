"""Moments and shares of a formula for standard normal projections, by quadrature."""

from __future__ import annotations

import functools
import math

import torch
from torch import Tensor

from glu_bench.ffn.formula import Formula

REACH = 12.0  # beyond 12 standard deviations lies 4e-33
N_POINTS = 48_000  # even: kinks at 0 and the clamps fall between two points
N_DRAWS = 2**20  # hidden numbers drawn where a formula reads the whole width


def second_moment(formula: Formula, d_ff: int) -> float:
    """E[hidden^2] for independent N(0, 1) projections, learned arguments at their initial values.

    Where the formula reads the whole width, the mean over drawn vectors of that width.
    """
    if formula.reduces:
        return formula.hidden(*_draw(formula.n_projections, d_ff)).square().mean().item()
    x, weight = _normal_grid()
    moment = (weight * formula.gate_part(x).square()).sum()
    if formula.gated:
        moment = moment * (weight * formula.up_part(x).square()).sum() * formula.spec.mult**2
    return moment.item()


def zero_share(formula: Formula, d_ff: int) -> float:
    """Share of hidden numbers that are exactly 0 in fp64 for independent N(0, 1) projections."""
    if formula.reduces:
        return (formula.hidden(*_draw(formula.n_projections, d_ff)) == 0).double().mean().item()
    x, weight = _normal_grid()
    other = 1.0 - (weight * (formula.gate_part(x) == 0)).sum().item()
    if formula.gated:
        other *= 1.0 - (weight * (formula.up_part(x) == 0)).sum().item()
    return 1.0 - other


@functools.cache
def _normal_grid() -> tuple[Tensor, Tensor]:
    """Points and probabilities of N(0, 1), in the middle of equal cells."""
    edges = torch.linspace(-REACH, REACH, N_POINTS + 1, dtype=torch.float64)
    x = 0.5 * (edges[1:] + edges[:-1])
    weight = torch.exp(-0.5 * x.square()) / math.sqrt(2 * math.pi)
    return x, weight / weight.sum()


def _draw(n_projections: int, d_ff: int) -> list[Tensor]:
    """Projections (N, d_ff) of about N_DRAWS numbers, the same at every call."""
    generator = torch.Generator().manual_seed(0)
    shape = (max(1, N_DRAWS // d_ff), d_ff)
    return [torch.randn(shape, dtype=torch.float64, generator=generator) for _ in range(n_projections)]
