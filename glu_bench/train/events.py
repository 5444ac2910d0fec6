"""What a run tells while it goes; screens and trackers listen, the loop knows none of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from glu_bench import schema
from glu_bench.ffn.matching import Receipt
from glu_bench.lm.counts import Counts
from glu_bench.runs.folder import Run
from glu_bench.train.profile import Profile


@dataclass(frozen=True, kw_only=True)
class Started:
    """The run is about to train."""

    run: Run
    config: schema.Config
    counts: Counts
    receipt: Receipt
    n_steps: int
    resumed_step: int  # 0 for a fresh run
    remarks: list[str]


@dataclass(frozen=True, kw_only=True)
class Logged:
    """A row of metrics.jsonl."""

    row: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Evaluating:
    """Training is over; the final held-out passes begin."""

    split: str


@dataclass(frozen=True, kw_only=True)
class Finished:
    """The final record; `reused` if an earlier call had made it."""

    run: Run
    record: dict[str, Any]
    reused: bool
    profile: Profile | None = None  # where it was asked for


Event = Started | Logged | Evaluating | Finished
