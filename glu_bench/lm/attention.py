"""Causal self-attention with rotary positions.

Two paths give the same numbers to rounding: plain matrix multiplies, and torch's
scaled_dot_product_attention. Which is faster depends on device and length; see
`choose_attention`.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

CHUNK = 64  # queries a chunk of `attend_by_matmul`


class RMSNorm(nn.Module):
    """x over its root mean square, times a learned gain. Source: arXiv 1910.07467.

    The mean is taken in fp32 whatever the input's dtype, as Llama does.
    """

    def __init__(self, d_model: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(d_model))
        self.eps = eps

    def forward(self, x_BTD: Tensor) -> Tensor:
        """The normalised input, same shape and dtype."""
        x_fp32 = x_BTD.float()
        scale = torch.rsqrt(x_fp32.pow(2).mean(-1, keepdim=True) + self.eps)
        return (x_fp32 * scale * self.weight).to(x_BTD.dtype)


def make_rotary(seq_len: int, head_width: int, theta: float) -> tuple[Tensor, Tensor]:
    """Cosines and sines of the rotary embedding, fp32.

    Shapes: both (T, K), the K/2 frequencies standing there twice.
    Source: Su et al. 2021, arXiv 2104.09864, in the half-split layout of Llama.
    """
    frequency = theta ** -(torch.arange(0, head_width, 2, dtype=torch.float64) / head_width)
    angle_TK = torch.outer(torch.arange(seq_len, dtype=torch.float64), frequency).repeat(1, 2)
    return angle_TK.cos().float(), angle_TK.sin().float()


def rotate(x_BHTK: Tensor, cos_TK: Tensor, sin_TK: Tensor) -> Tensor:
    """Queries or keys with their positions rotated in, same shape and dtype."""
    left, right = x_BHTK.chunk(2, dim=-1)
    turned = torch.cat((-right, left), dim=-1)
    return (x_BHTK * cos_TK + turned * sin_TK).to(x_BHTK.dtype)


def choose_attention(device_type: str, seq_len: int) -> str:
    """ "matmul" or "sdpa", whichever `glu-bench bench step` found faster there.

    On CPU the flash kernel behind SDPA costs more than the whole T x T matrix up to 512
    tokens; beyond, and on every GPU, memory decides for SDPA.
    """
    return "matmul" if device_type == "cpu" and seq_len <= 512 else "sdpa"


class Attention(nn.Module):
    """Multi-head causal attention without biases; Q, K and V come from one projection."""

    def __init__(self, d_model: int, n_heads: int) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.head_width = d_model // n_heads
        self.qkv = nn.Linear(d_model, 3 * d_model, bias=False)
        self.out = nn.Linear(d_model, d_model, bias=False)

    def forward(self, x_BTD: Tensor, cos_TK: Tensor, sin_TK: Tensor) -> Tensor:
        """What each token gathers from itself and those before it. Shapes: x and result (B, T, D)."""
        B, T, D = x_BTD.shape
        qkv = self.qkv(x_BTD).view(B, T, 3, self.n_heads, self.head_width)
        q_BHTK, k_BHTK, v_BHTK = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        q_BHTK = rotate(q_BHTK, cos_TK, sin_TK)
        k_BHTK = rotate(k_BHTK, cos_TK, sin_TK)
        if choose_attention(x_BTD.device.type, T) == "sdpa":
            mixed_BHTK = F.scaled_dot_product_attention(q_BHTK, k_BHTK, v_BHTK, is_causal=True)
        else:
            mixed_BHTK = attend_by_matmul(q_BHTK, k_BHTK, v_BHTK)
        y_BTD: Tensor = self.out(mixed_BHTK.transpose(1, 2).reshape(B, T, D))
        return y_BTD


def attend_by_matmul(q_BHTK: Tensor, k_BHTK: Tensor, v_BHTK: Tensor) -> Tensor:
    """Causal attention by plain matrix multiplies, a chunk of queries at a time; softmax in fp32.

    A chunk meets only the keys up to its own end, so with n chunks of T/n queries the scores
    above the diagonal cost (n+1)/2n of the full square: 62 % at n = 4.
    Shapes: all (B, H, T, K).
    """
    T, K = q_BHTK.shape[-2:]
    chunks = []
    for start in range(0, T, CHUNK):
        stop = min(start + CHUNK, T)
        scores_BHCS = q_BHTK[..., start:stop, :] @ k_BHTK[..., :stop, :].transpose(-2, -1)
        future_CC = torch.full((stop - start, stop - start), float("-inf"), device=q_BHTK.device).triu(1)
        mask_CS = F.pad(future_CC, (start, 0))  # added, not filled in: that vectorises
        weights_BHCS = torch.softmax(scores_BHCS.float() * K**-0.5 + mask_CS, dim=-1)
        chunks.append(weights_BHCS.to(v_BHTK.dtype) @ v_BHTK[..., :stop, :])
    return torch.cat(chunks, dim=-2)
