"""The gap between two groups of arms: mean over the arms of one less mean over those of the other."""

from __future__ import annotations

import math
import statistics
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from glu_bench.stats.blocked import Losses
from glu_bench.stats.interval import Summary, find_interval, find_mean_interval, summarise


@dataclass(frozen=True, kw_only=True)
class Gap:
    """A difference of two groups; below 0 the first has the lower loss."""

    difference_nats: float
    ci95: tuple[float, float] | None  # None where nothing estimates the noise
    n_seeds: int  # that every arm of both groups finished; 0 for summaries

    @property
    def sign(self) -> int:
        """-1 or 1 where the interval leaves out 0, else 0."""
        if self.ci95 is None or self.ci95[0] <= 0 <= self.ci95[1]:
            return 0
        return -1 if self.difference_nats < 0 else 1


def find_gap(losses: Losses, first: Collection[str]) -> Gap | None:
    """The gap of the arms in `first` to the others, a t interval over seeds; None if a group is empty.

    Each seed that all arms share gives one gap. Without such a seed it is the gap of the means.
    """
    groups = _split(losses, first)
    if groups is None:
        return None
    shared = set.intersection(*(set(by_seed) for by_seed in losses.values()))
    if not shared:
        means = {arm: statistics.fmean(by_seed.values()) for arm, by_seed in losses.items()}
        return Gap(difference_nats=_differ(means, groups), ci95=None, n_seeds=0)
    gaps = [
        _differ({arm: by_seed[seed] for arm, by_seed in losses.items()}, groups) for seed in sorted(shared)
    ]
    summary = summarise(gaps)
    varies = summary.sd is not None and summary.sd > 0
    return Gap(
        difference_nats=summary.mean,
        ci95=find_mean_interval(summary) if varies else None,
        n_seeds=len(gaps),
    )


def find_summary_gap(
    summaries: Mapping[str, Summary], first: Collection[str], noise: tuple[float, float] | None = None
) -> Gap | None:
    """The gap of published means with Satterthwaite's interval; None if a group is empty.

    `noise` is an assumed sd of one run, the same for all arms, and its degrees of freedom.
    Source: Satterthwaite 1946, for a weighted sum of variances.
    """
    groups = _split(summaries, first)
    if groups is None:
        return None
    difference = _differ({arm: summary.mean for arm, summary in summaries.items()}, groups)
    weights = {arm: 1 / len(group) for group in groups for arm in group}
    ci95 = None
    if noise is not None:
        squared = sum(weights[arm] ** 2 / summary.n for arm, summary in summaries.items())
        ci95 = find_interval(difference, noise[0] * math.sqrt(squared), noise[1])
    elif all(summary.standard_error for summary in summaries.values()):
        parts = [
            ((weights[arm] * (summary.standard_error or 0.0)) ** 2, summary.n - 1)
            for arm, summary in summaries.items()
        ]
        variance = sum(part for part, _ in parts)
        df = variance**2 / sum(part**2 / n for part, n in parts)
        ci95 = find_interval(difference, math.sqrt(variance), df)
    return Gap(difference_nats=difference, ci95=ci95, n_seeds=0)


def _split(arms: Collection[str], first: Collection[str]) -> tuple[list[str], list[str]] | None:
    inside = sorted(arm for arm in arms if arm in first)
    outside = sorted(arm for arm in arms if arm not in first)
    return (inside, outside) if inside and outside else None


def _differ(means: Mapping[str, float], groups: tuple[list[str], list[str]]) -> float:
    first, second = (statistics.fmean(means[arm] for arm in group) for group in groups)
    return first - second
