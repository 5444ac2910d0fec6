"""A decoder-only language model shaped like Llama, with a pluggable feed-forward block.

Pre-norm RMSNorm, rotary positions, causal attention, no biases outside the feed-forward block.
`fast=False` leaves out every path that only makes it quicker or smaller: the numbers are equal
to rounding, and hooks of all parts run.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from glu_bench import schema
from glu_bench.ffn.feedforward import FeedForward
from glu_bench.ffn.formula import Formula, make_formula
from glu_bench.ffn.matching import match_width
from glu_bench.lm.attention import MAX_MATMUL_LEN, Attention, RMSNorm, make_future, make_rotary
from glu_bench.lm.head import Score, choose_loss, chunked_nats, score_chunk


class Block(nn.Module):
    """x + attention(norm(x)), then x + ffn(norm(x))."""

    def __init__(self, model: schema.Model, formula: Formula, d_ff: int, fast: bool = True) -> None:
        super().__init__()
        self.attention_norm = RMSNorm(model.d_model, model.norm_eps)
        self.attention = Attention(model.d_model, model.n_heads, fast)
        self.ffn_norm = RMSNorm(model.d_model, model.norm_eps)
        self.ffn = FeedForward(formula, model.d_model, d_ff, bias=model.ffn_bias, fast=fast)
        self.dropout = model.dropout

    def forward(self, x_BTD: Tensor, cos_TK: Tensor, sin_TK: Tensor, future_TT: Tensor) -> Tensor:
        """The residual stream after this block, same shape."""
        x_BTD = self.attend(x_BTD, cos_TK, sin_TK, future_TT)
        return x_BTD + self._drop(self.ffn(self.ffn_norm(x_BTD)))

    def attend(self, x_BTD: Tensor, cos_TK: Tensor, sin_TK: Tensor, future_TT: Tensor) -> Tensor:
        """The residual stream between attention and feed-forward, same shape."""
        mixed_BTD = self.attention(self.attention_norm(x_BTD), cos_TK, sin_TK, future_TT)
        return x_BTD + self._drop(mixed_BTD)

    def _drop(self, y_BTD: Tensor) -> Tensor:
        return F.dropout(y_BTD, self.dropout, self.training) if self.dropout else y_BTD


def call_block(block: Block, x_BTD: Tensor, cos_TK: Tensor, sin_TK: Tensor, future_TT: Tensor) -> Tensor:
    """block(...), as a function: lm/compiled.py puts a compiled one in its place."""
    y_BTD: Tensor = block(x_BTD, cos_TK, sin_TK, future_TT)
    return y_BTD


class Decoder(nn.Module):
    """Token ids to next-token logits."""

    def __init__(
        self,
        model: schema.Model,
        formula: Formula,
        d_ff: int,
        vocab_size: int,
        fast: bool = True,
        vocab_multiple: int = 1,
    ) -> None:
        super().__init__()
        self.config = model
        self.formula = formula
        self.d_ff = d_ff
        self.vocab_size = vocab_size
        self.fast = fast
        # rounded up; rows from V on belong to no id and are never predicted
        n_rows = -(-vocab_size // vocab_multiple) * vocab_multiple
        self.embedding = nn.Embedding(n_rows, model.d_model)
        self.blocks = nn.ModuleList(Block(model, formula, d_ff, fast) for _ in range(model.n_layers))
        self.norm = RMSNorm(model.d_model, model.norm_eps)
        self.head = nn.Linear(model.d_model, n_rows, bias=False)
        if model.tied_embeddings:
            self.head.weight = self.embedding.weight
        cos_TK, sin_TK = make_rotary(model.seq_len, model.d_model // model.n_heads, model.rope_theta)
        self.register_buffer("cos_TK", cos_TK, persistent=False)
        self.register_buffer("sin_TK", sin_TK, persistent=False)
        n_masked = min(model.seq_len, MAX_MATMUL_LEN)  # longer texts take SDPA, which brings its own mask
        self.register_buffer("future_TT", make_future(n_masked), persistent=False)

    def forward(self, tokens_BT: Tensor) -> Tensor:
        """Logits of the next token at every position.

        Shapes: tokens (B, T) int64, T at most seq_len; logits (B, T, V).
        """
        return self.logits(self.stream(tokens_BT))

    def stream(self, tokens_BT: Tensor, call: Callable[..., Tensor] = call_block) -> Tensor:
        """The residual stream after the last block, each block run by `call`. Shapes: (B, T) to (B, T, D)."""
        T = tokens_BT.shape[1]
        cos_TK: Tensor = self.cos_TK[:T]  # type: ignore[index]
        sin_TK: Tensor = self.sin_TK[:T]  # type: ignore[index]
        future_TT: Tensor = self.future_TT[:T, :T]  # type: ignore[index]
        x_BTD: Tensor = self.embedding(tokens_BT)
        for block in self.blocks:
            x_BTD = call(block, x_BTD, cos_TK, sin_TK, future_TT)
        return x_BTD

    def logits(self, x_BTD: Tensor) -> Tensor:
        """Logits read from the residual stream. Shapes: (B, T, D) to (B, T, V)."""
        logits_BTV: Tensor = self.head(self.norm(x_BTD))
        return logits_BTV[..., : self.vocab_size]

    def nats_from(self, x_BTD: Tensor, targets_BT: Tensor, score: Score = score_chunk) -> Tensor:
        """Loss of every target given the residual stream at its position, in nats, fp32 or above.

        `score` runs the pointwise part of a loss in chunks, see lm/head.py.
        """
        if choose_loss(targets_BT.numel(), self.vocab_size, self.fast) == "chunked":
            return chunked_nats(self.norm(x_BTD), self.head.weight, targets_BT, self.vocab_size, score)
        logits_BTV = self.logits(x_BTD)
        wide_BTV = logits_BTV.to(torch.promote_types(logits_BTV.dtype, torch.float32))
        flat = F.cross_entropy(
            wide_BTV.reshape(-1, self.vocab_size), targets_BT.reshape(-1), reduction="none"
        )
        return flat.view(targets_BT.shape)

    def nats(self, tokens_BT: Tensor, targets_BT: Tensor) -> Tensor:
        """Loss of every target given the tokens up to its own position, in nats, fp32 or above.

        Shapes: all (B, T).
        """
        return self.nats_from(self.stream(tokens_BT), targets_BT)


def make_decoder(config: schema.Config, vocab_size: int, fast: bool = True) -> Decoder:
    """The decoder that a configuration describes, its weights not yet drawn (see lm/init.py)."""
    receipt = match_width(config.variant, config.model.d_model, config.match, config.model.ffn_bias)
    formula, multiple = make_formula(config.variant), config.tokenizer.vocab_multiple
    return Decoder(config.model, formula, receipt.d_ff, vocab_size, fast, multiple)


def make_meta_decoder(config: schema.Config, vocab_size: int) -> Decoder:
    """The same decoder without memory for its weights, for counting."""
    with torch.device("meta"):
        return make_decoder(config, vocab_size)
