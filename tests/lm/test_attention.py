"""The parts around the scores: the norm, the rotation, and which path is taken."""

from __future__ import annotations

import math

import pytest
import torch

from glu_bench.lm.attention import RMSNorm, choose_attention, make_future, make_rotary, rotate


def test_norm_is_the_formula_and_keeps_float64() -> None:
    norm = RMSNorm(6, eps=1e-5).double()
    torch.nn.init.normal_(norm.weight)
    x = 1 + 1e-9 * torch.arange(6, dtype=torch.float64)  # fp32 would see six times 1
    expected = x / math.sqrt(sum(v**2 for v in x.tolist()) / 6 + 1e-5) * norm.weight
    torch.testing.assert_close(norm(x), expected, rtol=1e-14, atol=0)


def test_norm_of_bf16_is_taken_in_fp32() -> None:
    norm = RMSNorm(64, eps=1e-5)
    x = torch.randn(5, 64).bfloat16()
    assert norm(x).dtype == torch.bfloat16
    torch.testing.assert_close(norm(x), norm(x.float()).bfloat16(), rtol=0, atol=0)


def test_rotation_turns_pairs_like_complex_numbers() -> None:
    T, K, theta = 7, 8, 100.0
    x = torch.randn(1, 1, T, K, dtype=torch.float64)
    frequency = theta ** (-torch.arange(0, K, 2, dtype=torch.float64) / K)
    angle = torch.arange(T, dtype=torch.float64)[:, None] * frequency
    turned = torch.complex(x[..., : K // 2], x[..., K // 2 :]) * torch.exp(1j * angle)
    got = rotate(x, *make_rotary(T, K, theta))
    torch.testing.assert_close(got, torch.cat([turned.real, turned.imag], -1), rtol=1e-6, atol=1e-6)


def test_rotated_products_depend_on_the_distance_alone() -> None:
    cos_TK, sin_TK = make_rotary(20, 8, 1e4)
    q, k = torch.randn(8).expand(1, 1, 20, 8), torch.randn(8).expand(1, 1, 20, 8)
    scores_TT = (rotate(q, cos_TK, sin_TK) @ rotate(k, cos_TK, sin_TK).transpose(-2, -1))[0, 0]
    torch.testing.assert_close(scores_TT[5, 2], scores_TT[19, 16], rtol=1e-4, atol=1e-5)


def test_mask_hides_later_keys_alone() -> None:
    hidden = make_future(4).isinf()
    assert hidden.tolist() == [[key > query for key in range(4)] for query in range(4)]


@pytest.mark.parametrize(
    ("device_type", "seq_len", "fast", "path"),
    [
        ("cpu", 256, True, "matmul"),
        ("cpu", 512, True, "matmul"),
        ("cpu", 513, True, "sdpa"),
        ("cuda", 256, True, "sdpa"),
        ("cpu", 256, False, "plain"),
        ("cuda", 2048, False, "plain"),
    ],
)
def test_path_by_device_and_length(device_type: str, seq_len: int, fast: bool, path: str) -> None:
    assert choose_attention(device_type, seq_len, fast) == path
