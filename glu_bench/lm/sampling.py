"""Text from a model, a token at a time."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from glu_bench.lm.cached import CachedDecoder
from glu_bench.lm.decoder import Decoder


@torch.no_grad()
def sample_tokens(
    model: Decoder,
    prompt: list[int],
    n_tokens: int,
    *,
    temperature: float = 0.8,
    top_k: int | None = None,
    top_p: float | None = None,
    seed: int = 0,
) -> Iterator[int]:
    """Ids that continue a prompt of at least one id; the same seed gives the same text.

    Temperature 0 takes the likeliest token. The context is the last seq_len tokens.
    """
    generator = torch.Generator().manual_seed(seed)
    cached = CachedDecoder(model)
    unread = list(prompt)
    for _ in range(n_tokens):
        logits_V = cached.read(unread).float().cpu()
        token = choose_token(logits_V, generator, temperature=temperature, top_k=top_k, top_p=top_p)
        unread = [token]
        yield token


def choose_token(
    logits_V: Tensor,
    generator: torch.Generator,
    *,
    temperature: float,
    top_k: int | None = None,
    top_p: float | None = None,
) -> int:
    """One token: of the `top_k` likeliest, then of the fewest whose probabilities reach `top_p`.

    Source of the latter: Holtzman et al. 2019, arXiv 1904.09751 (nucleus sampling).
    """
    if temperature == 0:
        return int(logits_V.argmax())
    if top_k is not None:
        least = logits_V.topk(min(top_k, len(logits_V))).values[-1]
        logits_V = logits_V.masked_fill(logits_V < least, float("-inf"))
    probabilities_V = torch.softmax(logits_V / temperature, dim=-1)
    if top_p is not None:
        probabilities_V = keep_nucleus(probabilities_V, top_p)
    return int(torch.multinomial(probabilities_V, 1, generator=generator))


def keep_nucleus(probabilities_V: Tensor, top_p: float) -> Tensor:
    """The likeliest tokens until their sum reaches top_p, at least one; all others 0. Not renormalised."""
    sorted_V, order_V = probabilities_V.sort(descending=True, stable=True)
    before_V = sorted_V.cumsum(0) - sorted_V  # what likelier tokens already cover
    kept_V = torch.where(before_V < top_p, sorted_V, 0.0)
    kept_V[0] = sorted_V[0]
    return torch.zeros_like(probabilities_V).scatter(0, order_V, kept_V)
