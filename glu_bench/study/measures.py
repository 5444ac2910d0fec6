"""What is measured of runs to judge a claim: a number for each arm at each seed.

Each measure takes the entries of one setting and gives the values by arm and seed; a run that has
no such number is left out.
"""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from glu_bench.evaluate.history import read_history
from glu_bench.runs.record import is_number
from glu_bench.study.arms import Entry
from glu_bench.study.traces import HELD_OUT, TRAINING

Row = Mapping[str, Any]
Values = dict[str, dict[int, float]]


@dataclass(frozen=True, kw_only=True)
class Sources:
    """Where measures look besides a run's record."""

    rows: Callable[[Entry], Sequence[Row]]  # its log
    every_row: Callable[[Entry], Sequence[Row]]  # its log; empty where the evaluations alone were published
    summary: Callable[[Entry], Mapping[str, float | int | None]]  # of the inspection of its last checkpoint


Measure = Callable[[Sequence[Entry], Sources], Values]
Point = tuple[float, float]


def _collect(entries: Sequence[Entry], read: Callable[[Entry], float | None]) -> Values:
    """One number for each finished run."""
    values: Values = {}
    for entry in entries:
        if entry.result is not None and is_number(value := read(entry)):
            assert value is not None
            values.setdefault(entry.arm, {}).setdefault(entry.seed, float(value))
    return values


def of_record(name: str) -> Measure:
    """A measure: that number of the final record."""

    def measure(entries: Sequence[Entry], sources: Sources) -> Values:
        return _collect(entries, lambda entry: entry.result.get(name) if entry.result else None)

    return measure


def measure_step_time(entries: Sequence[Entry], sources: Sources) -> Values:
    """Seconds a token of training."""

    def read(entry: Entry) -> float | None:
        speed = entry.result.get("tokens_per_s") if entry.result else None
        return 1 / speed if speed else None

    return _collect(entries, read)


def of_inspection(name: str) -> Measure:
    """A measure: that number over the network, at the last checkpoint."""

    def measure(entries: Sequence[Entry], sources: Sources) -> Values:
        return _collect(entries, lambda entry: sources.summary(entry).get(name))

    return measure


def of_diagnostics(name: str, share: float) -> Measure:
    """A measure: what a run noted of its blocks at this share of its steps, mean over blocks.

    Straight between the steps at which it noted something; before the first and after the last, theirs.
    """
    column = f"{name}_per_layer"

    def read(rows: Sequence[Row]) -> float | None:
        noted: list[Point] = []
        for row in rows:
            layers = row.get(column)
            if is_number(row.get("step")) and isinstance(layers, list) and layers:
                if not all(map(is_number, layers)):
                    return None
                noted.append((float(row["step"]), statistics.fmean(layers)))
        if not noted:
            return None
        last = max(row["step"] for row in rows if is_number(row.get("step")))
        return _interpolate(sorted(noted), share * last)

    def measure(entries: Sequence[Entry], sources: Sources) -> Values:
        return _collect(entries, lambda entry: read(sources.rows(entry)))

    return measure


def _interpolate(points: Sequence[Point], x: float) -> float:
    """The value at x, straight between points, and beyond the ends theirs."""
    if x <= points[0][0]:
        return points[0][1]
    for (x0, y0), (x1, y1) in itertools.pairwise(points):
        if x <= x1:
            return y0 + (y1 - y0) * (x - x0) / (x1 - x0)
    return points[-1][1]


def count_spikes(entries: Sequence[Entry], sources: Sources) -> Values:
    """Loss spikes of each run."""

    def read(entry: Entry) -> float | None:
        return read_history(sources.every_row(entry), entry.result).n_loss_spikes

    return _collect(entries, read)


def measure_gradient_tail(entries: Sequence[Entry], sources: Sources) -> Values:
    """The 99th percentile of the logged gradient norms over their median."""

    def read(entry: Entry) -> float | None:
        rows = sources.every_row(entry)
        norms = [float(row["grad_norm"]) for row in rows if is_number(row.get("grad_norm"))]
        if len(norms) < 10 or not statistics.median(norms) > 0:
            return None
        return statistics.quantiles(norms, n=100, method="inclusive")[98] / statistics.median(norms)

    return _collect(entries, read)


def _held_out(rows: Sequence[Row]) -> list[Point]:
    """Tokens and held-out loss, in the order of tokens."""
    points = {
        float(row["tokens"]): float(row[HELD_OUT])
        for row in rows
        if is_number(row.get("tokens")) and is_number(row.get(HELD_OUT))
    }
    return sorted(points.items())


