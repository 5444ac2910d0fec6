"""The written-out attention against torch's own and against finite differences."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from glu_bench.lm import lean
from glu_bench.lm.attention import attend_plainly, make_future, make_rotary, rotate
from glu_bench.lm.lean import CHUNK, attend_lean

B, H, K = 2, 3, 8
# shorter than a chunk, just one, one and a bit, several with a rest
LENGTHS = [1, 5, CHUNK, CHUNK + 1, 3 * CHUNK + 7]


def make_qkv(T: int, dtype: torch.dtype = torch.float64) -> Tensor:
    torch.manual_seed(T)
    return torch.randn(B, T, 3 * H * K, dtype=dtype)


def by_heads(attend: str, qkv: Tensor) -> Tensor:
    """torch's attention, or our plain one, on the projection that the lean step takes."""
    T = qkv.shape[1]
    cos_TK, sin_TK = make_rotary(T, K, 1e4)
    q, k, v = qkv.view(B, T, 3, H, K).permute(2, 0, 3, 1, 4).unbind(0)
    q, k = rotate(q, cos_TK, sin_TK), rotate(k, cos_TK, sin_TK)
    if attend == "torch":
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
    else:
        mixed = attend_plainly(q, k, v)
    return mixed.transpose(1, 2).reshape(B, T, H * K)


def by_lean(qkv: Tensor) -> Tensor:
    T = qkv.shape[1]
    return attend_lean(qkv, *make_rotary(T, K, 1e4), make_future(T), H)


@pytest.mark.parametrize("attend", ["torch", "plain"])
@pytest.mark.parametrize("T", LENGTHS)
def test_output_and_gradient_equal(T: int, attend: str) -> None:
    results = []
    for function in (by_lean, lambda qkv: by_heads(attend, qkv)):
        qkv = make_qkv(T).requires_grad_()
        y = function(qkv)
        y.backward(torch.linspace(-1, 2, y.numel(), dtype=y.dtype).view(y.shape))
        results.append((y, qkv.grad))
    torch.testing.assert_close(results[0], results[1], rtol=1e-10, atol=1e-12)


def test_fp32_gradient_is_tight() -> None:
    qkv = make_qkv(2 * CHUNK, torch.float32)
    exact, got = qkv.double().requires_grad_(), qkv.clone().requires_grad_()
    by_heads("torch", exact).pow(2).sum().backward()
    by_lean(got).pow(2).sum().backward()
    assert exact.grad is not None
    assert got.grad is not None
    torch.testing.assert_close(got.grad.double(), exact.grad, rtol=1e-5, atol=1e-5)


def test_bf16_gradient_is_within_two_percent_in_norm() -> None:
    qkv = make_qkv(2 * CHUNK, torch.bfloat16)
    exact, got = qkv.double().requires_grad_(), qkv.clone().requires_grad_()
    by_heads("torch", exact).pow(2).sum().backward()
    by_lean(got).pow(2).sum().backward()
    assert exact.grad is not None
    assert got.grad is not None
    assert (got.grad.double() - exact.grad).norm() < 0.02 * exact.grad.norm()


def test_large_scores_stay_finite() -> None:
    """Future keys may not push the kept weights of a row to zero."""
    qkv = (300 * make_qkv(CHUNK + 3, torch.float32)).requires_grad_()
    y = by_lean(qkv)
    y.sum().backward()
    assert torch.isfinite(y).all()
    assert qkv.grad is not None
    assert torch.isfinite(qkv.grad).all()


def test_gradient_by_finite_differences(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lean, "CHUNK", 2)
    qkv = make_qkv(5).requires_grad_()
    assert torch.autograd.gradcheck(by_lean, [qkv])


def test_second_derivative_is_refused() -> None:
    qkv = make_qkv(4).requires_grad_()
    with pytest.raises(RuntimeError, match="fast=False"):
        torch.autograd.grad(by_lean(qkv).sum(), qkv, create_graph=True)
