"""Tensors and tiny models whose gates are known by hand."""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
from torch import Tensor

from glu_bench import schema
from glu_bench.data.prepared import TokenStream
from glu_bench.evaluate.held_out import HeldOutTokens
from glu_bench.evaluate.units import Units, add_tokens, make_sums, measure_units
from glu_bench.ffn.feedforward import make_feedforward
from glu_bench.ffn.formula import load_variant
from glu_bench.lm.decoder import Decoder
from glu_bench.lm.hidden import Parts
from glu_bench.lm.init import init_weights

SMALL = schema.Model(
    preset="made",
    d_model=8,
    n_layers=3,
    n_heads=2,
    seq_len=8,
    ffn_bias=False,
    tied_embeddings=False,
    dropout=0.0,
    rope_theta=10_000.0,
    norm_eps=1e-5,
)
N_IDS = 17


def make_small(name: str, d_ff: int = 12, seed: int = 0, bias: bool = False) -> Decoder:
    """A decoder of three blocks of width 8, in evaluation mode."""
    shape = dataclasses.replace(SMALL, ffn_bias=bias)
    model = Decoder(shape, load_variant(name), d_ff, N_IDS)
    init_weights(model, seed)
    return model.eval()


def make_head(n_tokens: int = 61, chunk_tokens: int = 4096, n_there: int = 80) -> HeldOutTokens:
    """The first tokens of a stream of random ids; the last of its windows of 8 is not full."""
    ids = np.random.default_rng(0).integers(0, N_IDS, n_there).astype(np.uint16)
    stream = TokenStream("val", ids, 1, n_there, 1)
    return HeldOutTokens(stream=stream, n_tokens=n_tokens, seq_len=8, chunk_tokens=chunk_tokens)


def measure(
    name: str, gate: Tensor, up: Tensor | None = None, hidden: Tensor | None = None, n_chunks: int = 1
) -> Units:
    """The measures of a variant's units for given projections; or for a given hidden state.

    Shapes: all (N, F).
    """
    ffn = make_feedforward(name, d_model=4, d_ff=gate.shape[1])
    formula, sums = ffn.hidden.formula, make_sums(ffn)
    up = torch.ones_like(gate) if up is None and formula.gated else up
    value, up_value = formula.gate_part(gate), None if up is None else formula.up_part(up)
    hidden = formula.combine(value, up_value) if hidden is None else hidden
    whole = (gate, value, hidden)
    for gate_NF, value_NF, hidden_NF in zip(*(part.chunk(n_chunks) for part in whole), strict=True):
        parts = Parts(
            gate=gate_NF[None], gate_value=value_NF[None], up_value=None, hidden=hidden_NF[None], learned={}
        )
        add_tokens(sums, formula, parts, torch.ones(1, len(gate_NF), dtype=torch.bool))
    return measure_units(sums)
