"""Initial weights: draws keyed by name, and the block's loudness under init=moment."""

from __future__ import annotations

import functools
import math

import pytest
import torch
from torch import Tensor

from glu_bench.errors import ConfigError
from glu_bench.ffn.formula import list_variants, load_variant
from glu_bench.ffn.moments import second_moment
from glu_bench.lm.decoder import Decoder, make_decoder
from glu_bench.lm.init import init_weights, make_generator
from glu_bench.schema import Config
from tests.composed import compose
from tests.conftest import TinyConfig
from tests.ffn.oracles import UNGATED
from tests.ffn.test_moments import normal_mean

V = 257
DOWN = "ffn.down.weight"


@functools.cache
def config_of(*words: str) -> Config:
    return compose("model=pico", *words)


def drawn(*words: str, init: str = "fan_in", seed: int = 0) -> Decoder:
    """A model of pico's shape with its weights drawn."""
    model = make_decoder(config_of(*words), V)
    init_weights(model, seed, init)
    return model


def weights_of(model: Decoder) -> dict[str, Tensor]:
    return {name: parameter.detach() for name, parameter in model.named_parameters()}


@pytest.mark.parametrize("name", list_variants())
def test_moment_scales_the_down_matrices_and_nothing_else(name: str, tiny_config: TinyConfig) -> None:
    model = make_decoder(tiny_config(f"variant={name}"), V)
    init_weights(model, 0, "fan_in")
    plain = {name: weight.clone() for name, weight in weights_of(model).items()}
    init_weights(model, 0, "moment")
    scaled = weights_of(model)
    formula = load_variant(name)
    loudness = second_moment(formula, plain[f"blocks.0.{DOWN}"].shape[1]) ** -0.5
    assert plain.keys() == scaled.keys()
    for parameter, weight in plain.items():
        if parameter.endswith(DOWN):
            torch.testing.assert_close(scaled[parameter], weight * loudness, rtol=1e-5, atol=0)
        else:
            assert torch.equal(scaled[parameter], weight), parameter


@pytest.mark.parametrize("n_layers", [1, 3])
@pytest.mark.parametrize("name", ["relu", "swish", "sigmoid", "mish"])
def test_the_standard_deviation_is_the_formula_written_out(name: str, n_layers: int) -> None:
    """1/sqrt(F) for the fan-in, 1/sqrt(2 layers) for their sum, 1/sqrt(E[hidden^2]) by quadrature."""
    model = drawn(f"variant={name}", f"model.n_layers={n_layers}", "model.d_model=192", init="moment")
    moment = normal_mean(lambda x: UNGATED[name](x) ** 2)
    for block in model.blocks:
        down = block.ffn.down.weight  # type: ignore[union-attr]
        n = down.numel()  # of n draws the deviation strays by 1/sqrt(2 n)
        expected = 1 / math.sqrt(768 * 2 * n_layers * moment)
        assert down.std().item() == pytest.approx(expected, rel=4 / math.sqrt(2 * n))  # type: ignore[union-attr, operator]


LOUD = ["relu", "swiglu", "relu2", "sigmoid"]


def block_outputs(name: str, init: str) -> Tensor:
    """What the blocks of a wide model answer to inputs of mean square 1. Shapes: (L, B, D)."""
    model = drawn(f"variant={name}", "model.d_model=384", "model.n_layers=6", init=init)
    x = torch.randn(64, 384, generator=torch.Generator().manual_seed(9))
    x = x / x.square().mean(-1, keepdim=True).sqrt()
    with torch.no_grad():
        return torch.stack([block.ffn(x) for block in model.blocks])  # type: ignore[operator]


def test_blocks_of_all_variants_are_as_loud_under_moment() -> None:
    """2304 output numbers stray by 3 % where all tokens share their direction, as sigmoid's do."""
    loud = {name: block_outputs(name, "moment").square().mean().item() for name in LOUD}
    for mean_square in loud.values():
        assert mean_square == pytest.approx(1 / 12, rel=0.08)  # 1/(2 layers): twelve of them add up to 1
    quiet = {name: block_outputs(name, "fan_in").square().mean().item() * 12 for name in LOUD}
    expected = {"relu": 0.5, "swiglu": 0.356, "relu2": 1.5, "sigmoid": 0.293}
    assert quiet == pytest.approx(expected, rel=0.08)


@pytest.mark.parametrize(
    ("words", "moment"),
    [
        (("variant=swiglu", "variant.mult=0"), 0.0),
        (("variant=polyrelu", *(f"variant.activation_args.a{i}=0" for i in range(4))), 0.0),
        (("variant=elu", "variant.activation_args.alpha=1e200"), math.inf),
    ],
)
def test_a_hidden_vector_without_loudness_is_refused(words: tuple[str, ...], moment: float) -> None:
    drawn(*words)
    with pytest.raises(ConfigError, match=rf"init=moment: .* {moment}"):
        drawn(*words, init="moment")


def test_a_draw_depends_on_seed_and_name_alone() -> None:
    one = make_generator(0, "a").initial_seed()
    assert one == make_generator(0, "a").initial_seed()
    assert len({one, make_generator(1, "a").initial_seed(), make_generator(0, "b").initial_seed()}) == 3
    torch.manual_seed(0)
    before = weights_of(drawn())
    torch.manual_seed(1)
    assert all(torch.equal(tensor, before[name]) for name, tensor in weights_of(drawn()).items())
