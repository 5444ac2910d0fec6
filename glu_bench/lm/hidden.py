"""How loud the hidden vectors of the feed-forward blocks are."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from glu_bench.lm.decoder import Decoder

N_SEQUENCES = 4  # a thousand tokens of a thousand numbers each say it to three digits


@torch.no_grad()
def measure_hidden_rms(model: Decoder, tokens_BT: Tensor) -> list[float]:
    """Root mean square of each block's hidden vectors, first block first, over at most 4 sequences.

    Shapes: tokens (B, T), int64.
    """
    rms: list[float] = []

    def listen(ffn: nn.Module, args: tuple[Tensor, ...]) -> None:
        hidden: Tensor = ffn.hidden(args[0])  # type: ignore[operator]
        # on the CPU, for Apple's GPUs have no fp64
        rms.append(hidden.cpu().double().square().mean().sqrt().item())

    hooks = [block.ffn.register_forward_pre_hook(listen) for block in model.blocks]  # type: ignore[union-attr]
    training = model.training
    model.eval()  # without dropout
    try:
        model.stream(tokens_BT[:N_SEQUENCES])
    finally:
        model.train(training)
        for hook in hooks:
            hook.remove()
    return rms
