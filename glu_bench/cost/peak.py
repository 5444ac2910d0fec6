"""The machine's limit: the best rate of large matrix multiplies, timed in turns with what it judges."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

import torch

from glu_bench.cost.race import Step

PEAK_SHAPES = ((2048, 2048, 2048), (4096, 1024, 1024))  # M, K, N of the products whose best is the peak
CUDA_SHAPES = ((8192, 8192, 8192),)  # in addition: smaller ones do not fill a GPU
NAMES = {torch.bfloat16: "bf16", torch.float32: "fp32"}


def make_products(dtype: torch.dtype, device: str) -> dict[str, Step]:
    """The multiplications by name, to race beside the contestants; `find_peak` reads their times."""

    def make(m: int, k: int, n: int) -> Step:
        left_MK, right_KN = (torch.randn(shape, device=device).to(dtype) for shape in ((m, k), (k, n)))
        out_MN = torch.empty(m, n, dtype=dtype, device=device)

        def multiply() -> None:
            torch.mm(left_MK, right_KN, out=out_MN)

        return multiply

    shapes = PEAK_SHAPES + (CUDA_SHAPES if device.startswith("cuda") else ())
    return {_product_name(dtype, *shape): make(*shape) for shape in shapes}


def find_peak(seconds: Mapping[str, Sequence[float]], dtype: torch.dtype) -> float:
    """FLOP/s of the fastest product, of each the median over rounds."""
    return max(
        2 * m * k * n / statistics.median(seconds[name])
        for m, k, n in PEAK_SHAPES + CUDA_SHAPES
        if (name := _product_name(dtype, m, k, n)) in seconds
    )


def _product_name(dtype: torch.dtype, m: int, k: int, n: int) -> str:
    return f"{NAMES[dtype]} product {m}x{k}x{n}"
