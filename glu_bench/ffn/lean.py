"""The feed-forward block as one differentiable step that keeps little for its backward pass.

Autograd keeps x, gate, up and hidden: D + 3F numbers a token if gated, D + 2F if not, and more
where the formula has several steps. This step keeps x and the fused projection, D + 2F and
D + F, and evaluates the formula once more in the backward pass, whose cost is small beside the
matrix multiplies. The derivative of the formula is autograd's own, so a variant needs no
backward of its own.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from glu_bench.ffn.formula import Formula


def lean_feedforward(
    x: Tensor, w_in: Tensor, b_in: Tensor | None, w_down: Tensor, b_down: Tensor | None, formula: Formula
) -> Tensor:
    """down(hidden(x)), the numbers of the plain modules to rounding, in autocast's dtype under autocast.

    Differentiable once: a second derivative raises.
    Shapes: x (..., D); w_in (2F, D) or (F, D); w_down (D_out, F); result (..., D_out).
    """
    device_type = x.device.type
    if torch.is_autocast_enabled(device_type) and x.dtype != torch.float64:
        dtype = torch.get_autocast_dtype(device_type)
        x, w_in, w_down = x.to(dtype), w_in.to(dtype), w_down.to(dtype)
        b_in = None if b_in is None else b_in.to(dtype)
        b_down = None if b_down is None else b_down.to(dtype)
    # all operands agree now; off, so that forward and backward evaluate the formula alike
    with torch.autocast(device_type, enabled=False):
        y: Tensor = _LeanFeedForward.apply(x, w_in, b_in, w_down, b_down, formula)  # type: ignore[no-untyped-call]
    return y


class _LeanFeedForward(torch.autograd.Function):
    """Forward and backward of `lean_feedforward`; N tokens in one row each."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        w_in: Tensor,
        b_in: Tensor | None,
        w_down: Tensor,
        b_down: Tensor | None,
        formula: Formula,
    ) -> Tensor:
        projected = F.linear(x, w_in, b_in)
        ctx.save_for_backward(x, projected, w_in, w_down)
        ctx.formula = formula
        ctx.biased = b_in is not None
        return F.linear(formula.hidden(*_parts(projected, formula)), w_down, b_down)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_y: Tensor) -> tuple[Tensor | None, ...]:
        x, projected, w_in, w_down = ctx.saved_tensors
        x_ND, d_y_ND = x.flatten(0, -2), d_y.flatten(0, -2)
        parts_NF = _parts(projected.flatten(0, -2), ctx.formula)
        hidden_NF, pull = torch.func.vjp(ctx.formula.hidden, *parts_NF)  # type: ignore[misc]
        d_w_down = d_y_ND.t() @ hidden_NF
        d_projected_NF = torch.cat(pull(d_y_ND @ w_down), dim=-1)
        d_w_in = d_projected_NF.t() @ x_ND
        d_x = (d_projected_NF @ w_in).view(x.shape) if ctx.needs_input_grad[0] else None
        d_b_in = d_projected_NF.sum(0) if ctx.biased else None
        d_b_down = d_y_ND.sum(0) if ctx.biased else None
        return d_x, d_w_in, d_b_in, d_w_down, d_b_down, None


def _parts(projected: Tensor, formula: Formula) -> tuple[Tensor, ...]:
    return projected.chunk(2, dim=-1) if formula.gated else (projected,)
