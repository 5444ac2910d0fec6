"""Batches on their device, in the order's order; for a GPU the next one is made ready while it computes.

Kernels are launched well before they run, so a GPU has time between a step's last launch and its
loss being read: the next batch is gathered then, and its copy, from memory that stays in place,
is queued behind the step. On a CPU nothing would be gained: gathering takes 0.05 ms of a core
that the step wants.
"""

from __future__ import annotations

import torch
from torch import Tensor

from glu_bench.data.order import BatchOrder


class Feed:
    """The rows of each step's batch that one rank trains on."""

    def __init__(self, order: BatchOrder, rows: slice, device: torch.device, ahead: bool) -> None:
        self.order = order
        self.rows = rows
        self.device = device
        self.ahead = ahead
        self._next: tuple[int, Tensor] | None = None

    def take(self, step: int) -> Tensor:
        """Tokens of a step, 0 being the first. Shape: (rows, T + 1)."""
        found, self._next = self._next, None
        return found[1] if found is not None and found[0] == step else self._load(step)

    def prepare(self, step: int) -> None:
        """Begin with the batch of a step that comes next, once all of the present one is launched."""
        if self.ahead:
            self._next = (step, self._load(step))

    def _load(self, step: int) -> Tensor:
        batch = torch.from_numpy(self.order.batch(step)[self.rows])
        # the same stream as the step's kernels: they cannot read it before it is there
        return _pin(batch).to(self.device, non_blocking=True) if self.ahead else batch.to(self.device)


def make_feed(order: BatchOrder, rows: slice, device: torch.device) -> Feed:
    """The feed of a device: ahead of the steps on a GPU, with them elsewhere."""
    return Feed(order, rows, device, ahead=device.type == "cuda")


def _pin(batch: Tensor) -> Tensor:
    """A copy that the GPU can read by itself; torch keeps it until that is done."""
    return batch.pin_memory()
