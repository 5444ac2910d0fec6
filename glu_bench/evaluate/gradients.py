"""Gradients of the mean held-out loss, matrix by matrix and block by block."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from glu_bench.evaluate.held_out import Batch, finite, widen
from glu_bench.lm.decoder import Decoder
from glu_bench.lm.hidden import list_ffns


@dataclass(frozen=True, kw_only=True)
class Gradients:
    """Of one block, in nats a unit of weight. None: there is no gate, or a gradient is not finite."""

    gate_gradient_norm: float | None
    up_gradient_norm: float | None
    down_gradient_norm: float | None
    gradient_norm: float | None  # of the matrices together
    zero_gradient_share: float | None  # entries of the matrices whose gradient is exactly 0
    nonfinite_gradients: int


def measure_gradients(model: Decoder, batches: Iterable[Batch]) -> tuple[list[Gradients], float | None]:
    """Gradients of the mean loss over all tokens of some batches, and that loss in nats.

    Without dropout; the parameters' own gradients are left alone.
    """
    ffns = list_ffns(model)
    matrices = [matrix for ffn in ffns for matrix in (ffn.hidden.in_proj.weight, ffn.down.weight)]
    sums = [torch.zeros_like(widen(matrix.detach())) for matrix in matrices]
    nats, n_tokens = 0.0, 0
    training = model.training
    model.eval()
    try:
        for batch in batches:
            with torch.enable_grad():
                loss = model.nats(batch.tokens_BT, batch.targets_BT)[batch.real_BT].sum()
            for total, part in zip(sums, torch.autograd.grad(loss, matrices), strict=True):
                total.add_(widen(part))
            nats += loss.item()
            n_tokens += int(batch.real_BT.sum())
    finally:
        model.train(training)
    found = []
    for at, ffn in enumerate(ffns):
        into, down = sums[2 * at] / n_tokens, sums[2 * at + 1] / n_tokens
        rows = into.chunk(ffn.hidden.formula.n_projections)
        found.append(summarise_gradients(rows[0] if len(rows) == 2 else None, rows[-1], down))
    return found, finite(nats / n_tokens)


def summarise_gradients(gate: Tensor | None, up: Tensor, down: Tensor) -> Gradients:
    """Norms and share of zeros of the gradients of one block's matrices, in fp64."""
    parts = [part for part in (gate, up, down) if part is not None]
    n = sum(part.numel() for part in parts)
    n_zero, n_bad = (
        sum(int((part == 0).sum()) for part in parts),
        sum(int((~part.isfinite()).sum()) for part in parts),
    )
    norms = [part.norm() for part in parts]
    return Gradients(
        gate_gradient_norm=None if gate is None else finite(gate.norm()),
        up_gradient_norm=finite(up.norm()),
        down_gradient_norm=finite(down.norm()),
        gradient_norm=finite(torch.stack(norms).norm()),
        zero_gradient_share=None if n_bad else n_zero / n,
        nonfinite_gradients=n_bad,
    )


def collect_norms(model: Decoder) -> dict[str, list[float | None]]:
    """Norms of the gradients that the parameters hold now, by matrix, a number a block.

    Names: gate_gradient_norm_per_layer (if gated), up_…, down_….
    """
    norms: dict[str, list[Tensor]] = {}
    for ffn in list_ffns(model):
        into, down = ffn.hidden.in_proj.weight.grad, ffn.down.weight.grad
        assert into is not None  # after a backward pass
        assert down is not None
        rows = into.chunk(model.formula.n_projections)
        if model.formula.gated:
            norms.setdefault("gate", []).append(rows[0].norm())
        norms.setdefault("up", []).append(rows[-1].norm())
        norms.setdefault("down", []).append(down.norm())
    # one wait for the device
    table = torch.stack([torch.stack(each) for each in norms.values()]).tolist()
    return {
        f"{name}_gradient_norm_per_layer": [finite(value) for value in row]
        for name, row in zip(norms, table, strict=True)
    }
