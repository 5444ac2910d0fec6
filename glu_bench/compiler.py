"""torch.compile as it is used here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

Call = Callable[..., Any]


def compile_function(function: Call, lean: bool = True) -> Call:
    """The function compiled for each shape it meets.

    `lean` keeps for the backward pass what the function keeps uncompiled. Its graphs are counted
    apart from those of other calls; torch runs a function's ninth eager.
    """
    compile_: Call = torch.compile  # its annotations lack isolate_recompiles
    backend = _compile_lean if lean else "inductor"
    compiled: Call = compile_(function, backend=backend, dynamic=False, isolate_recompiles=True)
    return compiled


def _compile_lean(graph: Any, inputs: Any) -> Any:
    """Inductor, told to compute again what the lean steps compute again.

    Its partitioner would otherwise keep hidden beside the projections, D + 3F numbers a token
    instead of D + 2F. A training step at nano and micro takes as long either way.
    """
    from torch._inductor.compile_fx import compile_fx

    with torch._functorch.config.patch(aggressive_recomputation=True):
        return compile_fx(graph, inputs)
