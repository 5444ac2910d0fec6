"""The decoder's loss, compiled region by region."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from glu_bench.lm.decoder import Decoder


def compile_decoder(model: Decoder) -> Callable[[Tensor, Tensor], Tensor]:
    """`model.nats` with each block compiled: one graph serves all layers."""
    for block in model.blocks:
        block.compile(dynamic=False)
    return model.nats
