"""The table of unary functions that variants are made of; pointwise, shape-keeping.

A new function is one entry here; a new variant made of these is one file under
configs/variant/.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from glu_bench.errors import ConfigError, suggest

Activation = Callable[[Tensor], Tensor]


def identity(x: Tensor) -> Tensor:
    """x itself: the gate of the bilinear unit."""
    return x


def gelu(x: Tensor) -> Tensor:
    """x times the standard normal CDF, by erf, not by tanh. Source: arXiv 1606.08415."""
    return F.gelu(x, approximate="none")


ACTIVATIONS: dict[str, Activation] = {
    "identity": identity,
    "relu": F.relu,
    "gelu": gelu,
    "silu": F.silu,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
}


def find_activation(name: str) -> Activation:
    """The function of that name.

    Raises: ConfigError with the nearest known name.
    """
    if name not in ACTIVATIONS:
        known = ", ".join(sorted(ACTIVATIONS))
        raise ConfigError(f"no activation named '{name}'; known: {known}{suggest(name, ACTIVATIONS)}")
    return ACTIVATIONS[name]
