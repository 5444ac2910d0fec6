"""What a feed-forward block keeps of each token until the backward pass."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from glu_bench.ffn.feedforward import FeedForward
from glu_bench.ffn.formula import Formula


def count_saved_bytes(
    formula: Formula, d_model: int, d_ff: int, dtype: torch.dtype, *, bias: bool = False, fast: bool = True
) -> int:
    """Bytes a token that one block keeps for its backward pass, before any compiler.

    Counted from the tensors that autograd is handed, on the meta device, where nothing is
    computed; weights, which are there anyway, drop out of the difference of two token counts.
    """
    with torch.device("meta"):
        block = FeedForward(formula, d_model, d_ff, bias=bias, fast=fast).to(dtype)
        few, more = (_count(block, torch.empty(n, d_model, dtype=dtype, requires_grad=True)) for n in (2, 4))
    return (more - few) // 2


def _count(block: FeedForward, x_BD: Tensor) -> int:
    return sum(tensor.untyped_storage().nbytes() for tensor in list_kept(lambda: block(x_BD)))


def measure_saved_bytes(run: Callable[[], object], n_tokens: int) -> float:
    """Bytes a token that a forward pass keeps for the backward pass, as it runs, compiled or not.

    A compiler decides anew what it keeps. Tensors count if one of their axes is that of the
    tokens, so no width may be equal to `n_tokens`.
    """
    kept = [tensor for tensor in list_kept(run) if n_tokens in tensor.shape]
    return sum(tensor.untyped_storage().nbytes() for tensor in kept) / n_tokens


def list_kept(run: Callable[[], object]) -> list[Tensor]:
    """A tensor of each storage that autograd is handed for the backward pass, weights among them."""
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage()._cdata] = tensor  # held, so that no other storage takes its number
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        run()
    return list(kept.values())
