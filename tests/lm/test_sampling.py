"""Choosing tokens: what top_k, top_p and temperature leave."""

from __future__ import annotations

import pytest
import torch

from glu_bench.lm.decoder import make_decoder
from glu_bench.lm.init import init_weights
from glu_bench.lm.sampling import choose_token, keep_nucleus, sample_tokens
from tests.conftest import TinyConfig

PROBABILITIES = torch.tensor([0.1, 0.5, 0.05, 0.3, 0.05])


@pytest.mark.parametrize(
    ("top_p", "kept"),
    [(0.0, {1}), (0.4, {1}), (0.5, {1}), (0.51, {1, 3}), (0.85, {0, 1, 3}), (1.0, {0, 1, 2, 3, 4})],
)
def test_the_nucleus_is_the_fewest_that_reach_p(top_p: float, kept: set[int]) -> None:
    left = keep_nucleus(PROBABILITIES, top_p)
    assert set(left.nonzero().flatten().tolist()) == kept
    assert torch.equal(left[list(kept)], PROBABILITIES[list(kept)])


def test_draws_stay_in_the_nucleus_and_follow_its_probabilities() -> None:
    generator = torch.Generator().manual_seed(0)
    draws = [choose_token(PROBABILITIES.log(), generator, temperature=1, top_p=0.6) for _ in range(4000)]
    assert set(draws) == {1, 3}
    assert draws.count(1) / 4000 == pytest.approx(0.5 / 0.8, abs=0.03)


def test_temperature_0_takes_the_likeliest_whatever_else() -> None:
    generator = torch.Generator()
    assert choose_token(PROBABILITIES.log(), generator, temperature=0, top_k=3, top_p=0.9) == 1


def test_one_seed_gives_one_text(tiny_config: TinyConfig) -> None:
    model = make_decoder(tiny_config(), 257)
    init_weights(model, 0)
    texts = [list(sample_tokens(model.eval(), [1, 2], 30, seed=seed, top_p=0.9)) for seed in (0, 0, 1)]
    assert texts[0] == texts[1] != texts[2]
    assert len(texts[0]) == 30
