"""The block around the formula: projections, biases, widths, the order of gate and up."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from glu_bench.ffn.feedforward import FeedForward, make_feedforward
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
