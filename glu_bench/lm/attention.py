"""Causal self-attention with rotary positions.

Three paths give the same numbers to rounding: torch's scaled_dot_product_attention, matrix
multiplies with a written-out backward pass (lm/lean.py), and the plain formula, against which
the others are tested. Which is fastest depends on device and length; see `choose_attention`.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from glu_bench.lm.lean import attend_lean

MAX_MATMUL_LEN = 512  # tokens up to which T x T scores beat torch's flash kernel on CPU


class RMSNorm(nn.Module):
    """x over its root mean square, times a learned gain. Source: arXiv 1910.07467.

    The mean is taken in fp32 or above whatever the input's dtype, as Llama does.
    """

    def __init__(self, d_model: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(d_model))
        self.eps = eps

    def forward(self, x_BTD: Tensor) -> Tensor:
        """The normalised input, same shape and dtype."""
        x_wide = x_BTD.to(torch.promote_types(x_BTD.dtype, torch.float32))
        scale = torch.rsqrt(x_wide.pow(2).mean(-1, keepdim=True) + self.eps)
        return (x_wide * scale * self.weight).to(x_BTD.dtype)


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


def make_future(seq_len: int, device: torch.device | None = None) -> Tensor:
    """What the scores of a query are masked with: 0 up to its own position, -inf after; fp32.

    Shapes: (T, T), queries by keys.
    """
    return torch.full((seq_len, seq_len), float("-inf"), device=device).triu(1)


def choose_attention(device_type: str, seq_len: int, fast: bool = True) -> str:
    """ "matmul", "sdpa" or, unless `fast`, "plain".

    On CPU the flash kernel behind SDPA costs more than the T x T scores up to 512 tokens;
    beyond, and on every GPU, memory decides for SDPA.
    """
    if not fast:
        return "plain"
    return "matmul" if device_type == "cpu" and seq_len <= MAX_MATMUL_LEN else "sdpa"


class Attention(nn.Module):
    """Multi-head causal attention without biases; Q, K and V come from one projection."""

    def __init__(self, d_model: int, n_heads: int, fast: bool = True) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.head_width = d_model // n_heads
        self.fast = fast
        self.qkv = nn.Linear(d_model, 3 * d_model, bias=False)
        self.out = nn.Linear(d_model, d_model, bias=False)

    def forward(self, x_BTD: Tensor, cos_TK: Tensor, sin_TK: Tensor, future_TT: Tensor) -> Tensor:
        """What each token gathers from itself and those before it. Shapes: x and result (B, T, D)."""
        B, T, D = x_BTD.shape
        path = choose_attention(x_BTD.device.type, T, self.fast)
        qkv = self.qkv(x_BTD)
        if path == "matmul":
            mixed_BTD = attend_lean(qkv, cos_TK, sin_TK, future_TT, self.n_heads)
        else:
            q_BHTK, k_BHTK, v_BHTK = (
                qkv.view(B, T, 3, self.n_heads, self.head_width).permute(2, 0, 3, 1, 4).unbind(0)
            )
            q_BHTK = rotate(q_BHTK, cos_TK, sin_TK)
            k_BHTK = rotate(k_BHTK, cos_TK, sin_TK)
            if path == "sdpa":
                mixed_BHTK = F.scaled_dot_product_attention(q_BHTK, k_BHTK, v_BHTK, is_causal=True)
            else:
                mixed_BHTK = attend_plainly(q_BHTK, k_BHTK, v_BHTK)
            mixed_BTD = mixed_BHTK.transpose(1, 2).reshape(B, T, D)
        y_BTD: Tensor = self.out(mixed_BTD)
        return y_BTD


def attend_plainly(q_BHTK: Tensor, k_BHTK: Tensor, v_BHTK: Tensor) -> Tensor:
    """Causal attention as the formula has it, softmax in fp32 or above. Shapes: all (B, H, T, K)."""
    T, K = q_BHTK.shape[-2:]
    scores_BHTT = q_BHTK @ k_BHTK.transpose(-2, -1)
    wide = torch.promote_types(scores_BHTT.dtype, torch.float32)
    future_TT = make_future(T, q_BHTK.device)
    weights_BHTT = torch.softmax(scores_BHTT.to(wide) * K**-0.5 + future_TT, dim=-1)
    return weights_BHTT.to(v_BHTK.dtype) @ v_BHTK
