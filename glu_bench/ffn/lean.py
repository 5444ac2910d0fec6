"""The feed-forward block as one differentiable step that keeps little for its backward pass.

Autograd keeps x, gate, up and hidden: D + 3F numbers a token if gated, D + 2F if not, and more
where the formula has several steps. This step keeps x and the fused projection, D + 2F and
D + F, and evaluates the formula once more in the backward pass, whose cost is small beside the
matrix multiplies. The derivative of the formula is autograd's own, so a variant needs no
backward of its own.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from glu_bench.ffn.formula import Formula


def lean_feedforward(
    x: Tensor,
    w_in: Tensor,
    b_in: Tensor | None,
    w_down: Tensor,
    b_down: Tensor | None,
    formula: Formula,
    learned: tuple[Tensor, ...] = (),
) -> Tensor:
    """down(hidden(x)), the numbers of the plain modules to rounding, in autocast's dtype under autocast.

    Differentiable once: a second derivative raises.
    Shapes: x (..., D); w_in (2F, D) or (F, D); w_down (D_out, F); learned () or (F,); result (..., D_out).
    """
    dtype = find_autocast_dtype(x)
    if dtype is not None:
        x, w_in, w_down = x.to(dtype), w_in.to(dtype), w_down.to(dtype)
        b_in = None if b_in is None else b_in.to(dtype)
        b_down = None if b_down is None else b_down.to(dtype)
    # all operands agree now; off, so that forward and backward evaluate the formula alike
    with without_autocast(x.device.type):
        y: Tensor = _LeanFeedForward.apply(formula, x, w_in, b_in, w_down, b_down, *learned)  # type: ignore[no-untyped-call]
    return y


def find_autocast_dtype(x: Tensor) -> torch.dtype | None:
    """What autocast would make of `x` in a matrix multiply; None where it is off, or leaves fp64 alone."""
    device_type = x.device.type
    if (
        torch.amp.is_autocast_available(device_type)
        and torch.is_autocast_enabled(device_type)
        and x.dtype != torch.float64
    ):
        return torch.get_autocast_dtype(device_type)
    return None


def without_autocast(device_type: str) -> AbstractContextManager[object]:
    """A block in which operations keep the dtype of their operands."""
    if torch.amp.is_autocast_available(device_type):
        return torch.autocast(device_type, enabled=False)
    return nullcontext()


def refuse_second_derivative() -> None:
    """Called in a backward pass that is not differentiable itself.

    torch's once_differentiable is silent while the gradient coming in is a constant.
    Raises: RuntimeError if the caller wants a graph of this backward pass.
    """
    # compiled, autograd runs this once while tracing, and torch refuses second derivatives itself
    if torch.is_grad_enabled() and not torch.compiler.is_compiling():
        raise RuntimeError("the lean steps have no second derivative; make the model with fast=False")


class _LeanFeedForward(torch.autograd.Function):
    """Forward and backward of `lean_feedforward`; N tokens in one row each."""

    @staticmethod
    def forward(ctx: Any, formula: Formula, *operands: Any) -> Tensor:
        # compiled without gradients, torch passes no ctx where it counts one argument more than are
        # named here (pytorch 2.13, AutogradFunctionVariable); so few names keep it from that
        x, w_in, b_in, w_down, b_down, *learned = operands
        parts = _project(x, w_in, b_in, formula)
        ctx.save_for_backward(x, w_in, w_down, *parts, *learned)
        ctx.formula = formula
        ctx.biased = b_in is not None
        return F.linear(formula.evaluate(*parts, *learned), w_down, b_down)

    @staticmethod
    def backward(ctx: Any, d_y: Tensor) -> tuple[Tensor | None, ...]:
        refuse_second_derivative()
        x, w_in, w_down, *rest = ctx.saved_tensors
        n_parts = ctx.formula.n_projections
        x_ND, d_y_ND = _rows(x), _rows(d_y)
        parts_NF = [_rows(part) for part in rest[:n_parts]]
        hidden_NF, pull = torch.func.vjp(ctx.formula.evaluate, *parts_NF, *rest[n_parts:])  # type: ignore[misc]
        d_w_down = d_y_ND.t() @ hidden_NF
        pulled = pull(d_y_ND @ w_down)
        d_parts_NF, d_learned = pulled[:n_parts], pulled[n_parts:]
        d_w_in = torch.cat([d_part_NF.t() @ x_ND for d_part_NF in d_parts_NF])
        weights_FD = w_in.chunk(n_parts)
        d_x_ND = d_parts_NF[0] @ weights_FD[0]
        for d_part_NF, weight_FD in zip(d_parts_NF[1:], weights_FD[1:], strict=True):
            d_x_ND = torch.addmm(d_x_ND, d_part_NF, weight_FD)
        d_b_in = torch.cat([d_part_NF.sum(0) for d_part_NF in d_parts_NF]) if ctx.biased else None
        d_b_down = d_y_ND.sum(0) if ctx.biased else None
        return None, d_x_ND.view(x.shape), d_w_in, d_b_in, d_w_down, d_b_down, *d_learned


def _project(x: Tensor, w_in: Tensor, b_in: Tensor | None, formula: Formula) -> tuple[Tensor, ...]:
    # gate and up apart: what follows then runs over whole tensors, which costs half of half rows
    n = formula.n_projections
    biases = (None,) * n if b_in is None else b_in.chunk(n)
    return tuple(F.linear(x, w, b) for w, b in zip(w_in.chunk(n), biases, strict=True))


def _rows(x: Tensor) -> Tensor:
    return x.reshape(-1, x.shape[-1])
