"""The matrices of a feed-forward block: how large, how alike, and what it learned besides."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from glu_bench.evaluate.held_out import finite, widen
from glu_bench.ffn.feedforward import FeedForward


@dataclass(frozen=True, kw_only=True)
class Weights:
    """Norms are Frobenius norms. None: there is no gate, or the number would not be finite."""

    gate_weight_norm: float | None
    up_weight_norm: float | None
    down_weight_norm: float | None
    gate_up_cosine: float | None  # of a unit's row of the gate with its row of up, mean over units
    gate_up_cosine_size: float | None  # the same of |cosine|
    learned: dict[str, float | dict[str, float | None] | None]  # one number, or mean, min and max of F
    nonfinite_weights: int


def split_matrices(ffn: FeedForward) -> dict[str, Tensor]:
    """The matrices gate (if there is one), up and down, as views of the parameters."""
    rows = ffn.hidden.in_proj.weight.chunk(ffn.hidden.formula.n_projections)
    return {**({"gate": rows[0]} if len(rows) == 2 else {}), "up": rows[-1], "down": ffn.down.weight}


@torch.no_grad()
def measure_weights(ffn: FeedForward) -> Weights:
    """Norms, cosine of gate and up, and learned arguments of one block."""
    wide = {name: widen(matrix) for name, matrix in split_matrices(ffn).items()}
    cosine_F = nn.functional.cosine_similarity(wide["gate"], wide["up"], dim=1) if "gate" in wide else None
    learned: dict[str, float | dict[str, float | None] | None] = {}
    for each, value in zip(ffn.hidden.formula.learned, ffn.hidden.list_learned(), strict=True):
        learned[each.argument] = finite(value) if not each.per_unit else _span(widen(value))
    return Weights(
        gate_weight_norm=finite(wide["gate"].norm()) if "gate" in wide else None,
        up_weight_norm=finite(wide["up"].norm()),
        down_weight_norm=finite(wide["down"].norm()),
        gate_up_cosine=None if cosine_F is None else finite(cosine_F.mean()),
        gate_up_cosine_size=None if cosine_F is None else finite(cosine_F.abs().mean()),
        learned=learned,
        nonfinite_weights=sum(count_nonfinite(ffn).values()),
    )


def count_nonfinite(module: nn.Module) -> dict[str, int]:
    """NaN and infinities in the parameters of a module, by name, where there are any."""
    found = {name: int((~p.isfinite()).sum()) for name, p in module.named_parameters()}
    return {name: count for name, count in found.items() if count}


def _span(value_F: Tensor) -> dict[str, float | None]:
    return {
        "mean": finite(value_F.mean()),
        "min": finite(value_F.min()),
        "max": finite(value_F.max()),
    }
