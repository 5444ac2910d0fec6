"""What a run logged while it trained, thinned to what an eye can tell apart."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from glu_bench.runs.folder import Run
from glu_bench.runs.record import is_number

HELD_OUT = "val_loss_nats"
TRAINING = "loss_nats"
# columns of a row that say where it stands, not how it went
PLACE = ("step", "n_steps", "tokens", "elapsed_s")
MAX_QUANTITIES = 40  # of a run; a record with more is not one of ours


@dataclass(frozen=True)
class Trace:
    """One logged quantity of one run against tokens and seconds."""

    tokens: list[float]
    elapsed_s: list[float]
    values: list[float]


@dataclass(frozen=True)
class Log:
    """All that a run logged: quantities by name, and layer profiles as they last stood."""

    traces: dict[str, Trace]
    profiles: dict[str, list[float]]  # a number a layer, first layer first


def read_log(run: Run, n_most: int) -> Log:
    """A run's log with at most `n_most` points a quantity; what is not a finite number is left out.

    Held-out losses are kept as they are, every k-th and the last; all else as means of neighbours.
    Raises: DataError for a torn line that is not the last.
    """
    columns: dict[str, list[tuple[float, float, float]]] = {}
    profiles: dict[str, list[float]] = {}
    for row in run.rows():
        place = _place(row)
        if place is None:
            continue
        for name, value in _list_quantities(row):
            if isinstance(value, list):
                profiles[name] = value
            elif name in columns or len(columns) < MAX_QUANTITIES:
                columns.setdefault(name, []).append((*place, value))
    traces = {}
    for name, points in columns.items():
        kept = _pick(points, n_most) if name == HELD_OUT else _average(points, n_most)
        traces[name] = Trace(*([point[at] for point in kept] for at in range(3)))
    return Log(traces, dict(list(profiles.items())[:MAX_QUANTITIES]))


def list_profiles(record: dict[str, Any], n_layers: int) -> dict[str, list[float]]:
    """Those values of a final record that are a number a layer."""
    return {
        name: value
        for name, value in _list_quantities(record)
        if isinstance(value, list) and len(value) == n_layers
    }


def _place(row: object) -> tuple[float, float] | None:
    if not isinstance(row, dict):
        return None
    place = (row.get("tokens"), row.get("elapsed_s"))
    return place if all(map(is_number, place)) else None  # type: ignore[return-value]


def _list_quantities(tree: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, float | list[float]]]:
    """Numbers, and lists of numbers, by dotted name; a list of objects is read as one a layer."""
    for name, value in tree.items():
        dotted = prefix + str(name)
        if not prefix and name in PLACE:
            continue
        if is_number(value):
            yield dotted, float(value)
        elif isinstance(value, dict):
            yield from _list_quantities(value, f"{dotted}.")
        elif isinstance(value, list) and value:
            if all(map(is_number, value)):
                yield dotted, [float(each) for each in value]
            elif all(isinstance(each, dict) for each in value):
                for inner in value[0]:
                    numbers = [each.get(inner) for each in value]
                    if inner != "layer" and all(map(is_number, numbers)):
                        yield f"{dotted}.{inner}", [float(number) for number in numbers]


def _pick(points: Sequence[tuple[float, ...]], n_most: int) -> list[tuple[float, ...]]:
    """Every k-th point from the end, so that the last is among them."""
    size = -(-len(points) // max(1, n_most))
    return list(points[::-1][::size][::-1])


def _average(points: Sequence[tuple[float, ...]], n_most: int) -> list[tuple[float, ...]]:
    """Means of neighbours."""
    size = -(-len(points) // max(1, n_most))
    parts = [points[at : at + size] for at in range(0, len(points), size)]
    return [tuple(math.fsum(column) / len(part) for column in zip(*part, strict=True)) for part in parts]
