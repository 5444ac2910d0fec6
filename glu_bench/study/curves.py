"""Learning curves of arms: mean held-out loss over seeds while training, and its distance to the baseline."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from glu_bench.runs.folder import Run
from glu_bench.runs.record import is_number
from glu_bench.stats.interval import find_mean_interval, summarise
from glu_bench.study.compare import Arm, Comparison
from glu_bench.study.traces import HELD_OUT


@dataclass(frozen=True, kw_only=True)
class Evaluated:
    """An arm where every one of its runs was evaluated."""

    step: int
    tokens: int
    flops: float | None  # tokens times the arm's FLOPs per token
    elapsed_s: float | None  # at the arm's tokens/s: what compiling, evaluating and saving took is apart
    mean_loss_nats: float
    low_nats: float  # of the seeds, the least
    high_nats: float  # and the greatest
    difference_nats: float | None = None  # mean over the seeds that arm and baseline share
    difference_ci95: tuple[float, float] | None = None  # t interval of those; None below two seeds


@dataclass(frozen=True, kw_only=True)
class ArmCurve:
    """The points of one arm, in the order of tokens."""

    arm: str
    n_seeds: int
    points: tuple[Evaluated, ...]


@dataclass(frozen=True)
class _Place:
    """One evaluation of one run."""

    step: int
    loss_nats: float


_Trace = dict[int, _Place]  # by tokens


def collect_curves(comparison: Comparison) -> list[ArmCurve]:
    """A curve for each arm with finished runs that were evaluated, in the order of the table.

    Raises: DataError for a run whose log is torn.
    """
    traces = {arm.arm: _read_arm(arm) for arm in comparison.arms}
    baseline = traces.get(comparison.baseline, {})
    curves = []
    for arm in comparison.arms:
        by_seed = traces[arm.arm]
        others = {} if arm.arm == comparison.baseline else baseline
        shared = set.intersection(*map(set, by_seed.values())) if by_seed else set()
        points = tuple(_make_point(tokens, by_seed, others, arm) for tokens in sorted(shared))
        if points:
            curves.append(ArmCurve(arm=arm.arm, n_seeds=len(by_seed), points=points))
    return curves


def _read_arm(arm: Arm) -> dict[int, _Trace]:
    """The evaluations of each seed; of several runs at one seed, as mixed settings have, the first."""
    by_seed: dict[int, _Trace] = {}
    for folder in arm.runs:
        run = Run(Path(folder))
        trace = {
            row["tokens"]: _Place(row["step"], row[HELD_OUT])
            for row in run.rows()
            if all(is_number(row.get(name)) for name in ("tokens", "step", HELD_OUT))
        }
        if trace:
            by_seed.setdefault(run.result()["seed"], trace)
    return by_seed


def _make_point(
    tokens: int, by_seed: Mapping[int, _Trace], others: Mapping[int, _Trace], arm: Arm
) -> Evaluated:
    places = [trace[tokens] for trace in by_seed.values()]
    losses = [place.loss_nats for place in places]
    differences = [
        trace[tokens].loss_nats - others[seed][tokens].loss_nats
        for seed, trace in by_seed.items()
        if tokens in others.get(seed, {})
    ]
    summary = summarise(differences) if differences else None
    return Evaluated(
        step=places[0].step,
        tokens=tokens,
        flops=None if arm.flops_per_token is None else float(tokens * arm.flops_per_token),
        elapsed_s=tokens / arm.tokens_per_s if arm.tokens_per_s else None,
        mean_loss_nats=statistics.fmean(losses),
        low_nats=min(losses),
        high_nats=max(losses),
        difference_nats=None if summary is None else summary.mean,
        difference_ci95=None if summary is None else find_mean_interval(summary),
    )
