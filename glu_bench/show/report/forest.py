"""Differences to the baseline as points with intervals, on one scale for all rows of a table."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

from glu_bench.study.compare import Arm, Comparison

WIDTH, PAD = 240.0, 10.0  # of the drawing, in its own units


@dataclass(frozen=True)
class Interval:
    """One row of the drawing, by place from the left."""

    point: float
    low: float | None
    high: float | None
    seeds: list[float]


@dataclass(frozen=True)
class Forest:
    """The drawing: where zero is, ticks with their labels, and a row an arm."""

    zero: float
    ticks: list[tuple[float, str]]
    rows: dict[str, Interval]


def make_forest(table: Comparison) -> Forest | None:
    """The drawing of a table; None if no arm has a difference to the baseline."""
    from matplotlib.ticker import MaxNLocator

    base = next((arm for arm in table.arms if arm.arm == table.baseline), None)
    shown = {
        arm.arm: _list_values(arm, base)
        for arm in table.arms
        if arm.arm != table.baseline and _is_finite(arm.difference_nats)
    }
    values = [value for point, interval, seeds in shown.values() for value in (point, *interval, *seeds)]
    if not values:
        return None
    low, high = min(0.0, *values), max(0.0, *values)
    if low == high:
        low, high = -1e-3, 1e-3
    ticks = [float(tick) for tick in MaxNLocator(nbins=4, steps=[1, 2, 5, 10]).tick_values(low, high)]
    low, high = min(low, *(t for t in ticks if t <= 0)), max(high, *(t for t in ticks if t >= 0))

    def place(value: float) -> float:
        return round(PAD + (WIDTH - 2 * PAD) * (value - low) / (high - low), 2)

    rows = {
        name: Interval(
            place(point),
            place(interval[0]) if interval else None,
            place(interval[1]) if interval else None,
            [place(seed) for seed in seeds],
        )
        for name, (point, interval, seeds) in shown.items()
    }
    digits = max(0, -math.floor(math.log10(min(abs(b - a) for a, b in itertools.pairwise(ticks)))))
    labels = [(place(tick), f"{tick + 0.0:.{digits}f}" if tick else "0") for tick in ticks]
    return Forest(place(0.0), labels, rows)


def _list_values(arm: Arm, base: Arm | None) -> tuple[float, tuple[float, ...], list[float]]:
    """The difference, its interval if there is one, and the difference at each shared seed."""
    assert arm.difference_nats is not None
    interval = arm.difference_ci95
    ends = tuple(interval) if interval and all(map(_is_finite, interval)) else ()
    others = base.losses if base else {}
    seeds = [loss - others[seed] for seed, loss in sorted(arm.losses.items()) if seed in others]
    return arm.difference_nats, ends, [value for value in seeds if math.isfinite(value)]


def _is_finite(value: float | None) -> bool:
    return value is not None and math.isfinite(value)
