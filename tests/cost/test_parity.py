"""Parity: the numbers of a pass, and the greatest distance between two."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from glu_bench.cost.parity import find_difference, run_pass


def test_a_pass_is_the_output_and_the_gradients() -> None:
    """Of y = x W^T: d_x = d_y W and d_W = d_y^T x."""
    linear = nn.Linear(3, 2, bias=False)
    x, d_y = torch.randn(5, 3), torch.randn(5, 2)
    y, d_x, d_w = run_pass(linear, linear.parameters(), x, d_y, "fp32")
    torch.testing.assert_close(y, x @ linear.weight.detach().t())
    torch.testing.assert_close(d_x, d_y @ linear.weight.detach())
    torch.testing.assert_close(d_w, d_y.t() @ x)
    assert linear.weight.grad is None
    assert not y.requires_grad
    assert run_pass(linear, linear.parameters(), x, d_y, "bf16")[0].dtype == torch.bfloat16


def test_the_greatest_difference_counts() -> None:
    """|(3, 4) - (3, 4.5)| / |(3, 4)| = 0.1; the other tensor is nearer."""
    expected = [torch.tensor([3.0, 4.0]), torch.tensor([100.0])]
    assert find_difference(expected, expected) == 0.0
    found = [torch.tensor([3.0, 4.5]), torch.tensor([101.0])]
    assert find_difference(found, expected) == pytest.approx(0.1)
    assert find_difference(found[::-1], expected[::-1]) == pytest.approx(0.1)


def test_a_zero_that_should_be_one_is_far_off_and_no_division_by_zero() -> None:
    zero, one = [torch.zeros(2)], [torch.ones(2)]
    assert find_difference(zero, zero) == 0.0
    assert find_difference(zero, one) == pytest.approx(1.0)
    assert (find_difference(one, zero) or 0) > 1e30


def test_nan_has_no_difference() -> None:
    assert find_difference([torch.tensor([float("nan")])], [torch.ones(1)]) is None
