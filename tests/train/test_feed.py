"""The feed: the order's rows in the order's order, each made ready once and no later than it is needed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from glu_bench.data.order import BatchOrder
from glu_bench.train import feed as room
from glu_bench.train import loop
from glu_bench.train.feed import Feed, make_feed
from tests.conftest import Train

CPU = torch.device("cpu")


class Noting(BatchOrder):
    """An order that remembers which batches were gathered."""

    gathered: list[int] = []  # noqa: RUF012

    def batch(self, step: int) -> Any:
        self.gathered.append(step)
        return super().batch(step)


@pytest.fixture
def order(monkeypatch: pytest.MonkeyPatch) -> Noting:
    monkeypatch.setattr(Noting, "gathered", [])
    return Noting(np.arange(1000, dtype="<u2"), seq_len=7, batch_size=6, seed=3)


@pytest.fixture
def pinned(monkeypatch: pytest.MonkeyPatch) -> list[torch.Tensor]:
    """What was copied to where a GPU could read it; a CPU has no such place."""
    seen: list[torch.Tensor] = []

    def pin(batch: torch.Tensor) -> torch.Tensor:
        seen.append(batch)
        return batch.clone()

    monkeypatch.setattr(room, "_pin", pin)
    return seen


@pytest.mark.parametrize("ahead", [False, True])
@pytest.mark.usefixtures("pinned")
def test_every_step_gets_its_own_rows(order: Noting, ahead: bool) -> None:
    rows = slice(2, 5)
    feed = Feed(order, rows, CPU, ahead)
    for step in (4, 5, 6, 9, 10, 2):  # a resume begins anywhere, and nothing need follow on
        expected = BatchOrder(order.ids, 7, 6, 3).batch(step)[rows]
        assert np.array_equal(feed.take(step).numpy(), expected)
        feed.prepare(step + 1)


def test_a_batch_made_ahead_is_gathered_once_and_before_its_step(
    order: Noting, pinned: list[torch.Tensor]
) -> None:
    feed = Feed(order, slice(None), CPU, ahead=True)
    for step in range(4):
        feed.take(step)
        assert order.gathered == list(range(step + 1))
        feed.prepare(step + 1)
        assert order.gathered == list(range(step + 2))
    assert len(pinned) == 5


def test_a_processor_gathers_when_it_needs(order: Noting, pinned: list[torch.Tensor]) -> None:
    feed = make_feed(order, slice(None), CPU)
    feed.take(0)
    feed.prepare(1)
    assert order.gathered == [0]
    assert pinned == []
    assert make_feed(order, slice(None), torch.device("cuda:0")).ahead


@pytest.mark.usefixtures("pinned")
def test_a_run_fed_ahead_is_the_same_run(
    train: Train, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = train("train.grad_accum=2", output_dir=tmp_path / "plain")
    made = []

    def make(order: BatchOrder, rows: slice, device: torch.device) -> Feed:
        made.append(Feed(order, rows, device, ahead=True))
        return made[-1]

    monkeypatch.setattr(loop, "make_feed", make)
    ahead = train("train.grad_accum=2", output_dir=tmp_path / "ahead")
    assert ahead["parameters_sha256"] == plain["parameters_sha256"]
    assert made[0]._next is not None  # it was ahead to the end
