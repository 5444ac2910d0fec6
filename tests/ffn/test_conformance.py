"""Every variant file against its oracle, its identities, finite differences and the compiler."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
import torch
from torch import Tensor

from glu_bench.ffn.feedforward import FeedForward
from glu_bench.ffn.formula import Formula, list_variants, load_variant, make_formula
from glu_bench.ffn.lean import lean_feedforward
from tests.ffn.oracles import GATED, REDUCING, UNGATED

VARIANTS = list_variants()
EDGES = [0.0, 0.03, 0.5, 1.0, 3.0, 7.0, 10.0, 25.0, 40.0, 100.0, 1e4]
POINTS = sorted({sign * edge + shift for edge in EDGES for sign in (1, -1) for shift in (-1e-3, 1e-3)})


def make_inputs(formula: Formula, n: int = 64, scale: float = 3.0, seed: int = 0) -> list[Tensor]:
    """Random projections (n, 16) in fp64."""
    generator = torch.Generator().manual_seed(seed)
    return [
        scale * torch.randn(n, 16, dtype=torch.float64, generator=generator)
        for _ in range(formula.n_projections)
    ]


def test_every_variant_file_has_an_oracle_and_no_oracle_is_idle() -> None:
    assert sorted([*UNGATED, *GATED, *REDUCING]) == VARIANTS


def test_there_are_forty_of_them() -> None:
    assert len(VARIANTS) >= 40


@pytest.mark.parametrize("name", [*UNGATED, *GATED])
def test_hidden_is_what_the_oracle_says(name: str) -> None:
    formula = load_variant(name)
    if formula.gated:
        g, u = torch.meshgrid(*(torch.tensor(POINTS, dtype=torch.float64),) * 2, indexing="ij")
        expected = [[GATED[name](float(a), float(b)) for b in POINTS] for a in POINTS]
        hidden = formula.hidden(g, u)
    else:
        hidden = formula.hidden(torch.tensor(POINTS, dtype=torch.float64))
        expected = [UNGATED[name](x) for x in POINTS]  # type: ignore[assignment]
    torch.testing.assert_close(hidden, torch.tensor(expected, dtype=torch.float64), rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("name", REDUCING)
def test_hidden_that_reads_the_width_is_what_the_oracle_says(name: str) -> None:
    formula = load_variant(name)
    inputs = make_inputs(formula)
    expected = [REDUCING[name](*(x[i].tolist() for x in inputs)) for i in range(len(inputs[0]))]
    torch.testing.assert_close(
        formula.hidden(*inputs), torch.tensor(expected, dtype=torch.float64), rtol=1e-11, atol=1e-12
    )


@pytest.mark.parametrize("name", VARIANTS)
def test_a_row_that_reads_the_width_says_so(name: str) -> None:
    """Changing one hidden number's inputs changes others if and only if the formula reduces."""
    formula = load_variant(name)
    inputs = make_inputs(formula)
    moved = [x.clone() for x in inputs]
    for x in moved:
        x[:, 0] += 1.0
    others, others_moved = formula.hidden(*inputs)[:, 1:], formula.hidden(*moved)[:, 1:]
    assert torch.equal(others, others_moved) != formula.reduces
    assert formula.reduces == (name in REDUCING)


HUGE = 1e9


@pytest.mark.parametrize(
    ("name", "changes", "same"),
    [
        (
            "swiglu_oai",
            {"gate_args": {"beta": 1.0}, "gate_clamp": HUGE, "up_clamp": HUGE, "offset": 0.0},
            "swiglu",
        ),
        ("swiglu_clamp", {"gate_clamp": HUGE, "up_clamp": HUGE}, "swiglu"),
        ("swiglu_step", {"gate_out_clamp": HUGE, "up_clamp": HUGE}, "swiglu"),
        ("situ_glu", {"gate_args": {"beta": HUGE}, "value_args": {"beta": HUGE}}, "swiglu"),
        ("swiglu_beta", {}, "swiglu"),
        ("swiglu_mult", {}, "swiglu"),
        ("swish_beta", {}, "swish"),
        ("swish_beta", {"activation_args": {"beta": 1.702}}, "quick_gelu"),
        ("swiglu_beta", {"gate_args": {"beta": 1.702}}, "quick_geglu"),
        ("glu", {"value": "tanh"}, "gtu"),
        ("leaky_relu2", {"activation_args": {"slope": 0.0}}, "relu2"),
        ("leaky_relu", {"activation_args": {"slope": 0.0}}, "relu"),
        ("polyrelu", {"activation_args": {"a0": 0.0, "a1": 1.0, "a2": 0.0, "a3": 0.0}}, "relu"),
        ("fatreglu", {"gate_args": {"t": 0.0}}, "reglu"),
        ("xgelu", {}, "gelu"),
        ("xsilu", {}, "swish"),
        ("xswiglu", {}, "glu"),
        ("reglu2_norm", {"norm": None}, "reglu2"),
    ],
)
def test_identity(name: str, changes: dict[str, Any], same: str) -> None:
    formula = make_formula(dataclasses.replace(load_variant(name).spec, **changes))
    inputs = make_inputs(formula)
    torch.testing.assert_close(
        formula.hidden(*inputs), load_variant(same).hidden(*inputs), rtol=1e-12, atol=1e-12
    )


