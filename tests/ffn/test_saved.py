"""Bytes kept for the backward pass, against arithmetic and against what autograd holds on the CPU."""

from __future__ import annotations

import pytest
import torch

from glu_bench.ffn.feedforward import FeedForward
from glu_bench.ffn.formula import list_variants, load_variant
from glu_bench.ffn.saved import count_saved_bytes, measure_saved_bytes

D, F = 12, 32


@pytest.mark.parametrize("name", list_variants())
def test_the_lean_step_keeps_its_input_and_its_projection(name: str) -> None:
    formula = load_variant(name)
    n_in = 2 if formula.spec.gated else 1
    assert count_saved_bytes(formula, D, F, torch.bfloat16) == 2 * (D + n_in * F)
    assert count_saved_bytes(formula, D, F, torch.float32, bias=True) == 4 * (D + n_in * F)


@pytest.mark.parametrize(
    ("name", "n_hidden"),
    # relu keeps its result alone, gelu its input and its result; a gated unit the fused projection
    # (2F), the gate's function and the product
    [("relu", 1), ("gelu", 2), ("bilinear", 3), ("swiglu", 4)],
)
def test_part_by_part_keeps_more(name: str, n_hidden: int) -> None:
    assert count_saved_bytes(load_variant(name), D, F, torch.float32, fast=False) == 4 * (D + n_hidden * F)


@pytest.mark.parametrize("name", ["swiglu", "solu", "polynorm"])
@pytest.mark.parametrize("fast", [True, False])
def test_the_count_is_what_autograd_is_handed_on_the_cpu(name: str, fast: bool) -> None:
    n_tokens = 64
    block = FeedForward(load_variant(name), D, F, fast=fast)
    kept = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        y = block(torch.randn(n_tokens, D, requires_grad=True))
    assert y.grad_fn is not None
    weights = {p.untyped_storage().data_ptr() for p in block.parameters()}
    found = sum(n for at, n in kept.items() if at not in weights and n >= 4 * n_tokens)
    assert found == n_tokens * count_saved_bytes(load_variant(name), D, F, torch.float32, fast=fast)


@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.parametrize("name", ["relu", "swiglu", "swiglu_beta", "polynorm"])
def test_a_pass_that_runs_keeps_what_was_counted(name: str, fast: bool) -> None:
    """Under autocast too, where copies of the weights are kept and must not count."""
    block = FeedForward(load_variant(name), D, F, fast=fast)
    x = torch.randn(50, D, dtype=torch.bfloat16, requires_grad=True)

    def forward() -> torch.Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            y: torch.Tensor = block(x)
        return y

    expected = count_saved_bytes(load_variant(name), D, F, torch.bfloat16, fast=fast)
    assert measure_saved_bytes(forward, 50) == expected
