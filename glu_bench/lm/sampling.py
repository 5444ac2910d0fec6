"""Text from a model, a token at a time."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from glu_bench.lm.decoder import Decoder


@torch.no_grad()
def sample_tokens(
    model: Decoder,
    prompt: list[int],
    n_tokens: int,
    *,
    temperature: float = 0.8,
    top_k: int | None = None,
    seed: int = 0,
) -> Iterator[int]:
    """Ids that continue a prompt of at least one id; the same seed gives the same text.

    Temperature 0 takes the likeliest token. The context is the last seq_len tokens.
    """
    device = next(model.parameters()).device
    generator = torch.Generator().manual_seed(seed)
    tokens = list(prompt)
    for _ in range(n_tokens):
        context = torch.tensor([tokens[-model.config.seq_len :]], device=device)
        logits_V = model(context)[0, -1].float().cpu()
        if top_k is not None:
            least = logits_V.topk(min(top_k, len(logits_V))).values[-1]
            logits_V = logits_V.masked_fill(logits_V < least, float("-inf"))
        if temperature == 0:
            token = int(logits_V.argmax())
        else:
            probabilities_V = torch.softmax(logits_V / temperature, dim=-1)
            token = int(torch.multinomial(probabilities_V, 1, generator=generator))
        tokens.append(token)
        yield token
