"""Each measure of hidden units on tensors whose answer is known by hand."""

from __future__ import annotations

import dataclasses
import math

import pytest
import scipy.stats
import torch
from torch import Tensor

from glu_bench.evaluate.units import GATE_CELLS, OCTAVE_REACH
from tests.evaluate.made import measure


def draw(n_tokens: int, d_ff: int, seed: int = 0) -> Tensor:
    return torch.randn(n_tokens, d_ff, generator=torch.Generator().manual_seed(seed))


def test_a_unit_made_dead_on_purpose_is_found() -> None:
    gate = draw(200, 8)
    gate[:, 3] = -gate[:, 3].abs()
    found = measure("relu", gate)
    assert found.dead_share == 1 / 8
    assert found.always_on_share == 0
    assert measure("gelu", gate).dead_share == 0
    assert measure("reglu", gate, up=draw(200, 8, 1)).dead_share == 1 / 8


def test_dead_is_at_most_a_millionth_of_the_rms_at_every_token() -> None:
    hidden = torch.ones(10, 4)
    for unit, size in enumerate((0.99e-6, 1.01e-6, 0.0)):  # the RMS is 1/2
        hidden[:, unit] = 0.5 * size
    assert measure("relu", hidden, hidden=hidden).dead_share == 2 / 4
    hidden[7, 0] = 0.5 * 1.01e-6
    assert measure("relu", hidden, hidden=hidden).dead_share == 1 / 4


def test_a_unit_that_is_never_off_is_always_on() -> None:
    gate = draw(200, 5)
    gate[:, 1], gate[:, 4] = gate[:, 1].abs() + 0.1, -gate[:, 4].abs()
    found = measure("relu", gate)
    assert found.always_on_share == found.dead_share == 1 / 5


def test_exact_zeros_are_counted() -> None:
    gate = torch.tensor([[-1.0, 2.0, -3.0, 4.0], [-1.0, 0.0, 5.0, 1e-30]])
    assert measure("relu", gate).zero_share == 4 / 8


def test_a_state_of_zeros_alone_is_dead_and_has_no_spread() -> None:
    found = measure("relu", -torch.ones(5, 4))
    assert found.dead_share == found.zero_share == 1
    assert found.hidden_rms == found.hidden_variance == 0
    assert found.hidden_varying_share is None
    assert found.effective_rank is found.participation_ratio is found.hidden_kurtosis is None


def test_variance_over_tokens_is_a_units_own() -> None:
    """Units that differ but never change have none."""
    hidden = torch.tensor([1.0, 2.0, 3.0, 4.0]).expand(6, 4).clone()
    assert measure("relu", hidden).hidden_variance == 0
    hidden[::2, 0] = 3.0  # 1 and 3 in turns: variance 1, mean square 5
    found = measure("relu", hidden)
    assert found.hidden_variance == pytest.approx(1 / 4)
    assert found.hidden_varying_share == pytest.approx(1 / (5 + 4 + 9 + 16))
    assert found.gate_variance == found.hidden_variance
    found = measure("reglu", hidden, up=torch.tensor([2.0]).expand(6, 4))
    assert found.gate_variance == pytest.approx(1 / 4)
    assert found.hidden_variance == pytest.approx(4 / 4)


def test_extremes_and_moments_are_those_of_scipy() -> None:
    hidden = draw(400, 6) ** 3
    hidden[17, 2] = -448.0
    found = measure("relu", hidden, hidden=hidden)
    flat = hidden.double().flatten().numpy()
    assert found.hidden_kurtosis == pytest.approx(scipy.stats.kurtosis(flat, fisher=False))
    assert found.hidden_max == 448
    assert found.hidden_max_over_fp8_e4m3 == 1
    assert found.hidden_max_over_bf16 == pytest.approx(448 / (2**127 * (2 - 2**-7)))
    assert found.hidden_rms == pytest.approx(math.sqrt((flat**2).mean()))
    assert found.hidden_max_over_rms == pytest.approx(448 / found.hidden_rms)


def test_a_hidden_state_of_three_equal_directions_has_rank_3() -> None:
    """Three orthonormal columns, orthogonal to ones, times three orthonormal rows."""
    basis, _ = torch.linalg.qr(torch.cat([torch.ones(50, 1), draw(50, 3)], 1).double())
    rows, _ = torch.linalg.qr(draw(20, 3, 1).double())
    hidden = (100 * basis[:, 1:] @ rows.t()).float()
    found = measure("relu", hidden, hidden=hidden)
    assert found.effective_rank == pytest.approx(3, rel=1e-5)
    assert found.participation_ratio == pytest.approx(3, rel=1e-5)
    assert found.effective_rank_share == pytest.approx(3 / 20, rel=1e-5)
    shifted = hidden + 5.0  # a constant is no direction in use
    assert measure("relu", shifted, hidden=shifted).effective_rank == pytest.approx(3, rel=1e-4)


def test_histograms_count_every_number_once() -> None:
    gate = torch.tensor([[-100.0, -8.0, -0.01, 0.01], [0.25, 7.99, 8.0, 100.0]])
    hidden = torch.tensor([[1.0, -1.5, 2.0, 0.0], [0.5, 2.0**-50, 2.0**60, -3.9]])
    found = measure("relu", gate, hidden=hidden)
    cells = {cell: count for cell, count in enumerate(found.gate_histogram) if count}
    assert cells == {0: 2, 31: 1, 32: 1, 33: 1, GATE_CELLS - 1: 3}
    octaves = {cell - OCTAVE_REACH: count for cell, count in enumerate(found.hidden_octaves) if count}
    assert octaves == {-40: 1, -1: 1, 0: 2, 1: 2, 39: 1}


@pytest.mark.parametrize("name", ["relu", "swiglu", "glu"])
def test_no_measure_depends_on_how_tokens_are_cut(name: str) -> None:
    gate, up = 3 * draw(101, 9), draw(101, 9, 1) if name != "relu" else None
    whole = dataclasses.asdict(measure(name, gate, up))
    for n_chunks in (7, 101):
        cut = dataclasses.asdict(measure(name, gate, up, n_chunks=n_chunks))
        for key, value in whole.items():
            assert cut[key] == pytest.approx(value, rel=1e-12), key


def test_a_nan_is_counted_and_nothing_is_averaged_over_the_rest() -> None:
    gate = draw(100, 6)
    hidden = torch.relu(gate)
    hidden[3, 2], hidden[9, 2], hidden[4, 0] = math.nan, math.inf, -math.inf
    found = dataclasses.asdict(measure("relu", gate, hidden=hidden))
    assert found["nonfinite_hidden"] == 3
    assert found["nonfinite_gate"] == 0
    of_hidden = {"dead_share", "always_on_share", "zero_share", "participation_ratio", "effective_rank"}
    of_hidden |= {key for key in found if key.startswith("hidden_") and key != "hidden_octaves"}
    assert {key for key, value in found.items() if value is None} == of_hidden | {"effective_rank_share"}


def test_a_nan_in_the_gate_is_counted_there() -> None:
    gate = draw(100, 6)
    gate[5, 5] = math.nan
    found = measure("swiglu", gate, hidden=torch.ones(100, 6))
    assert (found.nonfinite_gate, found.nonfinite_hidden) == (1, 0)
    assert found.saturation is found.saturation_low is found.zero_slope_share is found.gate_variance is None
    assert found.dead_share == 0
    assert sum(found.gate_histogram) == 599
