"""Arguments that are trained: declared, made, drawn, stepped, decayed and kept."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch

from glu_bench.errors import InterruptedRunError
from glu_bench.ffn.feedforward import FeedForward
from glu_bench.ffn.formula import list_variants, load_variant, make_formula
from glu_bench.ffn.learned import find_argument, list_learned
from glu_bench.lm.decoder import make_decoder
from glu_bench.lm.init import init_weights
from glu_bench.runs.checkpoint import list_checkpoints, load_checkpoint
from glu_bench.runs.folder import list_runs
from glu_bench.train.optimizer import make_optimizer
from tests.conftest import StopAt, TinyConfig, Train

WITH_LEARNED = [name for name in list_variants() if load_variant(name).learned]

# parameter: what it starts from, per hidden unit or not; from the papers, not from the files
THIRD = 1 / 3
AT_FIRST: dict[str, dict[str, tuple[float, bool]]] = {
    "polynorm": {
        "activation_w1": (THIRD, False),
        "activation_w2": (THIRD, False),
        "activation_w3": (THIRD, False),
        "activation_b": (0.0, False),
    },
    "polyrelu": {
        "activation_a0": (0.0, False),
        "activation_a1": (THIRD, False),
        "activation_a2": (THIRD, False),
        "activation_a3": (THIRD, False),
    },
    "reglu2_norm": {"norm_gain": (1.0, True)},
    "solu": {"norm_gain": (1.0, True), "norm_bias": (0.0, True)},
    "swish_beta": {"activation_beta": (1.0, False)},
    "swiglu_beta": {"gate_beta": (1.0, False)},
    "swiglu_mult": {"mult": (1.0, True)},
    # softplus(p) = 0.8 and 0.5 + softplus(n) = 0.8
    "xielu": {"activation_p": (0.20338232, False), "activation_n": (-1.05022561, False)},
    "xiprelu": {"activation_p": (0.20338232, False), "activation_n": (0.20338232, False)},
    **{name: {"activation_a": (0.0, False)} for name in ("xatlu", "xgelu", "xsilu")},
    **{name: {"gate_a": (0.0, False)} for name in ("xatglu", "xgeglu", "xswiglu")},
}


def learned_of(model: torch.nn.Module) -> dict[str, torch.nn.Parameter]:
    """Learned arguments of all layers, by full name."""
    return {name: p for name, p in model.named_parameters() if ".learned." in name}


def test_the_table_has_every_variant_that_learns() -> None:
    assert sorted(AT_FIRST) == WITH_LEARNED


@pytest.mark.parametrize("name", WITH_LEARNED)
def test_a_block_has_the_arguments_the_paper_trains(name: str) -> None:
    block = FeedForward(load_variant(name), 12, 20)
    assert set(block.hidden.learned) == set(AT_FIRST[name])
    for parameter, (value, per_unit) in AT_FIRST[name].items():
        tensor = block.hidden.learned[parameter]
        assert tensor.shape == ((20,) if per_unit else ())
        torch.testing.assert_close(tensor.detach(), torch.full_like(tensor, value))
    declared = {each.parameter: each.count(20) for each in list_learned(load_variant(name).spec)}
    assert declared == {p: 20 if per_unit else 1 for p, (_, per_unit) in AT_FIRST[name].items()}


def test_an_argument_is_found_by_place_and_by_name() -> None:
    spec = dataclasses.replace(load_variant("swiglu_oai").spec, mult=3.0)
    assert [find_argument(spec, argument) for argument in ("gate.beta", "mult", "offset")] == [
        1.702,
        3.0,
        1.0,
    ]


@pytest.mark.parametrize("name", WITH_LEARNED)
def test_weights_are_drawn_with_learned_arguments_at_their_first_values(
    name: str, tiny_config: TinyConfig
) -> None:
    """Whatever stood there before, in every layer and for every seed and init."""
    for seed, init in ((0, "fan_in"), (1, "moment")):
        model = make_decoder(tiny_config(f"variant={name}"), 257)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.fill_(7.0)
        init_weights(model, seed, init)
        found = learned_of(model)
        assert len(found) == 2 * len(AT_FIRST[name])
        for full_name, tensor in found.items():
            value, _ = AT_FIRST[name][full_name.rpartition(".")[2]]
            torch.testing.assert_close(tensor.detach(), torch.full_like(tensor, value))


@pytest.mark.parametrize(
    ("name", "twin"),
    [("swish_beta", "swish"), ("swiglu_beta", "swiglu"), ("swiglu_mult", "swiglu"), ("xielu", "relu")],
)
@pytest.mark.parametrize("bias", [False, True])
def test_arms_at_one_seed_share_every_weight_that_both_have(
    name: str, twin: str, bias: bool, tiny_config: TinyConfig
) -> None:
    """Learned arguments shift no draw; the width is the same here, so all matrices are common."""
    models = []
    for variant in (name, twin):
        config = tiny_config(f"variant={variant}", "match=none", "match.d_ff=40", f"model.ffn_bias={bias}")
        model = make_decoder(config, 257)
        init_weights(model, 3)
        models.append(dict(model.named_parameters()))
    own, other = models
    assert {n for n in own if ".learned." not in n} == set(other)
    assert all(torch.equal(own[n], other[n]) for n in other)


@pytest.mark.parametrize("name", WITH_LEARNED)
def test_learned_arguments_take_no_weight_decay(name: str, tiny_config: TinyConfig) -> None:
    """No gradient, then no motion; a matrix shrinks by lr times decay."""
    config = tiny_config(f"variant={name}", "optim.lr=0.5", "optim.weight_decay=0.5")
    model = make_decoder(config, 257)
    init_weights(model, 0)
    optimizer = make_optimizer(model, config.optim)
    groups = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    learned = learned_of(model)
    assert {groups[id(p)] for p in learned.values()} == {0.0}
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    for full_name, tensor in learned.items():
        assert torch.equal(tensor.detach(), before[full_name])
    down = "blocks.0.ffn.down.weight"
    torch.testing.assert_close(dict(model.named_parameters())[down].detach(), 0.75 * before[down])


@pytest.mark.parametrize("name", WITH_LEARNED)
def test_training_moves_every_learned_argument_and_checkpoints_hold_it(
    name: str, train: Train, tmp_path: Path
) -> None:
    train(f"variant={name}", "train.steps=2")
    (run,) = list_runs(tmp_path)
    checkpoint = load_checkpoint(list_checkpoints(run.checkpoints)[-1], run.run_id)
    kept = {n: t for n, t in checkpoint.model.items() if ".learned." in n}
    assert len(kept) == 2 * len(AT_FIRST[name])
    for full_name, tensor in kept.items():
        value, _ = AT_FIRST[name][full_name.rpartition(".")[2]]
        assert not torch.equal(tensor, torch.full_like(tensor, value)), full_name
    loaded = learned_of(run.load_model())
    assert all(torch.equal(loaded[n].detach(), kept[n]) for n in kept)


CHOSEN = ["xielu", "swiglu_mult", "reglu2_norm", "polyrelu"]


@pytest.mark.parametrize("name", CHOSEN)
def test_a_stopped_run_goes_on_to_the_same_learned_bits(name: str, train: Train, tmp_path: Path) -> None:
    """Under settings where what is forgotten shows: a high rate, dropout, accumulation."""
    words = (f"variant={name}", "optim.lr=0.02", "model.dropout=0.1", "train.grad_accum=2", "train.steps=6")
    train(*words, output_dir=tmp_path / "straight")
    for n_steps in (2, 3):
        with pytest.raises(InterruptedRunError):
            train(*words, stop=StopAt(n_steps), output_dir=tmp_path / "resumed")
    train(*words, output_dir=tmp_path / "resumed")
    kept: list[dict[str, Any]] = []
    for folder in ("straight", "resumed"):
        (run,) = list_runs(tmp_path / folder)
        checkpoint = load_checkpoint(list_checkpoints(run.checkpoints)[-1], run.run_id)
        kept.append({**checkpoint.model, **checkpoint.optimizer})
    straight, resumed = kept
    assert straight.keys() == resumed.keys()
    assert sum(".learned." in n for n in straight) >= 4 * 2  # the value and three of the optimiser's, a layer
    assert all(torch.equal(straight[n], resumed[n]) for n in straight)


@pytest.mark.parametrize(
    ("name", "learned"),
    [("swiglu_oai", ["offset", "gate.beta"]), ("gelu", []), ("quick_gelu", ["activation.beta"])],
)
def test_any_argument_may_be_learned_one_a_layer_or_one_a_unit(name: str, learned: list[str]) -> None:
    for field in ("learned", "learned_per_unit"):
        formula = make_formula(dataclasses.replace(load_variant(name).spec, **{field: learned}))
        block = FeedForward(formula, 12, 20).double()
        x = torch.randn(5, 12, dtype=torch.float64)
        fixed = FeedForward(load_variant(name), 12, 20).double()
        fixed.load_state_dict({n: t for n, t in block.state_dict().items() if ".learned." not in n})
        torch.testing.assert_close(block(x), fixed(x))
        block(x).sum().backward()
        for each in formula.learned:
            gradient = block.hidden.learned[each.parameter].grad
            assert gradient is not None
            assert gradient.shape == ((20,) if field == "learned_per_unit" else ())
            assert gradient.abs().sum() > 0
