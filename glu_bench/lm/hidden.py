"""What happens inside the feed-forward blocks of a decoder, seen or replaced block by block."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from glu_bench.ffn.feedforward import FeedForward
from glu_bench.lm.decoder import Block, Decoder

N_SEQUENCES = 4  # a thousand tokens of a thousand numbers each say it to three digits

Feed = Callable[[int, FeedForward, Tensor], Tensor]  # (layer, its block, x_BTD) -> y_BTD


@dataclass(frozen=True, kw_only=True)
class Parts:
    """One feed-forward block taken apart at some tokens.

    Shapes: all (B, T, F); learned () or (F,).
    """

    gate: Tensor  # the projection that the gate's function takes; of an ungated variant the only one
    gate_value: Tensor  # what that function, or the activation, makes of it
    up_value: Tensor | None  # None without a gate
    hidden: Tensor
    learned: dict[str, Tensor]  # by argument


def list_ffns(model: Decoder) -> list[FeedForward]:
    """The feed-forward blocks, first block first."""
    return [block.ffn for block in model.blocks]  # type: ignore[misc]


def take_apart(ffn: FeedForward, x_BTD: Tensor) -> Parts:
    """Projections, gate and hidden vectors of a block, by the plain operations."""
    formula = ffn.hidden.formula
    gate, *up = ffn.hidden.in_proj(x_BTD).chunk(formula.n_projections, dim=-1)
    learned = formula.name_learned(gate.dtype, ffn.hidden.list_learned())
    gate_value = formula.gate_part(gate, learned)
    up_value = formula.up_part(up[0], learned) if up else None
    hidden = formula.combine(gate_value, up_value, learned)
    return Parts(gate=gate, gate_value=gate_value, up_value=up_value, hidden=hidden, learned=learned)


@torch.no_grad()
def stream_through(model: Decoder, tokens_BT: Tensor, feed: Feed) -> Tensor:
    """The residual stream after the last block if `feed` stands for every feed-forward block.

    Without dropout, eagerly, in the dtype of the weights; no hook, so compiled graphs stay valid.
    Shapes: (B, T) int64 to (B, T, D).
    """
    layers = {id(block): layer for layer, block in enumerate(model.blocks)}

    def call(block: Block, x_BTD: Tensor, cos_TK: Tensor, sin_TK: Tensor, future_TT: Tensor) -> Tensor:
        x_BTD = block.attend(x_BTD, cos_TK, sin_TK, future_TT)
        return x_BTD + feed(layers[id(block)], block.ffn, block.ffn_norm(x_BTD))

    training = model.training
    model.eval()
    try:
        return model.stream(tokens_BT, call)
    finally:
        model.train(training)


def measure_hidden_rms(model: Decoder, tokens_BT: Tensor) -> list[float]:
    """Root mean square of each block's hidden vectors, first block first, over at most 4 sequences.

    Shapes: tokens (B, T), int64.
    """
    rms: list[float] = []

    def feed(_layer: int, ffn: FeedForward, x_BTD: Tensor) -> Tensor:
        hidden: Tensor = ffn.hidden(x_BTD)
        # on the CPU, for Apple's GPUs have no fp64
        rms.append(hidden.cpu().double().square().mean().sqrt().item())
        y_BTD: Tensor = ffn.down(hidden)
        return y_BTD

    stream_through(model, tokens_BT[:N_SEQUENCES], feed)
    return rms
