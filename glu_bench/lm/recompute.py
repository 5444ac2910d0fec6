"""Blocks that are computed once more in the backward pass, for less memory: activation checkpointing.

A block then keeps its input alone. The numbers are those of the block that keeps everything,
dropout included. Source: Chen et al. 2016, arXiv 1604.06174.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint


def recompute_blocks(call: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """A way to run a block that gives what `call` gives and keeps only what goes into it."""

    def call_twice(*arguments: object) -> Tensor:
        if not torch.is_grad_enabled():
            return call(*arguments)
        y_BTD: Tensor = checkpoint(call, *arguments, use_reentrant=False)
        return y_BTD

    return call_twice
