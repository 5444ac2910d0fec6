"""Gradients of the held-out loss, against autograd on one batch of plain modules."""

from __future__ import annotations

import math

import pytest
import torch

from glu_bench.evaluate.gradients import collect_norms, measure_gradients
from glu_bench.lm.decoder import Decoder
from glu_bench.lm.hidden import list_ffns
from tests.evaluate.made import make_head, make_small


def backward_whole(model: Decoder) -> float:
    """The parameters' gradients of the mean loss over the whole head, from one pass."""
    (batch,) = make_head().batches()
    nats = model.nats(batch.tokens_BT, batch.targets_BT)[batch.real_BT]
    assert len(nats) == 61
    nats.mean().backward()
    return nats.mean().item()


@pytest.mark.parametrize("chunk_tokens", [1, 24, 4096])
@pytest.mark.parametrize("name", ["relu", "swiglu", "reglu2_norm"])
def test_norms_are_those_of_one_pass_whatever_the_batches(name: str, chunk_tokens: int) -> None:
    model = make_small(name)
    found, loss_nats = measure_gradients(model, make_head(chunk_tokens=chunk_tokens).batches())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert loss_nats == pytest.approx(backward_whole(model), rel=1e-6)
    for layer, ffn in zip(found, list_ffns(model), strict=True):
        into, down = ffn.hidden.in_proj.weight.grad, ffn.down.weight.grad
        assert into is not None
        assert down is not None
        gate = layer.gate_gradient_norm
        assert gate == (None if name == "relu" else pytest.approx(into[:12].norm().item(), rel=1e-4))
        assert layer.up_gradient_norm == pytest.approx(into[-12:].norm().item(), rel=1e-4)
        assert layer.down_gradient_norm == pytest.approx(down.norm().item(), rel=1e-4)
        whole = math.hypot(into.norm().item(), down.norm().item())
        assert layer.gradient_norm == pytest.approx(whole, rel=1e-4)
        assert layer.zero_gradient_share == 0


def test_a_dead_unit_takes_its_share_of_the_gradient_with_it() -> None:
    model = make_small("relu")
    ffn = list_ffns(model)[1]
    with torch.no_grad():
        ffn.hidden.in_proj.weight[4] = 0.0
    found, _ = measure_gradients(model, make_head().batches())
    assert [layer.zero_gradient_share for layer in found] == [0, 1 / 12, 0]


def test_a_gradient_that_is_no_number_is_counted() -> None:
    model = make_small("swiglu")
    with torch.no_grad():
        list_ffns(model)[2].down.weight[0, 0] = math.nan
    found, loss_nats = measure_gradients(model, make_head().batches())
    assert loss_nats is None
    assert [layer.nonfinite_gradients for layer in found] == [3 * 8 * 12] * 3
    assert {layer.gradient_norm for layer in found} == {None}
    assert {layer.zero_gradient_share for layer in found} == {None}


@pytest.mark.parametrize("name", ["relu", "swiglu"])
def test_norms_of_a_steps_own_gradients(name: str) -> None:
    model = make_small(name)
    backward_whole(model)
    expected, _ = measure_gradients(model, make_head().batches())
    found = collect_norms(model)
    kinds = ("up", "down") if name == "relu" else ("gate", "up", "down")
    assert list(found) == [f"{kind}_gradient_norm_per_layer" for kind in kinds]
    for kind in kinds:
        norms = [getattr(layer, f"{kind}_gradient_norm") for layer in expected]
        assert found[f"{kind}_gradient_norm_per_layer"] == pytest.approx(norms, rel=1e-4)
