"""Norms, cosines and learned numbers of a block's weights."""

from __future__ import annotations

import math

import pytest
import torch

from glu_bench.evaluate.weights import measure_weights
from glu_bench.ffn.feedforward import make_feedforward


def test_norms_are_of_gate_up_and_down_apart() -> None:
    ffn = make_feedforward("swiglu", d_model=4, d_ff=6)
    with torch.no_grad():
        ffn.hidden.in_proj.weight[:6] = 1.0
        ffn.hidden.in_proj.weight[6:] = 2.0
        ffn.down.weight.fill_(3.0)
    found = measure_weights(ffn)
    root = math.sqrt(24)
    assert found.gate_weight_norm == pytest.approx(root)
    assert found.up_weight_norm == pytest.approx(2 * root)
    assert found.down_weight_norm == pytest.approx(3 * root)
    assert found.gate_up_cosine == found.gate_up_cosine_size == pytest.approx(1)


def test_cosines_are_of_a_units_own_rows() -> None:
    ffn = make_feedforward("swiglu", d_model=2, d_ff=3)
    rows = [[1.0, 0.0], [1.0, 0.0], [0.0, 2.0], [5.0, 0.0], [-1.0, 0.0], [1.0, 1.0]]
    with torch.no_grad():
        ffn.hidden.in_proj.weight.copy_(torch.tensor(rows))
    found = measure_weights(ffn)
    assert found.gate_up_cosine == pytest.approx((1 - 1 + math.sqrt(0.5)) / 3)
    assert found.gate_up_cosine_size == pytest.approx((1 + 1 + math.sqrt(0.5)) / 3)


def test_an_ungated_block_has_no_gate() -> None:
    found = measure_weights(make_feedforward("gelu", d_model=4, d_ff=6))
    assert found.gate_weight_norm is found.gate_up_cosine is found.gate_up_cosine_size is None
    assert found.up_weight_norm is not None


def test_learned_numbers_are_named_and_vectors_summarised() -> None:
    assert measure_weights(make_feedforward("swiglu_beta", d_model=4, d_ff=6)).learned == {"gate.beta": 1.0}
    ffn = make_feedforward("swiglu_mult", d_model=4, d_ff=4)
    with torch.no_grad():
        ffn.hidden.learned["mult"].copy_(torch.tensor([1.0, 2.0, 3.0, -2.0]))
    assert measure_weights(ffn).learned == {"mult": {"mean": 1.0, "min": -2.0, "max": 3.0}}


def test_a_nan_is_counted_and_its_norm_is_none() -> None:
    ffn = make_feedforward("swiglu", d_model=4, d_ff=6)
    with torch.no_grad():
        ffn.hidden.in_proj.weight[7, 1] = math.nan  # a row of up
        ffn.down.weight[0, :2] = math.inf
    found = measure_weights(ffn)
    assert found.nonfinite_weights == 3
    assert found.up_weight_norm is found.down_weight_norm is found.gate_up_cosine is None
    assert found.gate_weight_norm is not None