def test_equal_projections_make_squares() -> None:
    (h,) = make_inputs(load_variant("relu"))
    torch.testing.assert_close(load_variant("reglu").hidden(h, h), load_variant("relu2").hidden(h))
    torch.testing.assert_close(load_variant("bilinear").hidden(h, h), h.square())


def test_limits_of_swish_beta() -> None:
    (h,) = make_inputs(load_variant("relu"))
    spec = load_variant("swish_beta").spec

    def at(beta: float) -> Tensor:
        return make_formula(dataclasses.replace(spec, activation_args={"beta": beta})).hidden(h)

    torch.testing.assert_close(at(0.0), h / 2)
    torch.testing.assert_close(at(1e6), torch.relu(h))


def test_xielu_has_one_slope_at_zero() -> None:
    """Outside (eps, 0], where eps makes a small step."""
    h = torch.tensor([-1e-5, 1e-5], dtype=torch.float64, requires_grad=True)
    load_variant("xielu").hidden(h).sum().backward()
    assert h.grad is not None
    torch.testing.assert_close(h.grad, torch.full_like(h, 0.5), rtol=0, atol=2e-5)


@pytest.mark.parametrize("name", VARIANTS)
def test_gradients_by_finite_differences(name: str) -> None:
    """Of the lean block: input, weights, biases and learned arguments."""
    torch.manual_seed(0)
    formula = load_variant(name)
    n_in, width = formula.n_projections, 5
    shapes = [(3, 4), (n_in * width, 4), (n_in * width,), (6, width), (6,)]
    arguments = [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]
    learned = [
        torch.full((width,) if each.per_unit else (), each.init, dtype=torch.float64, requires_grad=True)
        for each in formula.learned
    ]

    def block(*tensors: Tensor) -> Tensor:
        return lean_feedforward(*tensors[:5], formula, tensors[5:])  # type: ignore[arg-type]

    assert torch.autograd.gradcheck(block, [*arguments, *learned])


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", VARIANTS)
def test_far_out_numbers_and_slopes_are_finite(name: str, dtype: torch.dtype) -> None:
    formula = load_variant(name)
    far = torch.tensor([-1e4, -100.0, -20.0, 0.0, 20.0, 100.0, 1e4], dtype=dtype)
    inputs = [each.reshape(-1).clone().requires_grad_() for each in torch.meshgrid(far, far, indexing="ij")]
    inputs = inputs[: formula.n_projections]
    hidden = formula.hidden(*inputs)
    assert hidden.dtype == dtype
    assert hidden.isfinite().all()
    for slope in torch.autograd.grad(hidden.sum(), inputs):
        assert slope.isfinite().all()


@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.parametrize("name", VARIANTS)
def test_autocast_keeps_shape_and_dtype_with_learned_arguments_moved(name: str, fast: bool) -> None:
    torch.manual_seed(0)
    block = FeedForward(load_variant(name), 12, 20, fast=fast)
    with torch.no_grad():
        for parameter in block.hidden.learned.values():
            parameter += 0.1 * torch.randn_like(parameter)
    x = torch.randn(2, 5, 12)
    with torch.autocast("cpu", torch.bfloat16):
        hidden, y = block.hidden(x), block(x)
    assert hidden.shape == (2, 5, 20)
    assert y.shape == (2, 5, 12)
    assert hidden.dtype == y.dtype == torch.bfloat16
    y.float().sum().backward()
    for parameter in block.parameters():
        assert parameter.grad is not None
        assert parameter.grad.dtype == torch.float32
        assert parameter.grad.shape == parameter.shape
        assert parameter.grad.isfinite().all()


@pytest.mark.parametrize("name", [name for name in VARIANTS if load_variant(name).learned])
def test_learned_arguments_reach_the_output(name: str) -> None:
    """Moving any of them moves hidden, and in the plain path as in the lean one."""
    torch.manual_seed(0)
    lean = FeedForward(load_variant(name), 12, 20).double()
    plain = FeedForward(load_variant(name), 12, 20, fast=False).double()
    x = torch.randn(7, 12, dtype=torch.float64)
    before = lean(x)
    for parameter in lean.hidden.learned.values():
        with torch.no_grad():
            parameter += 0.25
        after = lean(x)
        assert not torch.allclose(after, before, rtol=1e-6)
        before = after
    plain.load_state_dict(lean.state_dict())
    torch.testing.assert_close(plain(x), before)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's compiler uses what torch deprecates
@pytest.mark.parametrize("name", VARIANTS)
def test_compiled_equals_eager(name: str) -> None:
    torch.compiler.reset()
    torch.manual_seed(0)
    block = FeedForward(load_variant(name), 24, 32, bias=True)
    x = torch.randn(2, 9, 24)

    def run() -> list[Tensor]:
        into = x.clone().requires_grad_()
        block.zero_grad()
        y = block(into)
        y.square().sum().backward()
        assert into.grad is not None
        return [y, into.grad, *(p.grad.clone() for p in block.parameters() if p.grad is not None)]

    eager = run()
    block.compile(fullgraph=True, dynamic=False)
    compiled = run()
    assert len(eager) == len(compiled) == 2 + len(list(block.parameters()))
    for a, b in zip(compiled, eager, strict=True):
        assert (a - b).norm() <= 1e-5 * b.norm() + 1e-6 * math.sqrt(b.numel())
