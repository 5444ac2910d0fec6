"""The three optimisers against their formulas: what each updates, what decays, and its state."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from glu_bench import schema
from glu_bench.config import list_group
from glu_bench.data.order import make_order
from glu_bench.data.prepared import prepare_tokens
from glu_bench.errors import DataError
from glu_bench.lm.decoder import Decoder, make_decoder
from glu_bench.lm.init import init_weights
from glu_bench.train.optimizer import Optimizer, make_optimizer, pack_optimizer, unpack_optimizer
from glu_bench.train.schedule import learning_rate
from tests.conftest import TinyConfig

OPTIMIZERS = list_group("optim")
MODELS: list[tuple[str, ...]] = [
    (),
    ("model.ffn_bias=true",),
    ("model.tied_embeddings=true",),
    ("variant=relu", "model.ffn_bias=true"),
]

Made = tuple[schema.Config, Decoder, Optimizer]
Make = Callable[..., Made]


@pytest.fixture
def make(tiny_config: TinyConfig) -> Make:
    """A tiny model with drawn weights, biases not zero, and its optimiser."""

    def build(*words: str) -> Made:
        config = tiny_config(*words)
        model = make_decoder(config, 257)
        init_weights(model, 0)
        draw = torch.Generator().manual_seed(1)
        for parameter in model.parameters():
            if parameter.dim() < 2:
                parameter.data += 0.1 * torch.randn(parameter.shape, generator=draw)
        return config, model, make_optimizer(model, config.optim)

    return build


def draw_gradients(model: Decoder, seed: int = 0) -> None:
    draw = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        parameter.grad = 1e-3 * torch.randn(parameter.shape, generator=draw)


def copy_weights(model: Decoder) -> dict[str, Tensor]:
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


def find_group(optimizer: Optimizer, label: str) -> dict[str, object]:
    """The only group that holds the piece of this name."""
    (tensor,) = [piece.tensor for piece in optimizer.pieces if piece.name == label]
    (group,) = [group for group in optimizer.param_groups if any(p is tensor for p in group["params"])]
    return group


@pytest.mark.parametrize("words", MODELS, ids=" ".join)
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_number_of_the_model_is_in_one_group_and_once(
    name: str, words: tuple[str, ...], make: Make
) -> None:
    _, model, optimizer = make(f"optim={name}", *words)
    grouped = [tensor for group in optimizer.param_groups for tensor in group["params"]]
    where = [
        address
        for tensor in grouped
        for address in range(tensor.data_ptr(), tensor.data_ptr() + 4 * tensor.numel(), 4)
    ]
    expected = {p.data_ptr() + 4 * i for p in model.parameters() for i in range(p.numel())}
    assert len(where) == len(set(where))
    assert set(where) == expected
    assert len(grouped) == len(optimizer.pieces)


@pytest.mark.parametrize("words", MODELS, ids=" ".join)
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_matrices_decay_and_gains_and_biases_do_not(name: str, words: tuple[str, ...], make: Make) -> None:
    config, model, optimizer = make(f"optim={name}", "optim.weight_decay=0.3", "optim.lr=0.1", *words)
    before = copy_weights(model)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()  # without a gradient nothing but decay is left
    for key, parameter in model.named_parameters():
        kept = 1.0 if key.endswith(("norm.weight", ".bias")) else 1 - 0.1 * config.optim.weight_decay
        torch.testing.assert_close(parameter.detach(), kept * before[key], msg=key)


def test_a_learned_scalar_does_not_decay(tiny_config: TinyConfig) -> None:
    for name in OPTIMIZERS:
        config = tiny_config(f"optim={name}", "optim.weight_decay=0.3")
        model = make_decoder(config, 257)
        model.blocks[0].register_parameter("beta", torch.nn.Parameter(torch.tensor(2.0)))
        group = find_group(make_optimizer(model, config.optim), "blocks.0.beta")
        assert group["weight_decay"] == 0


@pytest.mark.parametrize("words", MODELS, ids=" ".join)
def test_muon_takes_the_hidden_matrices_and_nothing_else(words: tuple[str, ...], make: Make) -> None:
    _, model, optimizer = make("optim=muon", *words)
    muon, adamw = optimizer.parts
    assert isinstance(muon, torch.optim.Muon)
    assert isinstance(adamw, torch.optim.AdamW)
    names = {id(piece.tensor): piece.name.partition("[")[0] for piece in optimizer.pieces}
    taken = {names[id(tensor)] for group in muon.param_groups for tensor in group["params"]}
    parts = ("attention.qkv", "attention.out", "ffn.hidden.in_proj", "ffn.down")
    assert taken == {f"blocks.{i}.{part}.weight" for i in range(2) for part in parts}
    rest = {names[id(tensor)] for group in adamw.param_groups for tensor in group["params"]}
    assert rest == set(dict(model.named_parameters())) - taken


def test_stacked_matrices_are_taken_apart(make: Make) -> None:
    for name in ("muon", "adafactor"):
        _, model, optimizer = make(f"optim={name}", "variant=swiglu", "model.ffn_bias=true")
        F = model.d_ff
        labels = [piece.name for piece in optimizer.pieces if piece.name.startswith("blocks.0.")]
        assert labels == [
            "blocks.0.attention_norm.weight",
            *[f"blocks.0.attention.qkv.weight[{start}:{start + 48}]" for start in (0, 48, 96)],
            "blocks.0.attention.out.weight",
            "blocks.0.ffn_norm.weight",
            *[f"blocks.0.ffn.hidden.in_proj.weight[{start}:{start + F}]" for start in (0, F)],
            *[f"blocks.0.ffn.hidden.in_proj.bias[{start}:{start + F}]" for start in (0, F)],
            "blocks.0.ffn.down.weight",
            "blocks.0.ffn.down.bias",
        ]
        _, _, ungated = make(f"optim={name}", "variant=relu")
        assert "blocks.0.ffn.hidden.in_proj.weight" in {piece.name for piece in ungated.pieces}


def test_the_settings_reach_the_optimisers(make: Make) -> None:
    shared = ("optim.beta1=0.8", "optim.beta2=0.9", "optim.eps=1e-5", "optim.lr=0.5")
    for words in (("optim=adamw",), ("optim=muon", "optim.lr_ratio=3", "optim.momentum=0.7")):
        *_, optimizer = make(*shared, *words)
        group = find_group(optimizer, "head.weight")
        assert (group["betas"], group["eps"], group["fused"]) == ((0.8, 0.9), 1e-5, True)
        assert group["lr"] == (1.5 if words[0] == "optim=muon" else 0.5)
    hidden = find_group(optimizer, "blocks.0.ffn.down.weight")
    assert (hidden["lr"], hidden["momentum"], hidden["nesterov"]) == (0.5, 0.7, True)
    *_, optimizer = make(
        *("optim=adafactor", "optim.lr=0.5", "optim.eps=1e-9", "optim.min_scale=0.1"),
        *("optim.beta2_power=0.7", "optim.max_update=2"),
    )
    group = find_group(optimizer, "head.weight")
    assert [group[key] for key in ("lr", "eps", "beta2_decay", "d")] == [0.5, (1e-9, 0.1), -0.7, 2]


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_schedule_sets_every_group_and_keeps_the_ratio(name: str, make: Make) -> None:
    words = ("optim.lr_ratio=3",) if name == "muon" else ()
    config, _, optimizer = make(f"optim={name}", *words)
    for step in (0, 5, 99):
        rate = learning_rate(step, 100, config.optim)
        optimizer.set_rate(rate)
        for part in optimizer.parts:
            ratio = 3 if words and isinstance(part, torch.optim.AdamW) else 1
            assert {group["lr"] for group in part.param_groups} == {rate * ratio}


def test_two_updates_of_adamw_are_those_of_the_formula(make: Make) -> None:
    config, model, optimizer = make("optim=adamw", "optim.lr=0.01", "optim.weight_decay=0.1")
    weights = copy_weights(model)
    first = {key: torch.zeros_like(weight) for key, weight in weights.items()}
    second = {key: torch.zeros_like(weight) for key, weight in weights.items()}
    b1, b2 = 0.9, 0.95
    for t in (1, 2):
        draw_gradients(model, t)
        for key, parameter in model.named_parameters():
            g = parameter.grad
            assert g is not None
            first[key] = b1 * first[key] + (1 - b1) * g
            second[key] = b2 * second[key] + (1 - b2) * g * g
            decayed = weights[key] * (1 - 0.01 * 0.1 * (g.dim() >= 2))
            root = (second[key] / (1 - b2**t)).sqrt() + config.optim.eps
            weights[key] = decayed - 0.01 * first[key] / (1 - b1**t) / root
        optimizer.step()
    for key, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.detach(), weights[key], rtol=1e-4, atol=1e-6, msg=key)


def matrices_of(weight: Tensor, name: str, model: Decoder) -> list[Tensor]:
    """A parameter as the paper sees it: Q, K and V apart, gate and up apart."""
    if "qkv" in name:
        return list(weight.split(model.config.d_model))
    return list(weight.split(model.d_ff)) if "in_proj" in name else [weight]


def spread_singular_values(matrix: Tensor) -> Tensor:
    """U p(S) V^T from an exact decomposition: five times s -> 3.4445 s - 4.775 s^3 + 2.0315 s^5, fp64."""
    u, s, vt = torch.linalg.svd(matrix.double(), full_matrices=False)
    s = s / s.norm()
    for _ in range(5):
        s = 3.4445 * s - 4.7750 * s**3 + 2.0315 * s**5
    return (u * s) @ vt


@pytest.mark.parametrize("variant", ["swiglu", "relu"])
def test_two_updates_of_muon_are_those_of_the_formula(variant: str, make: Make) -> None:
    words = ("optim=muon", "optim.lr=0.01", "optim.weight_decay=0.1", "optim.momentum=0.9")
    _, model, optimizer = make(*words, f"variant={variant}")
    names = [name for name, p in model.named_parameters() if name.startswith("blocks.") and p.dim() == 2]
    buffers: dict[tuple[str, int], Tensor] = {}
    for t in (1, 2):
        draw_gradients(model, t)
        before = copy_weights(model)
        optimizer.step()
        for name in names:
            parameter = model.get_parameter(name)
            assert parameter.grad is not None
            pieces = [matrices_of(x, name, model) for x in (before[name], parameter.grad, parameter.detach())]
            for i, (old, g, new) in enumerate(zip(*pieces, strict=True)):
                buffers[name, i] = 0.9 * buffers.get((name, i), torch.zeros_like(g)) + 0.1 * g
                nesterov = 0.1 * g + 0.9 * buffers[name, i]
                moved = (old * (1 - 0.01 * 0.1) - new).double()
                expected = 0.01 * 0.2 * math.sqrt(max(g.shape)) * spread_singular_values(nesterov)
                # five products in bf16, 8 bits each: some hundredths of the whole
                assert (moved - expected).norm() < 0.05 * expected.norm(), (name, i)
                assert moved.square().mean().sqrt() == pytest.approx(0.01 * 0.2, rel=0.3)


def test_two_updates_of_adafactor_are_those_of_the_paper(make: Make) -> None:
    lr, decay = 0.02, 0.1
    _, model, optimizer = make(
        "optim=adafactor", f"optim.lr={lr}", f"optim.weight_decay={decay}", "model.ffn_bias=true"
    )
    rows: dict[tuple[str, int], Tensor] = {}
    columns: dict[tuple[str, int], Tensor] = {}
    for t in (1, 2):
        draw_gradients(model, t)
        before = copy_weights(model)
        optimizer.step()
        b2 = 1 - t**-0.8
        for name, parameter in model.named_parameters():
            assert parameter.grad is not None
            pieces = [matrices_of(x, name, model) for x in (before[name], parameter.grad, parameter.detach())]
            for i, (old, g, new) in enumerate(zip(*pieces, strict=True)):
                square, key = g.double() ** 2 + 1e-30, (name, i)
                if g.dim() == 2:  # algorithm 4
                    rows[key] = b2 * rows.get(key, 0) + (1 - b2) * square.sum(1)
                    columns[key] = b2 * columns.get(key, 0) + (1 - b2) * square.sum(0)
                    moment = torch.outer(rows[key], columns[key]) / rows[key].sum()
                else:  # algorithm 5
                    moment = rows[key] = b2 * rows.get(key, 0) + (1 - b2) * square
                update = g / moment.sqrt()
                update = update / max(1.0, float(update.square().mean().sqrt()) / 1.0)
                scale = max(1e-3, float(old.double().square().mean().sqrt())) * min(lr, t**-0.5)
                kept = old.double() * (1 - lr * decay * (g.dim() == 2))
                torch.testing.assert_close(
                    new.double(), kept - scale * update, rtol=1e-4, atol=1e-7, msg=f"{name} {i}"
                )


def test_the_rate_of_adafactor_is_at_most_one_over_the_root_of_the_step(make: Make) -> None:
    _, model, optimizer = make("optim=adafactor", "optim.lr=9")
    for t in (1, 2, 3, 4):
        draw_gradients(model)  # the same each time, so that an update is the gradient over its own size
        before = model.norm.weight.detach().clone()
        optimizer.step()
        moved = (before - model.norm.weight.detach()).square().mean().sqrt()
        assert moved.item() == pytest.approx(before.square().mean().sqrt().item() * t**-0.5, rel=1e-4)


def test_the_least_eps_of_adafactor_survives_rows_without_a_gradient(make: Make) -> None:
    _, model, optimizer = make("optim=adafactor", "optim.eps=1.1e-19")
    draw_gradients(model)
    for parameter in model.parameters():
        assert parameter.grad is not None
        parameter.grad[:5] = 0
    before = model.embedding.weight.detach().clone()
    optimizer.step()
    assert all(parameter.isfinite().all() for parameter in model.parameters())
    assert torch.equal(model.embedding.weight[:5], before[:5])
    assert not torch.equal(model.embedding.weight, before)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_gradients_are_forgotten_after_a_step(name: str, make: Make) -> None:
    _, model, optimizer = make(f"optim={name}")
    draw_gradients(model)
    optimizer.step()
    optimizer.zero_grad()
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(piece.tensor.grad is None for piece in optimizer.pieces)
    weights = copy_weights(model)
    optimizer.step()
    assert all(torch.equal(weights[key], parameter) for key, parameter in model.named_parameters())


@pytest.mark.parametrize("name", ["muon", "adafactor"])
def test_weights_that_move_to_other_memory_are_still_the_ones_updated(name: str, make: Make) -> None:
    models = []
    for moved in (False, True):
        _, model, optimizer = make(f"optim={name}")
        if moved:
            for parameter in model.parameters():
                parameter.data = parameter.data.clone()
        draw_gradients(model)
        optimizer.step()
        models.append(model)
    for one, other in zip(models[0].parameters(), models[1].parameters(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize(
    ("name", "lr", "words"),
    [
        ("adamw", 1e-2, ("variant=swiglu",)),
        ("muon", 1e-2, ("variant=relu", "model.ffn_bias=true")),
        ("adafactor", 0.05, ("variant=swiglu",)),
    ],
)
def test_one_batch_can_be_learnt_by_heart(name: str, lr: float, words: tuple[str, ...], make: Make) -> None:
    config, model, optimizer = make(f"optim={name}", f"optim.lr={lr}", *words)
    order = make_order(prepare_tokens(config).stream("train"), 16, 4, 0)
    batch = torch.from_numpy(order.batch(0))
    for _ in range(120):
        loss = model.nats(batch[:, :-1], batch[:, 1:]).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.3


KINDS = {
    "adamw": {"exp_avg", "exp_avg_sq", "step"},
    "muon": {"momentum_buffer", "exp_avg", "exp_avg_sq", "step"},
    "adafactor": {"row_var", "col_var", "variance", "step"},
}


@pytest.mark.parametrize("words", MODELS, ids=" ".join)
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_state_comes_back_and_continues_to_the_same_bits(
    name: str, words: tuple[str, ...], make: Make
) -> None:
    _, model, optimizer = make(f"optim={name}", *words)
    _, other_model, other = make(f"optim={name}", *words)
    draw_gradients(model, 1)
    optimizer.step()
    packed = pack_optimizer(optimizer)
    other_model.load_state_dict(model.state_dict())
    unpack_optimizer(other, packed)
    again = pack_optimizer(other)
    assert again.keys() == packed.keys()
    assert all(torch.equal(again[key], packed[key]) for key in packed)
    for which, its_optimizer in ((model, optimizer), (other_model, other)):
        draw_gradients(which, 2)
        its_optimizer.step()
    for one, two in zip(model.parameters(), other_model.parameters(), strict=True):
        assert torch.equal(one, two)
    assert {key.split("/")[0] for key in packed} == KINDS[name]


@pytest.mark.parametrize(
    ("name", "tensors"),
    [
        ("adamw", {"exp_avg/nosuch.weight": torch.zeros(2)}),
        ("adamw", {"exp_avg/norm.weight": torch.zeros(2)}),
        ("adamw", {"odd": torch.zeros(2)}),
        ("adamw", {"row_var/norm.weight": torch.zeros(48)}),
        ("muon", {"exp_avg/blocks.0.ffn.down.weight": torch.zeros(48, 128)}),
        ("muon", {"momentum_buffer/blocks.0.attention.qkv.weight": torch.zeros(144, 48)}),
        ("muon", {"momentum_buffer/embedding.weight": torch.zeros(257, 48)}),
        ("adafactor", {"variance/head.weight": torch.zeros(257, 48)}),
    ],
)
def test_state_of_another_optimiser_or_model_is_refused(
    name: str, tensors: dict[str, Tensor], make: Make
) -> None:
    *_, optimizer = make(f"optim={name}")
    with pytest.raises(DataError, match="does not fit"):
        unpack_optimizer(optimizer, tensors)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_each_tensor_of_the_state_must_fit(name: str, make: Make) -> None:
    _, model, optimizer = make(f"optim={name}", "model.ffn_bias=true")
    draw_gradients(model)
    optimizer.step()
    packed = pack_optimizer(optimizer)
    for kind in KINDS[name]:
        key = next(key for key in packed if key.startswith(f"{kind}/"))
        wrong = [packed[key][None], packed[key].double(), torch.zeros(3)]
        wrong += [torch.tensor(0.0)] if kind != "step" else []
        for tensor in wrong:
            *_, fresh = make(f"optim={name}", "model.ffn_bias=true")
            with pytest.raises(DataError, match="does not fit"):
                unpack_optimizer(fresh, {**packed, key: tensor})
        if kind != "momentum_buffer":  # the only tensor of its piece
            *_, fresh = make(f"optim={name}", "model.ffn_bias=true")
            with pytest.raises(DataError, match="does not fit"):
                unpack_optimizer(fresh, {k: tensor for k, tensor in packed.items() if k != key})
