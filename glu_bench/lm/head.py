"""The loss of every target from the normed residual stream, a few tokens' logits at a time.

Over a large vocabulary the logits outweigh all else: in fp32 131 kB a token at V = 32,768, and
autograd keeps them several times over. Here tokens come in chunks, and a chunk's logits are
gone before the next one's: what is kept is a gradient of x and one of the weight, made at once
in the forward pass as if every loss counted once. A sum or a mean then scales both by one
number. Losses that count differently cost the weight's gradient a second pass over the logits.

Key of the shapes: N tokens of the batch, C of a chunk, R rows of the weight, V of which are ids.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from glu_bench.ffn.lean import find_autocast_dtype, refuse_second_derivative, without_autocast

# fp32 logits of a chunk, at most; on CPU a step takes 7 % more with 16 MiB, 1 % less with 128 MiB
CHUNK_BYTES = 2**26

Score = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


def choose_loss(n_tokens: int, vocab_size: int, fast: bool = True) -> str:
    """ "chunked" where fp32 logits are more than one chunk's, else, or unless `fast`, "plain"."""
    return "chunked" if fast and 4 * n_tokens * vocab_size > CHUNK_BYTES else "plain"


def score_chunk(logits_CR: Tensor, targets_C: Tensor) -> tuple[Tensor, Tensor]:
    """Loss of every target in nats, fp32 or above, and all probabilities, in the logits' dtype.

    lm/compiled.py puts a compiled one in its place.
    """
    wide = torch.promote_types(logits_CR.dtype, torch.float32)
    log_CR = torch.log_softmax(logits_CR.to(wide), dim=-1)
    nats_C = -log_CR.gather(1, targets_C[:, None])[:, 0]
    return nats_C, log_CR.exp_().to(logits_CR.dtype)


def chunked_nats(
    x_BTD: Tensor, weight_RD: Tensor, targets_BT: Tensor, vocab_size: int, score: Score = score_chunk
) -> Tensor:
    """Loss of every target in nats, fp32 or above: that of the plain logits, taken in autocast's dtype.

    Rows of the weight from `vocab_size` on are never predicted. Differentiable once: a second
    derivative raises.
    Shapes: x (B, T, D); weight (R, D); targets and result (B, T).
    """
    found = find_autocast_dtype(x_BTD)
    dtype = x_BTD.dtype if found is None else found
    x_ND, targets_N = x_BTD.reshape(-1, x_BTD.shape[-1]), targets_BT.reshape(-1)
    with without_autocast(x_BTD.device.type):
        if torch.is_grad_enabled():
            nats_N: Tensor = _ChunkedLoss.apply(x_ND, weight_RD, targets_N, vocab_size, dtype, score)  # type: ignore[no-untyped-call]
        else:
            nats_N, _, _ = _score_chunks(x_ND, weight_RD, targets_N, vocab_size, dtype, score)
    return nats_N.view(targets_BT.shape)


class _ChunkedLoss(torch.autograd.Function):
    """Forward and backward of `chunked_nats`; both gradients are those of the losses' sum."""

    @staticmethod
    def forward(
        ctx: Any,
        x_ND: Tensor,
        weight_RD: Tensor,
        targets_N: Tensor,
        vocab_size: int,
        dtype: torch.dtype,
        score: Score,
    ) -> Tensor:
        x_wanted, weight_wanted = ctx.needs_input_grad[:2]
        nats_N, d_x_ND, d_weight_RD = _score_chunks(
            x_ND,
            weight_RD,
            targets_N,
            vocab_size,
            dtype,
            score,
            x_wanted=x_wanted,
            weight_wanted=weight_wanted,
        )
        ctx.save_for_backward(x_ND, weight_RD, targets_N, d_x_ND, d_weight_RD)
        ctx.how = (vocab_size, dtype, score)
        return nats_N

    @staticmethod
    def backward(ctx: Any, d_nats_N: Tensor) -> tuple[Tensor | None, ...]:
        refuse_second_derivative()
        x_ND, weight_RD, targets_N, d_x_ND, d_weight_RD = ctx.saved_tensors
        if d_weight_RD is not None:
            if _are_equal(d_nats_N):
                d_weight_RD = d_weight_RD * d_nats_N[0]
            else:
                vocab_size, dtype, score = ctx.how
                _, _, d_weight_RD = _score_chunks(
                    x_ND,
                    weight_RD,
                    targets_N,
                    vocab_size,
                    dtype,
                    score,
                    weight_wanted=True,
                    counts_N=d_nats_N,
                )
        if d_x_ND is not None:
            d_x_ND = d_x_ND * d_nats_N[:, None].to(d_x_ND.dtype)
        return d_x_ND, d_weight_RD, None, None, None, None


def _are_equal(numbers_N: Tensor) -> bool:
    if all(stride == 0 for stride in numbers_N.stride()):  # those of a sum: one number, spread
        return True
    return not numbers_N.is_meta and bool((numbers_N == numbers_N[0]).all())


def _score_chunks(
    x_ND: Tensor,
    weight_RD: Tensor,
    targets_N: Tensor,
    vocab_size: int,
    dtype: torch.dtype,
    score: Score,
    *,
    x_wanted: bool = False,
    weight_wanted: bool = False,
    counts_N: Tensor | None = None,
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Losses, and the gradients of their sum, each loss times its count, that are wanted.

    The gradient of a loss by its logits is their probabilities, less 1 at the target.
    """
    w_RD = weight_RD.to(dtype)
    nats, d_xs = [], []
    d_weight_RD = torch.zeros_like(weight_RD) if weight_wanted else None
    n_chunks = -(-4 * x_ND.shape[0] * w_RD.shape[0] // CHUNK_BYTES)
    for x_CD, targets_C, counts_C in zip(
        x_ND.chunk(n_chunks),
        targets_N.chunk(n_chunks),
        (None,) * n_chunks if counts_N is None else counts_N.chunk(n_chunks),
        strict=False,
    ):
        x_CD = x_CD.to(dtype)
        logits_CR = F.linear(x_CD, w_RD)
        logits_CR[:, vocab_size:] = float("-inf")
        nats_C, d_logits_CR = score(logits_CR, targets_C)
        del logits_CR
        nats.append(nats_C)
        if not (x_wanted or weight_wanted):
            continue
        # from the loss: 1 less than a rounded probability would lose what is left of 1
        d_logits_CR[torch.arange(len(nats_C), device=nats_C.device), targets_C] = torch.expm1(-nats_C).to(
            dtype
        )
        if x_wanted:
            d_xs.append((d_logits_CR @ w_RD).to(x_ND.dtype))
        if d_weight_RD is not None:
            if counts_C is not None:
                x_CD = (x_CD * counts_C[:, None]).to(dtype)
            if d_weight_RD.dtype == dtype:
                d_weight_RD.addmm_(d_logits_CR.t(), x_CD)
            else:
                d_weight_RD += d_logits_CR.t() @ x_CD
    return torch.cat(nats), torch.cat(d_xs) if x_wanted else None, d_weight_RD
