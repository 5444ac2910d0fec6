"""The lean step: the numbers and gradients of the plain modules, in less memory."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from glu_bench.ffn.feedforward import FeedForward
from glu_bench.ffn.formula import list_variants, load_variant

D, F = 24, 32
VARIANTS = list_variants()


def make_pair(name: str, bias: bool = False) -> tuple[FeedForward, FeedForward]:
    """A plain and a lean block with equal weights."""
    torch.manual_seed(0)
    plain = FeedForward(load_variant(name), D, F, bias=bias, fast=False)
    lean = FeedForward(load_variant(name), D, F, bias=bias, fast=True)
    lean.load_state_dict(plain.state_dict())
    return plain, lean


def output_and_gradients(block: FeedForward, x: Tensor) -> list[Tensor]:
    x = x.clone().requires_grad_()
    y = block(x)
    y.backward(torch.randn(y.shape, generator=torch.Generator().manual_seed(1)).to(y.dtype))
    assert x.grad is not None
    return [y, x.grad, *(p.grad for p in block.parameters() if p.grad is not None)]


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("name", VARIANTS)
def test_equals_the_plain_modules_in_fp32(name: str, bias: bool) -> None:
    plain, lean = make_pair(name, bias)
    x = torch.randn(2, 9, D)
    expected, got = output_and_gradients(plain, x), output_and_gradients(lean, x)
    assert len(got) == 2 + len(list(lean.parameters()))
    for a, b in zip(got, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("name", VARIANTS)
def test_under_bf16_autocast_within_a_tenth(name: str, bias: bool) -> None:
    """Against fp32 in norm, and no more than 1.5 times as far off as plain.

    Smooth gates are within 1 %; rounding moves inputs across the kink of ReLU. A learned scalar's
    gradient is a sum of thousands that nearly cancel: no share of it is a measure.
    """
    plain, lean = make_pair(name, bias)
    x = torch.randn(4, 64, D)
    exact = output_and_gradients(plain, x)
    plain.zero_grad()
    with torch.autocast("cpu", torch.bfloat16):
        expected, got = output_and_gradients(plain, x), output_and_gradients(lean, x)
    assert got[0].dtype == expected[0].dtype == torch.bfloat16
    for a, b, c in zip(got, expected, exact, strict=True):
        assert a.dtype == b.dtype
        if c.dim() == 0:
            continue
        off, off_plain = (v.float() - c for v in (a, b))
        assert off.norm() < 0.1 * c.norm()
        assert off.norm() < 1.5 * off_plain.norm()


def test_second_derivative_is_refused() -> None:
    _, lean = make_pair("swiglu")
    x = torch.randn(3, D, requires_grad=True)
    with pytest.raises(RuntimeError, match="fast=False"):
        torch.autograd.grad(lean(x).sum(), x, create_graph=True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", VARIANTS)
def test_saves_no_more_than_input_and_projections(name: str, dtype: torch.dtype) -> None:
    """D + 2F numbers a token in the activations' dtype if gated, D + F if not; weights apart."""
    _, lean = make_pair(name)
    n_tokens = 50  # unlike any width, so that weights are told apart by their shapes
    saved: dict[int, int] = {}

    def pack(tensor: Tensor) -> Any:
        if tensor.shape[:1] == (n_tokens,):
            saved[tensor.data_ptr()] = tensor.numel() * tensor.element_size()
        return tensor

    x = torch.randn(n_tokens, D, requires_grad=True)
    with (
        torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor),
        torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16),
    ):
        lean(x)
    n_parts = 2 if load_variant(name).gated else 1
    assert 0 < sum(saved.values()) <= n_tokens * (D + n_parts * F) * dtype.itemsize


BY_N_LEARNED = {len(load_variant(name).learned): name for name in VARIANTS}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's compiler uses what torch deprecates
@pytest.mark.parametrize("gradients", [True, False])
@pytest.mark.parametrize("name", BY_N_LEARNED.values())
def test_compiles_as_one_graph(name: str, gradients: bool) -> None:
    block = FeedForward(load_variant(name), 8, 16)
    compiled = torch.compile(block, backend="eager", fullgraph=True)
    x = torch.randn(3, 8)
    with torch.set_grad_enabled(gradients):
        torch.testing.assert_close(compiled(x), block(x))


def test_no_gradients_no_saving() -> None:
    plain, lean = make_pair("geglu")
    x = torch.randn(5, D)
    with torch.no_grad():
        torch.testing.assert_close(lean(x), plain(x))
