"""What a compiled function keeps for its backward pass."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from glu_bench.compiler import compile_function
from glu_bench.ffn.feedforward import FeedForward
from glu_bench.ffn.formula import load_variant
from glu_bench.ffn.saved import count_saved_bytes, measure_saved_bytes

D, F, N = 96, 256, 50


@pytest.mark.slow  # compiles
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's compiler uses what torch deprecates
@pytest.mark.parametrize("name", ["gelu", "swiglu", "geglu", "swiglu_oai", "xielu"])
def test_compiled_the_block_keeps_no_more_than_before_any_compiler(name: str) -> None:
    """Inductor's own choice keeps hidden as well: D + 3F numbers for swiglu."""
    torch.compiler.reset()
    block = FeedForward(load_variant(name), D, F)
    compiled = compile_function(lambda block, x: block(x))
    x_ND = torch.randn(N, D, dtype=torch.bfloat16, requires_grad=True)

    def forward() -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            y_ND: Tensor = compiled(block, x_ND)
        return y_ND

    forward().sum().backward()  # type: ignore[no-untyped-call]
    kept = measure_saved_bytes(forward, N)
    assert kept <= count_saved_bytes(load_variant(name), D, F, torch.bfloat16)
