"""AdamW: what decays, and its state as named tensors."""

from __future__ import annotations

import pytest
import torch

from glu_bench.errors import DataError
from glu_bench.lm.decoder import make_decoder
from glu_bench.lm.init import init_weights
from glu_bench.train.optimizer import make_optimizer, pack_optimizer, unpack_optimizer
from tests.conftest import TinyConfig


@pytest.mark.parametrize("words", [(), ("model.ffn_bias=true",), ("model.tied_embeddings=true",)])
def test_matrices_decay_and_gains_and_biases_do_not(words: tuple[str, ...], tiny_config: TinyConfig) -> None:
    config = tiny_config(*words)
    model = make_decoder(config, 257)
    decay = {
        id(parameter): group["weight_decay"]
        for group in make_optimizer(model, config.optim).param_groups
        for parameter in group["params"]
    }
    assert len(decay) == len(list(model.parameters()))
    for name, parameter in model.named_parameters():
        expected = 0.0 if name.endswith(("norm.weight", ".bias")) else config.optim.weight_decay
        assert decay[id(parameter)] == expected, name


def test_the_settings_reach_the_optimiser(tiny_config: TinyConfig) -> None:
    config = tiny_config("optim.beta1=0.8", "optim.beta2=0.9", "optim.eps=1e-5", "optim.lr=0.5")
    group = make_optimizer(make_decoder(config, 257), config.optim).param_groups[0]
    assert (group["betas"], group["eps"], group["lr"]) == ((0.8, 0.9), 1e-5, 0.5)


def test_one_update_is_that_of_the_formula(tiny_config: TinyConfig) -> None:
    config = tiny_config("optim.lr=0.01", "optim.weight_decay=0.1")
    model = make_decoder(config, 257)
    init_weights(model, 0)
    optimizer = make_optimizer(model, config.optim)
    weight, gain = model.head.weight, model.norm.weight
    before = weight.detach().clone(), gain.detach().clone()
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, 0.5)
    optimizer.step()
    # at the first step m/(1-b1) = g and sqrt(v/(1-b2)) = |g|, so Adam's part is lr * sign(g)
    torch.testing.assert_close(weight.detach(), before[0] * (1 - 0.01 * 0.1) - 0.01, rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(gain.detach(), before[1] - 0.01, rtol=1e-5, atol=1e-7)


def test_the_state_comes_back_and_continues_to_the_same_bits(tiny_config: TinyConfig) -> None:
    config = tiny_config()
    models = [make_decoder(config, 257) for _ in range(2)]
    optimizers = [make_optimizer(model, config.optim) for model in models]

    def step(which: int, seed: int) -> None:
        draw = torch.Generator().manual_seed(seed)
        for parameter in models[which].parameters():
            parameter.grad = torch.randn(parameter.shape, generator=draw)
        optimizers[which].step()

    init_weights(models[0], 0)
    step(0, 1)
    packed = pack_optimizer(optimizers[0], models[0])
    models[1].load_state_dict(models[0].state_dict())
    unpack_optimizer(optimizers[1], models[1], packed)
    for which in (0, 1):
        step(which, 2)
    for one, other in zip(models[0].parameters(), models[1].parameters(), strict=True):
        assert torch.equal(one, other)
    assert {name.split("/")[0] for name in packed} == {"exp_avg", "exp_avg_sq", "step"}


@pytest.mark.parametrize(
    "tensors",
    [
        {"exp_avg/nosuch.weight": torch.zeros(2)},
        {"exp_avg/norm.weight": torch.zeros(2)},
        {"odd": torch.zeros(2)},
    ],
)
def test_state_that_does_not_fit_is_refused(
    tensors: dict[str, torch.Tensor], tiny_config: TinyConfig
) -> None:
    config = tiny_config()
    model = make_decoder(config, 257)
    with pytest.raises(DataError, match="does not fit"):
        unpack_optimizer(make_optimizer(model, config.optim), model, tensors)
