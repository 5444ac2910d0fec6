"""The cache against the model without it, at every position."""

from __future__ import annotations

import pytest
import torch

from glu_bench.lm.cached import CachedDecoder
from glu_bench.lm.decoder import Decoder, make_decoder
from glu_bench.lm.init import init_weights
from tests.conftest import TinyConfig

N_TOKENS = 40  # the window of a tiny run is 16


def make_model(tiny_config: TinyConfig, *words: str) -> Decoder:
    model = make_decoder(tiny_config(*words), 257)
    init_weights(model, 0)
    return model.eval()


@pytest.mark.parametrize(
    "words",
    [
        ("variant=swiglu",),
        ("variant=relu", "model.ffn_bias=true"),
        ("variant=glu", "model.tied_embeddings=true"),
    ],
)
@pytest.mark.parametrize("n_prompt", [1, 5, 16, 20])
@torch.no_grad()
def test_logits_are_the_models_at_every_position(
    tiny_config: TinyConfig, words: tuple[str, ...], n_prompt: int
) -> None:
    model = make_model(tiny_config, *words)
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randint(257, (N_TOKENS,), generator=generator).tolist()
    cached = CachedDecoder(model)
    unread = tokens[:n_prompt]
    for n_read in range(n_prompt, N_TOKENS):
        window = torch.tensor([tokens[:n_read][-16:]])
        expected_V = model(window)[0, -1]
        torch.testing.assert_close(cached.read(unread), expected_V, rtol=0, atol=1e-4)
        unread = [tokens[n_read]]


@torch.no_grad()
def test_work_is_done_once_within_the_window(
    tiny_config: TinyConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make_model(tiny_config)
    widths: list[int] = []
    model.blocks[0].ffn.register_forward_hook(lambda module, given, result: widths.append(given[0].shape[1]))
    cached = CachedDecoder(model)
    cached.read([1, 2, 3])
    for token in range(13):
        cached.read([token])
    assert widths == [3] + [1] * 13
