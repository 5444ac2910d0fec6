"""Parameters and FLOPs of a decoder, counted without making it."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from glu_bench import schema
from glu_bench.ffn.formula import make_formula
from glu_bench.ffn.matching import match_width
from glu_bench.ffn.saved import count_saved_bytes
from glu_bench.lm.decoder import make_meta_decoder


@dataclass(frozen=True, kw_only=True)
class Counts:
    """What a model of one configuration weighs."""

    n_params: int  # all of them, a tied matrix once
    n_ffn_params: int  # all feed-forward blocks
    d_ff: int
    match_residual: float  # of a block's parameters against the ungated baseline's
    flops_per_token: int  # forward and backward, matrix multiplies alone
    forward_flops_per_token: int
    ffn_saved_bytes_per_token: int  # that all feed-forward blocks keep for the backward pass


def count_model(config: schema.Config, vocab_size: int) -> Counts:
    """Parameters, training FLOPs per token, and what the feed-forward keeps of each token.

    FLOPs: 2 a weight of every matrix that multiplies (the embedding is a look-up), and
    attention in full, 2 T D for the scores and as much for the mixing, per layer; the backward
    pass costs twice the forward.
    """
    model = config.model
    decoder = make_meta_decoder(config, vocab_size)
    receipt = match_width(config.variant, model.d_model, config.match, model.ffn_bias)
    matrices = sum(
        parameter.numel()
        for name, parameter in decoder.named_parameters()
        if parameter.dim() == 2 and name != "embedding.weight"
    )
    if model.tied_embeddings:
        matrices += decoder.head.weight.numel()  # the shared matrix multiplies as the head
    formula = make_formula(config.variant)
    dtype = torch.bfloat16 if config.train.precision == "bf16" else torch.float32
    saved = count_saved_bytes(
        formula, model.d_model, receipt.d_ff, dtype, bias=model.ffn_bias, fast=config.train.fast
    )
    forward = 2 * matrices + model.n_layers * 4 * model.seq_len * model.d_model
    return Counts(
        n_params=sum(parameter.numel() for parameter in decoder.parameters()),
        n_ffn_params=model.n_layers * receipt.n_ffn_params,
        d_ff=receipt.d_ff,
        match_residual=receipt.residual,
        flops_per_token=3 * forward,
        forward_flops_per_token=forward,
        ffn_saved_bytes_per_token=model.n_layers * saved,
    )
