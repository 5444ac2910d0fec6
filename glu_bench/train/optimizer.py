"""The optimiser, and its state as named tensors for a checkpoint.

AdamW updates everything; Adafactor updates everything; Muon updates the hidden matrices and
leaves embeddings, head, gains, biases and learned scalars to AdamW.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from glu_bench import schema
from glu_bench.errors import DataError
from glu_bench.lm.decoder import Decoder
from glu_bench.ranks import ALONE, Ranks, is_spread, spread_like
from glu_bench.train.pieces import Piece, list_pieces


@dataclass(frozen=True)
class Optimizer:
    """One or two of torch's optimisers that step together; every piece is in one group of one of them."""

    parts: tuple[torch.optim.Optimizer, ...]
    pieces: tuple[Piece, ...]

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """The groups of all parts."""
        return [group for part in self.parts for group in part.param_groups]

    def set_rate(self, rate: float) -> None:
        """The rate of the next step: in each group `rate` times the group's own lr_ratio."""
        for group in self.param_groups:
            group["lr"] = rate * group["lr_ratio"]

    def step(self) -> None:
        """Update every parameter from its gradient."""
        for piece in self.pieces:
            piece.refresh()
        for part in self.parts:
            part.step()

    def zero_grad(self) -> None:
        """Forget all gradients."""
        for piece in self.pieces:
            piece.zero_grad()


def make_optimizer(model: Decoder, optim: schema.Optim) -> Optimizer:
    """The optimiser of a configuration; only matrices decay, gains, biases and scalars do not.

    The model is on its device already.
    """
    pieces = list_pieces(model, split=optim.name != "adamw")
    if optim.name == "adafactor":
        parts = [_make_adafactor(pieces, optim)]
    elif optim.name == "muon":
        parts = [
            _make_muon([piece for piece in pieces if piece.hidden], optim),
            _make_adamw([piece for piece in pieces if not piece.hidden], optim),
        ]
    else:
        parts = [_make_adamw(pieces, optim)]
    return Optimizer(tuple(parts), tuple(pieces))


def _make_adamw(pieces: list[Piece], optim: schema.Optim) -> torch.optim.Optimizer:
    """Source: Loshchilov and Hutter 2017, arXiv 1711.05101."""
    assert optim.beta1 is not None  # check_optim saw to it
    assert optim.beta2 is not None
    ratio = 1.0 if optim.lr_ratio is None else optim.lr_ratio
    return torch.optim.AdamW(
        _make_groups(pieces, optim, ratio),
        lr=optim.lr * ratio,
        betas=(optim.beta1, optim.beta2),
        eps=optim.eps,
        fused=pieces[0].tensor.device.type in ("cpu", "cuda"),
    )


def _make_muon(pieces: list[Piece], optim: schema.Optim) -> torch.optim.Optimizer:
    """Momentum whose singular values are made nearly equal, at the root mean square of AdamW's updates.

    An orthogonal (A, B) matrix has root mean square 1/sqrt(max(A, B)); times 0.2 sqrt(max(A, B))
    that is 0.2, about AdamW's, so lr and weight_decay mean the same for both.
    Source: Jordan 2024, kellerjordan.github.io/posts/muon; the scale: Liu et al. 2025, arXiv 2502.16982.
    """
    assert optim.momentum is not None  # check_optim saw to it
    return torch.optim.Muon(
        _make_groups(pieces, optim, 1.0),
        lr=optim.lr,
        momentum=optim.momentum,
        adjust_lr_fn="match_rms_adamw",
    )


