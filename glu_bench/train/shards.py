"""The model as one rank holds it: whole, a copy whose gradients are averaged, or its share of each matrix.

A rank's loss is its part of the sum over the whole batch divided by the whole batch's tokens,
times the number of ranks; the mean over ranks of its gradients is then the gradient of a
process alone. Only the last micro-batch of a step exchanges anything.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from glu_bench import schema
from glu_bench.device import make_autocast
from glu_bench.lm.compiled import compile_decoder
from glu_bench.lm.decoder import Decoder, call_block
from glu_bench.lm.recompute import recompute_blocks
from glu_bench.ranks import Ranks, gather_whole

Nats = Callable[[Tensor, Tensor], Tensor]


class Loss(nn.Module):
    """The decoder's loss as a module's forward, where torch's wrappers hook in."""

    def __init__(self, model: Decoder, nats: Nats) -> None:
        super().__init__()
        self.model = model
        self.nats = nats

    def forward(self, tokens_BT: Tensor, targets_BT: Tensor) -> Tensor:
        """Nats of every target. Shapes: all (B, T)."""
        return self.nats(tokens_BT, targets_BT).clone()  # a view could lose the hook


@dataclass(frozen=True, kw_only=True)
class Shards:
    """A model on its device, and how its loss and its gradients are computed together."""

    model: Decoder  # its parameters are what the optimiser updates
    nats: Nats  # for the training step
    eval_nats: Nats  # without gradients
    ranks: Ranks
    wrapped: Any  # torch's wrapper; None for a process alone
    single: tuple[nn.Parameter, ...] = ()  # kept whole by a model that is otherwise spread: scalars

    def accumulating(self, last: bool) -> AbstractContextManager[object]:
        """The context of a micro-batch: gradients are exchanged in the last one alone."""
        if self.ranks.mode == "ddp" and self.wrapped is not None and not last:
            context: AbstractContextManager[object] = self.wrapped.no_sync()
            return context
        if self.ranks.mode == "fsdp" and self.wrapped is not None:
            self.wrapped.set_requires_gradient_sync(last)
        return contextlib.nullcontext()

    def backward(self, loss: Tensor) -> None:
        """Add the gradients of this rank's part of a loss; torch's mean over ranks explains the factor."""
        (loss * self.ranks.size if self.ranks.size > 1 else loss).backward()  # type: ignore[no-untyped-call]

    def clip(self, greatest: float) -> float:
        """Scale all gradients to a global norm of at most `greatest`; returns the norm before."""
        parameters = list(self.model.parameters())
        if self.ranks.mode != "fsdp" or self.wrapped is None:
            return float(torch.nn.utils.clip_grad_norm_(parameters, greatest))
        kept = {id(parameter) for parameter in self.single}
        spread = [p for p in parameters if id(p) not in kept]
        for parameter in self.single:
            if parameter.grad is not None:
                self.ranks.average(parameter.grad)
        norms = [gather_whole(_norm(spread)), _norm(self.single)]
        total = torch.linalg.vector_norm(torch.stack(norms))
        for group in (spread, self.single):  # a spread tensor and a whole one share no kernel
            torch.nn.utils.clip_grads_with_norm_(group, greatest, total)
        return float(total)


def make_shards(model: Decoder, train: schema.Train, ranks: Ranks, recompute: bool) -> Shards:
    """Wrap a model for this rank; all ranks call it together and have the same weights.

    The model is on its device already, but for fsdp: there it comes block by block, as a device
    need not hold it whole.
    """
    nats = _make_nats(model, train.compile == "true", recompute)
    if ranks.size == 1:
        return Shards(model=model, nats=nats, eval_nats=nats, ranks=ranks, wrapped=None)
    loss, device = Loss(model, nats), torch.device(train.device)
    if ranks.mode == "ddp":
        replica = torch.nn.parallel.DistributedDataParallel(
            loss,
            device_ids=[device.index] if device.type == "cuda" else None,
            forward_sync_buffers=False,
            gradient_as_bucket_view=True,
        )
        _settle(replica, model, train, ranks)
        return Shards(model=model, nats=replica, eval_nats=nats, ranks=ranks, wrapped=replica)
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(device.type, (ranks.size,))
    scalars = tuple(parameter for parameter in model.parameters() if parameter.dim() == 0)
    for scalar in scalars:  # fully_shard takes no numbers without a dimension
        scalar.data = scalar.data.to(device)
    for block in model.blocks:
        fully_shard(block, mesh=mesh, ignored_params=set(scalars))
    root: Any = fully_shard(loss, mesh=mesh, ignored_params=set(scalars))
    return Shards(model=model, nats=root, eval_nats=root, ranks=ranks, wrapped=root, single=scalars)


def _settle(replica: nn.Module, model: Decoder, train: schema.Train, ranks: Ranks) -> None:
    """One backward pass for nothing: after the first, torch puts the gradients it sends in another order.

    More than two ranks then add in another order, and a resumed run, whose first pass is another
    one, would differ in the last bits.
    """
    n_rows = train.batch_size // train.grad_accum // ranks.size
    nothing_BT = torch.zeros(n_rows, model.config.seq_len, dtype=torch.int64, device=train.device)
    with make_autocast(train.device, train.precision):
        loss = replica(nothing_BT, nothing_BT).sum()
    loss.backward()
    for parameter in model.parameters():
        parameter.grad = None


def _make_nats(model: Decoder, compiled: bool, recompute: bool) -> Nats:
    if compiled:
        return compile_decoder(model, recompute)
    if not recompute:
        return model.nats
    call = recompute_blocks(call_block)
    return lambda tokens_BT, targets_BT: model.nats_from(model.stream(tokens_BT, call), targets_BT)


def _norm(parameters: Iterable[nn.Parameter]) -> Tensor:
    return torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
