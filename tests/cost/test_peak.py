"""The peak: two FLOPs for each pair that is multiplied, of the product that is fastest."""

from __future__ import annotations

import pytest
import torch

from glu_bench.cost import peak
from glu_bench.cost.peak import find_peak, make_products


@pytest.mark.parametrize(("dtype", "name"), [(torch.bfloat16, "bf16"), (torch.float32, "fp32")])
def test_the_fastest_product_counts(dtype: torch.dtype, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peak, "PEAK_SHAPES", ((8, 4, 2), (16, 8, 4)))
    products = make_products(dtype, "cpu")
    for multiply in products.values():
        multiply()
    assert list(products) == [f"{name} product 8x4x2", f"{name} product 16x8x4"]
    seconds = {f"{name} product 8x4x2": [1.0, 2.0, 9.0], f"{name} product 16x8x4": [4.0, 4.0, 5.0]}
    assert find_peak(seconds, dtype) == 2 * 16 * 8 * 4 / 4.0  # against 2 * 8 * 4 * 2 / 2.0
