"""The block around the formula: projections, biases, widths, the order of gate and up."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from glu_bench.ffn.feedforward import FeedForward, HiddenProjection, make_feedforward
from glu_bench.ffn.formula import load_variant
from tests.ffn.oracles import GATED, UNGATED


def written_out(name: str, block: FeedForward, x: Tensor) -> Tensor:
    """The block's output in float64, by the formula of this file."""
    w_in, w_down = block.hidden.in_proj.weight.double(), block.down.weight.double()
    b_in, b_down = block.hidden.in_proj.bias, block.down.bias
    into = x.double() @ w_in.T + (0 if b_in is None else b_in.double())
    rows = into.reshape(-1, into.shape[-1]).tolist()
    if name in UNGATED:
        found = [[UNGATED[name](h) for h in row] for row in rows]
    else:
        n_hidden = w_down.shape[1]
        found = [
            [GATED[name](*pair) for pair in zip(row[:n_hidden], row[n_hidden:], strict=True)] for row in rows
        ]
    hidden = torch.tensor(found, dtype=torch.float64).view(*into.shape[:-1], -1)
    return hidden @ w_down.T + (0 if b_down is None else b_down.double())


def make_block(name: str, *, fast: bool, bias: bool, d_out: int | None = None) -> FeedForward:
    torch.manual_seed(0)
    return FeedForward(load_variant(name), 12, 20, d_out=d_out, bias=bias, fast=fast)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("fast", [False, True])
@pytest.mark.parametrize("name", ["gelu", "mish", "swiglu", "swiglu_oai", "swiglu_mult"])
def test_output_is_the_formula_written_out(name: str, fast: bool, bias: bool) -> None:
    block = make_block(name, fast=fast, bias=bias, d_out=7).double()
    x = 3 * torch.randn(2, 5, 12, dtype=torch.float64)
    torch.testing.assert_close(block(x), written_out(name, block, x), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("fast", [False, True])
def test_one_token_without_batch(fast: bool) -> None:
    block = make_block("swiglu", fast=fast, bias=True)
    x = torch.randn(12, requires_grad=True)
    block(x).sum().backward()
    assert block(x).shape == (12,)
    assert x.grad is not None
    assert x.grad.shape == (12,)


@pytest.mark.parametrize("name", ["relu", "gelu", "swish", "glu", "bilinear", "reglu", "geglu", "swiglu"])
def test_matched_width_follows_the_ungated_baseline(name: str) -> None:
    block = make_feedforward(name, d_model=24)
    assert sum(p.numel() for p in block.parameters()) == 2 * 24 * 4 * 24


def test_gated_block_equals_torch_glu() -> None:
    """torch.nn.functional.glu has the value first, ours the gate."""
    block = make_block("glu", fast=True, bias=False)
    x = torch.randn(3, 12)
    gate, up = block.hidden.in_proj(x).chunk(2, dim=-1)
    hidden = torch.nn.functional.glu(torch.cat([up, gate], -1), dim=-1)
    torch.testing.assert_close(block(x), block.down(hidden))


class GatedLinearUnit(torch.nn.Module):
    """The unit of one of the two texts the project started from: value times gate, biases, no way down."""

    def __init__(self, input_dim: int, output_dim: int, gate_activation: torch.nn.Module) -> None:
        super().__init__()
        self.linear_main = torch.nn.Linear(input_dim, output_dim)
        self.linear_gate = torch.nn.Linear(input_dim, output_dim)
        self.gate_activation = gate_activation

    def forward(self, x: Tensor) -> Tensor:
        main: Tensor = self.linear_main(x)
        return main * self.gate_activation(self.linear_gate(x))


class SwiGLU(torch.nn.Module):
    """The block of the other: not square, all three projections with biases."""

    def __init__(self, input_dim: int, output_dim: int) -> None:
        super().__init__()
        self.gate_proj = torch.nn.Linear(input_dim, 4 * output_dim)
        self.value_proj = torch.nn.Linear(input_dim, 4 * output_dim)
        self.output_proj = torch.nn.Linear(4 * output_dim, output_dim)

    def forward(self, x: Tensor) -> Tensor:
        hidden = torch.nn.functional.silu(self.gate_proj(x)) * self.value_proj(x)
        y: Tensor = self.output_proj(hidden)
        return y


@torch.no_grad()
def load_projections(into: torch.nn.Linear, gate: torch.nn.Linear, up: torch.nn.Linear) -> None:
    into.weight.copy_(torch.cat([gate.weight, up.weight]))
    into.bias.copy_(torch.cat([gate.bias, up.bias]))


@pytest.mark.parametrize(
    ("name", "gate"),
    [
        ("glu", torch.nn.Sigmoid()),
        ("swiglu", torch.nn.SiLU()),
        ("geglu", torch.nn.GELU()),
        ("reglu", torch.nn.ReLU()),
    ],
)
def test_a_gated_linear_unit_without_projection_down(name: str, gate: torch.nn.Module) -> None:
    torch.manual_seed(0)
    theirs = GatedLinearUnit(12, 7, gate)
    ours = HiddenProjection(load_variant(name), 12, 7, bias=True)
    load_projections(ours.in_proj, theirs.linear_gate, theirs.linear_main)
    x = torch.randn(4, 12)
    torch.testing.assert_close(ours(x), theirs(x))


@pytest.mark.parametrize("fast", [False, True])
def test_a_swiglu_block_that_is_not_square(fast: bool) -> None:
    torch.manual_seed(0)
    theirs = SwiGLU(12, 7)
    ours = FeedForward(load_variant("swiglu"), 12, 28, d_out=7, bias=True, fast=fast)
    load_projections(ours.hidden.in_proj, theirs.gate_proj, theirs.value_proj)
    ours.down.load_state_dict(theirs.output_proj.state_dict())
    x = torch.randn(4, 12)
    torch.testing.assert_close(ours(x), theirs(x))
