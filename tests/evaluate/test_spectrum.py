"""Effective rank and participation ratio of known spectra."""

from __future__ import annotations

import math

import pytest
import scipy.stats
import torch

from glu_bench.evaluate.spectrum import measure_spectrum


def test_equal_directions_count_as_many_as_they_are() -> None:
    found = measure_spectrum(torch.diag(torch.tensor([2.0, 0.0, 2.0, 2.0, 0.0], dtype=torch.float64)))
    assert found.effective_rank == pytest.approx(3)
    assert found.participation_ratio == pytest.approx(3)


def test_unequal_directions_count_by_their_entropies() -> None:
    values = [4.0, 1.0, 1.0]
    turn, _ = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(0)).double())
    found = measure_spectrum(turn @ torch.diag(torch.tensor(values).double()) @ turn.t())
    assert found.participation_ratio == pytest.approx(36 / 18)
    assert found.effective_rank == pytest.approx(math.exp(scipy.stats.entropy(values)))


def test_white_noise_over_few_tokens_has_the_ratio_the_module_says() -> None:
    x = torch.randn(400, 100, generator=torch.Generator().manual_seed(0)).double()
    found = measure_spectrum(x.t() @ x / 400)
    assert found.participation_ratio == pytest.approx(100 / (1 + 100 / 400), rel=0.02)


@pytest.mark.parametrize("value", [0.0, math.nan])
def test_nothing_that_varies_is_no_number(value: float) -> None:
    found = measure_spectrum(torch.full((2, 2), value, dtype=torch.float64))
    assert found.effective_rank is found.participation_ratio is None
