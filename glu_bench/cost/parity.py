"""How far one way of computing a block is from another: output and every gradient."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor, nn

from glu_bench.device import make_autocast


def run_pass(
    call: Callable[[Tensor], Tensor],
    parameters: Iterable[nn.Parameter],
    x: Tensor,
    d_y: Tensor,
    precision: str,
) -> list[Tensor]:
    """The output, the gradient of the input and those of the parameters; they are cleared behind it."""
    x = x.detach().requires_grad_()
    with make_autocast(x.device.type, precision):
        y = call(x)
    y.backward(d_y.to(y.dtype))  # type: ignore[no-untyped-call]
    return [y.detach(), *take_gradients([x, *parameters])]


def find_difference(found: Sequence[Tensor], expected: Sequence[Tensor]) -> float | None:
    """The greatest of |found - expected| / |expected|, in norm tensor by tensor; None if not finite."""
    differences = []
    for a, b in zip(found, expected, strict=True):
        a64, b64 = a.double(), b.double()
        differences.append(float((a64 - b64).norm() / b64.norm().clamp(min=torch.finfo(torch.float32).tiny)))
    return max(differences) if all(map(math.isfinite, differences)) else None


def take_gradients(tensors: Iterable[Tensor]) -> list[Tensor]:
    """The gradient of each tensor, which has none afterwards."""
    gradients = []
    for tensor in tensors:
        assert tensor.grad is not None
        gradients.append(tensor.grad)
        tensor.grad = None
    return gradients