def measure_area(entries: Sequence[Entry], sources: Sources) -> Values:
    """Mean held-out loss over the tokens of training, by trapezia: the area under the curve over its base."""

    def read(entry: Entry) -> float | None:
        points = _held_out(sources.rows(entry))
        if len(points) < 2:
            return None
        area = math.fsum((b[0] - a[0]) * (a[1] + b[1]) / 2 for a, b in itertools.pairwise(points))
        return area / (points[-1][0] - points[0][0])

    return _collect(entries, read)


def measure_tokens_to_level(entries: Sequence[Entry], sources: Sources) -> Values:
    """Tokens until an arm reaches the held-out loss with which the last of all arms ends, seed by seed."""
    curves: dict[int, dict[str, list[Point]]] = {}
    for entry in entries:
        if entry.result is not None and len(points := _held_out(sources.rows(entry))) > 1:
            curves.setdefault(entry.seed, {}).setdefault(entry.arm, points)
    values: Values = {}
    for seed, by_arm in _at_complete_seeds(curves).items():
        level = max(points[-1][1] for points in by_arm.values())
        for arm, points in by_arm.items():
            values.setdefault(arm, {})[seed] = find_crossing(points, level)
    return values


def find_crossing(points: Sequence[Point], level: float) -> float:
    """Where a curve that ends at or below the level first gets there, straight between its points."""
    if points[0][1] <= level:
        return points[0][0]
    for (x0, y0), (x1, y1) in itertools.pairwise(points):
        if y1 <= level:
            return x0 + (x1 - x0) * (y0 - level) / (y0 - y1)
    raise ValueError(f"the curve ends above {level}")


def measure_gap_at_level(entries: Sequence[Entry], sources: Sources) -> Values:
    """Held-out minus training loss where training loss first is what all arms reach, seed by seed."""
    curves: dict[int, dict[str, list[tuple[float, float]]]] = {}
    for entry in entries:
        if entry.result is not None and len(points := _train_and_held_out(sources.every_row(entry))) > 1:
            curves.setdefault(entry.seed, {}).setdefault(entry.arm, points)
    values: Values = {}
    for seed, by_arm in _at_complete_seeds(curves).items():
        level = max(min(trained for trained, _ in points) for points in by_arm.values())
        for arm, points in by_arm.items():
            at = find_crossing([(float(place), trained) for place, (trained, _) in enumerate(points)], level)
            low = min(int(at), len(points) - 2)
            held_out = points[low][1] + (at - low) * (points[low + 1][1] - points[low][1])
            values.setdefault(arm, {})[seed] = held_out - level
    return values


def _train_and_held_out(rows: Sequence[Row]) -> list[tuple[float, float]]:
    """At each held-out loss: the mean training loss logged since the one before, and it."""
    points, since = [], []
    for row in rows:
        if is_number(row.get(TRAINING)):
            since.append(float(row[TRAINING]))
        if is_number(row.get(HELD_OUT)) and since:
            points.append((statistics.fmean(since), float(row[HELD_OUT])))
            since = []
    return points


def _at_complete_seeds(
    curves: Mapping[int, Mapping[str, list[Point]]],
) -> dict[int, Mapping[str, list[Point]]]:
    """Seeds that all arms have: a level is the same question to each."""
    arms = {arm for by_arm in curves.values() for arm in by_arm}
    return {seed: by_arm for seed, by_arm in sorted(curves.items()) if set(by_arm) == arms}


def find_highest_stable_lr(entries: Sequence[Entry], sources: Sources) -> Values:
    """The highest learning rate below the least that diverged; no value where none did."""
    stable: dict[tuple[str, int], set[float]] = {}
    broken: dict[tuple[str, int], set[float]] = {}
    for entry in entries:
        if entry.status == "diverged" or (entry.result is not None and entry.result.get("unstable")):
            broken.setdefault((entry.arm, entry.seed), set()).add(entry.identity["optim.lr"])
        elif entry.result is not None:
            stable.setdefault((entry.arm, entry.seed), set()).add(entry.identity["optim.lr"])
    values: Values = {}
    for (arm, seed), lrs in broken.items():
        below = [lr for lr in stable.get((arm, seed), ()) if lr < min(lrs)]
        if below:
            values.setdefault(arm, {})[seed] = max(below)
    return values