def _make_adafactor(pieces: list[Piece], optim: schema.Optim) -> torch.optim.Optimizer:
    """Second moments as row and column means, no first moment, rates relative to a tensor's own size.

    A tensor X moves by max(min_scale, rms(X)) * min(lr, 1/sqrt(t)) at step t, its update cut to
    max_update. torch bounds the root of the second moment by eps where the paper adds eps² to
    the squared gradient; eps is given, as torch's own 1e-7 would exceed the mean squares met here.
    Source: Shazeer and Stern 2018, arXiv 1804.04235, algorithms 4 and 5.
    """
    assert optim.beta2_power is not None  # check_optim saw to it
    assert optim.min_scale is not None
    assert optim.max_update is not None
    return torch.optim.Adafactor(
        _make_groups(pieces, optim, 1.0),
        lr=optim.lr,
        beta2_decay=-optim.beta2_power,
        eps=(optim.eps, optim.min_scale),
        d=optim.max_update,
    )


def _make_groups(pieces: Iterable[Piece], optim: schema.Optim, lr_ratio: float) -> list[dict[str, Any]]:
    """Matrices, which decay, and the rest, which does not; an empty group is left out."""
    rest = [p.tensor for p in pieces if p.tensor.dim() < 2]
    groups = [
        {"params": [p.tensor for p in pieces if p.tensor.dim() >= 2], "weight_decay": optim.weight_decay},
        {"params": [tensor for tensor in rest if not is_spread(tensor)], "weight_decay": 0.0},
        {"params": [tensor for tensor in rest if is_spread(tensor)], "weight_decay": 0.0},  # another kernel
    ]
    return [{**group, "lr_ratio": lr_ratio} for group in groups if group["params"]]


def pack_optimizer(optimizer: Optimizer, ranks: Ranks = ALONE) -> dict[str, Tensor]:
    """Every tensor of the optimiser's state, named `<kind>/<piece>`, as `Ranks.collect` gives it."""
    names = {id(piece.tensor): piece.name for piece in optimizer.pieces}
    return ranks.collect(
        (f"{kind}/{names[id(tensor)]}", value)
        for part in optimizer.parts
        for tensor, state in part.state.items()
        for kind, value in state.items()
    )


def unpack_optimizer(optimizer: Optimizer, tensors: dict[str, Tensor]) -> None:
    """Put back what `pack_optimizer` gave.

    Raises: DataError for a tensor that belongs to no piece or does not fit it, and for a piece
    some of whose tensors are missing.
    """
    names = {id(piece.tensor): piece.name for piece in optimizer.pieces}
    left = dict(tensors)
    for part in optimizer.parts:
        for group in part.param_groups:
            for tensor in group["params"]:
                name, shapes = names[id(tensor)], list_state(part, tensor)
                held = {kind: left.pop(f"{kind}/{name}") for kind in shapes if f"{kind}/{name}" in left}
                for kind, shape in shapes.items():
                    if not held:  # no gradient has reached it yet
                        break
                    dtype = torch.float32 if kind == "step" else tensor.dtype
                    if kind not in held or held[kind].shape != shape or held[kind].dtype != dtype:
                        raise DataError(f"the optimiser's {kind}/{name} does not fit the model")
                    # a step counter lives on the parameter's device in fused optimisers only
                    on_host = kind == "step" and not group.get("fused")
                    device = torch.device("cpu") if on_host else tensor.device
                    if kind != "step" and is_spread(tensor):
                        part.state[tensor][kind] = spread_like(held[kind], tensor)
                    else:
                        part.state[tensor][kind] = held[kind].to(device).clone()
    if left:
        raise DataError(f"the optimiser's {min(left)} does not fit the model")


def list_state(part: torch.optim.Optimizer, tensor: Tensor) -> dict[str, torch.Size]:
    """What one of torch's optimisers keeps of a tensor: shape by kind."""
    shape = tensor.shape
    if isinstance(part, torch.optim.Muon):
        return {"momentum_buffer": shape}
    if not isinstance(part, torch.optim.Adafactor):
        return {"step": torch.Size(), "exp_avg": shape, "exp_avg_sq": shape}
    if len(shape) < 2:
        return {"step": torch.Size(), "variance": shape}
    row, column = (*shape[:-1], 1), (*shape[:-2], 1, shape[-1])
    return {"step": torch.Size(), "row_var": torch.Size(row), "col_var": torch.Size(column)}
