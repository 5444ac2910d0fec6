"""A decoder-only language model shaped like Llama, with a pluggable feed-forward block.

Pre-norm RMSNorm, rotary positions, causal attention, no biases outside the feed-forward block.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from glu_bench import schema
from glu_bench.ffn.feedforward import FeedForward
from glu_bench.ffn.formula import Formula, make_formula
from glu_bench.ffn.matching import match_width
from glu_bench.lm.attention import Attention, RMSNorm, make_rotary


class Block(nn.Module):
    """x + attention(norm(x)), then x + ffn(norm(x))."""

    def __init__(self, model: schema.Model, formula: Formula, d_ff: int) -> None:
        super().__init__()
        self.attention_norm = RMSNorm(model.d_model, model.norm_eps)
        self.attention = Attention(model.d_model, model.n_heads)
        self.ffn_norm = RMSNorm(model.d_model, model.norm_eps)
        self.ffn = FeedForward(formula, model.d_model, d_ff, bias=model.ffn_bias)
        self.dropout = model.dropout

    def forward(self, x_BTD: Tensor, cos_TK: Tensor, sin_TK: Tensor) -> Tensor:
        """The residual stream after this block, same shape."""
        mixed_BTD = self.attention(self.attention_norm(x_BTD), cos_TK, sin_TK)
        x_BTD = x_BTD + self._drop(mixed_BTD)
        return x_BTD + self._drop(self.ffn(self.ffn_norm(x_BTD)))

    def _drop(self, y_BTD: Tensor) -> Tensor:
        return F.dropout(y_BTD, self.dropout, self.training) if self.dropout else y_BTD


class Decoder(nn.Module):
    """Token ids to next-token logits."""

    def __init__(self, model: schema.Model, formula: Formula, d_ff: int, vocab_size: int) -> None:
        super().__init__()
        self.config = model
        self.formula = formula
        self.d_ff = d_ff
        self.vocab_size = vocab_size
        self.embedding = nn.Embedding(vocab_size, model.d_model)
        self.blocks = nn.ModuleList(Block(model, formula, d_ff) for _ in range(model.n_layers))
        self.norm = RMSNorm(model.d_model, model.norm_eps)
        self.head = nn.Linear(model.d_model, vocab_size, bias=False)
        if model.tied_embeddings:
            self.head.weight = self.embedding.weight
        cos_TK, sin_TK = make_rotary(model.seq_len, model.d_model // model.n_heads, model.rope_theta)
        self.register_buffer("cos_TK", cos_TK, persistent=False)
        self.register_buffer("sin_TK", sin_TK, persistent=False)

    def forward(self, tokens_BT: Tensor) -> Tensor:
        """Logits of the next token at every position.

        Shapes: tokens (B, T) int64, T at most seq_len; logits (B, T, V).
        """
        T = tokens_BT.shape[1]
        cos_TK: Tensor = self.cos_TK[:T]  # type: ignore[index]
        sin_TK: Tensor = self.sin_TK[:T]  # type: ignore[index]
        x_BTD = self.embedding(tokens_BT)
        for block in self.blocks:
            x_BTD = block(x_BTD, cos_TK, sin_TK)
        logits_BTV: Tensor = self.head(self.norm(x_BTD))
        return logits_BTV

    def nats(self, tokens_BT: Tensor, targets_BT: Tensor) -> Tensor:
        """Loss of every target given the tokens up to its own position, in nats, fp32.

        Shapes: all (B, T).
        """
        logits_BTV = self(tokens_BT).float()
        flat = F.cross_entropy(logits_BTV.view(-1, self.vocab_size), targets_BT.reshape(-1), reduction="none")
        return flat.view(targets_BT.shape)


def make_decoder(config: schema.Config, vocab_size: int) -> Decoder:
    """The decoder that a configuration describes, its weights not yet drawn (see lm/init.py)."""
    receipt = match_width(config.variant, config.model.d_model, config.match, config.model.ffn_bias)
    return Decoder(config.model, make_formula(config.variant), receipt.d_ff, vocab_size)


def make_meta_decoder(config: schema.Config, vocab_size: int) -> Decoder:
    """The same decoder without memory for its weights, for counting."""
    with torch.device("meta"):
        return make_decoder(config, vocab_size)
