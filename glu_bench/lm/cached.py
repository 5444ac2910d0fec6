"""The decoder a token at a time: keys and values of earlier positions are kept, not computed again.

The weights are the model's own; only the order of the work differs, so the logits are the
model's to rounding.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor

from glu_bench.lm.attention import Attention, rotate
from glu_bench.lm.decoder import Block, Decoder


class CachedDecoder:
    """A model and what it has read so far, at most seq_len tokens of one text.

    Positions are absolute within the window. Once the text is longer, every state of the window
    depends on which tokens fell out, so nothing kept is right any more: each further token is
    computed from the last seq_len tokens anew, as without a cache.
    """

    def __init__(self, model: Decoder) -> None:
        self.model = model
        self.tokens: list[int] = []
        shape = (1, model.config.n_heads, model.config.seq_len, model.config.d_model // model.config.n_heads)
        weight = model.embedding.weight
        self.keys = [weight.new_empty(shape) for _ in model.blocks]
        self.values = [weight.new_empty(shape) for _ in model.blocks]

    @torch.no_grad()
    def read(self, tokens: list[int]) -> Tensor:
        """Logits of the token that follows, after reading one or more tokens. Shape: (V,)."""
        n_before = len(self.tokens)
        self.tokens += tokens
        seq_len = self.model.config.seq_len
        device = self.model.embedding.weight.device
        if len(self.tokens) > seq_len:
            window_BT = torch.tensor([self.tokens[-seq_len:]], device=device)
            logits_BTV: Tensor = self.model(window_BT)
            return logits_BTV[0, -1]
        x_BTD = self.model.embedding(torch.tensor([tokens], device=device))
        for at in range(len(self.model.blocks)):
            x_BTD = self._step(at, x_BTD, n_before)
        logits_V: Tensor = self.model.logits(x_BTD[0, -1])
        return logits_V

    def _step(self, at: int, x_BTD: Tensor, n_before: int) -> Tensor:
        """One block over the new tokens, which see those before them. Shapes: x and result (1, T, D)."""
        block = cast(Block, self.model.blocks[at])
        attention: Attention = block.attention
        B, T, D = x_BTD.shape
        stop = n_before + T
        qkv = attention.qkv(block.attention_norm(x_BTD)).view(
            B, T, 3, attention.n_heads, attention.head_width
        )
        q_BHTK, k_BHTK, v_BHTK = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        cos_TK = cast(Tensor, self.model.cos_TK)[n_before:stop]
        sin_TK = cast(Tensor, self.model.sin_TK)[n_before:stop]
        self.keys[at][:, :, n_before:stop] = rotate(k_BHTK, cos_TK, sin_TK)
        self.values[at][:, :, n_before:stop] = v_BHTK
        scores_BHTS = rotate(q_BHTK, cos_TK, sin_TK) @ self.keys[at][:, :, :stop].transpose(-2, -1)
        future_TS = torch.ones(T, stop, dtype=torch.bool, device=x_BTD.device).triu(n_before + 1)
        scores_BHTS = (scores_BHTS * attention.head_width**-0.5).masked_fill(future_TS, float("-inf"))
        mixed_BHTK = torch.softmax(scores_BHTS, dim=-1) @ self.values[at][:, :, :stop]
        x_BTD = x_BTD + attention.out(mixed_BHTK.transpose(1, 2).reshape(B, T, D))
        y_BTD: Tensor = x_BTD + block.ffn(block.ffn_norm(x_BTD))
        return y_BTD
