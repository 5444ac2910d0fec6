"""What a run's own records say of its stability: loss spikes, and how far training and held-out loss part."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from glu_bench.runs.record import is_number

N_SD = 7.0
N_BEFORE = 50  # values looked back at, logged ones; OLMo 2 takes 1,000 steps of far longer runs
N_LEAST = 10  # fewer say too little of a standard deviation


@dataclass(frozen=True, kw_only=True)
class History:
    """None where the run is not complete, or logged too little."""

    train_held_out_gap_nats: float | None  # last validation loss minus mean training loss of the last steps
    n_loss_spikes: int | None
    loss_spike_share: float | None  # of the logged losses that could be judged
    loss_spike_steps: list[int]


def read_history(rows: Sequence[Mapping[str, Any]], record: Mapping[str, Any] | None) -> History:
    """Gap and spikes from the rows of metrics.jsonl and the final record, if there is one.

    A loss spikes if it lies at least 7 standard deviations above the mean of the 50 logged
    before it. Source: the spike score of OLMo 2, arXiv 2501.00656, section 3, which looks at 1,000
    steps and at both sides; a loss that falls is none here.
    """
    gap = None
    if record is not None:
        held_out, training = record.get("val_loss_nats"), record.get("train_loss_nats")
        if is_number(held_out) and is_number(training):
            gap = held_out - training
    points = [
        (row["step"], float(row["loss_nats"]))
        for row in rows
        if isinstance(row, dict) and isinstance(row.get("step"), int) and is_number(row.get("loss_nats"))
    ]
    steps = [
        step
        for at, (step, loss) in enumerate(points)
        if at >= N_LEAST and _spikes(loss, [before for _, before in points[max(0, at - N_BEFORE) : at]])
    ]
    n_judged = len(points) - N_LEAST
    return History(
        train_held_out_gap_nats=gap,
        n_loss_spikes=len(steps) if n_judged > 0 else None,
        loss_spike_share=len(steps) / n_judged if n_judged > 0 else None,
        loss_spike_steps=steps,
    )


def _spikes(loss: float, before: Sequence[float]) -> bool:
    mean = math.fsum(before) / len(before)
    sd = math.sqrt(math.fsum((value - mean) ** 2 for value in before) / (len(before) - 1))
    return loss - mean >= N_SD * sd and loss > mean
