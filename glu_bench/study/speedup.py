"""Effective speedups of a table's arms, from the baseline's runs at other budgets.

Those runs are in other settings, which differ from the table's by the budget alone. Everything
else that follows from the budget is a share of it (warm-up, decay), so nothing else may differ.
"""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from glu_bench.schema import BUDGET_KEYS
from glu_bench.stats.equal_cost import EqualCost, compare_at_equal_cost
from glu_bench.stats.fit import Point
from glu_bench.stats.speedup import Speedup, measure_speedup
from glu_bench.study.arms import Entry, Setting, setting_key

if TYPE_CHECKING:
    from glu_bench.study.compare import Arm, Comparison

Key = tuple[str, Setting]  # an arm, and a setting without its budget


def add_speedups(
    tables: Sequence[tuple[Comparison, Sequence[Entry]]], entries: Sequence[Entry], arm_keys: Sequence[str]
) -> list[Comparison]:
    """The tables with each arm's speedup over the baseline; `entries` are all that were found.

    Each table comes with its own entries. A table of mixed settings, or an arm without a finished
    run or with several budgets, gets none.
    """
    by_key: dict[Key, list[Entry]] = {}
    wanted = {table.baseline for table, _ in tables}
    for entry in entries:
        if entry.arm in wanted:
            by_key.setdefault(_key_of(entry, entry.arm, arm_keys), []).append(entry)
    return [_add(table, members, by_key, arm_keys) for table, members in tables]


def collect_losses(
    entries: Iterable[Entry], split: str, measure: Callable[[Mapping[str, Any]], float]
) -> tuple[list[Point], list[str]]:
    """Points of finished runs by what `measure` reads from a result, a loss a seed; and statuses of the rest.

    Runs that say one budget in two ways (tokens, steps) are one run done twice and count once.
    """
    found: dict[float, dict[int, list[float]]] = {}
    skipped: list[str] = []
    for entry in sorted(entries, key=lambda each: each.name):
        loss = read_loss(entry, split)
        if entry.result is None or loss is None:
            skipped.append(entry.status if entry.result is None else "without a finite loss")
        else:
            by_seed = found.setdefault(measure(entry.result), {})
            by_seed.setdefault(entry.seed, []).append(loss)
    points = [
        Point(c=c, losses=tuple(statistics.fmean(by_seed[seed]) for seed in sorted(by_seed)))
        for c, by_seed in sorted(found.items())
    ]
    return points, skipped


def read_loss(entry: Entry, split: str) -> float | None:
    """The run's loss in nats/token; None if it did not finish or the loss is not finite."""
    loss = entry.result.get(f"{split}_loss_nats") if entry.result else None
    return float(loss) if loss is not None and math.isfinite(loss) else None


def read_tokens(result: Mapping[str, Any]) -> float:
    """Tokens that a finished run was trained on."""
    return float(result["tokens"])


def _key_of(entry: Entry, arm: str, arm_keys: Sequence[str]) -> Key:
    return arm, setting_key(entry, arm_keys, BUDGET_KEYS)


def _add(
    table: Comparison, members: Sequence[Entry], by_key: dict[Key, list[Entry]], arm_keys: Sequence[str]
) -> Comparison:
    keys = {_key_of(entry, table.baseline, arm_keys) for entry in members}
    if len(keys) != 1 or table.per != "token":  # curves are in nats per token
        return table
    baseline, skipped = collect_losses(by_key.get(keys.pop(), []), table.split, read_tokens)
    base = next((arm for arm in table.arms if arm.arm == table.baseline), None)
    if base is None or not baseline:
        return table
    arms = []
    for arm in table.arms:
        own = [entry for entry in members if entry.arm == arm.arm]
        points, _ = collect_losses(own, table.split, read_tokens)
        if arm.arm != table.baseline and len(points) == 1:
            flops, seconds = _cost_ratios(base, arm, speeds_compare=len(table.machines) < 2)
            arm = dataclasses.replace(
                arm,
                speedup=_measure(baseline, points[0], flops, seconds, skipped),
                equal_flops=_compare(baseline, points[0], flops),
                equal_time=_compare(baseline, points[0], seconds),
            )
        arms.append(arm)
    return dataclasses.replace(table, arms=arms)


def _cost_ratios(base: Arm, arm: Arm, speeds_compare: bool) -> tuple[float | None, float | None]:
    """A token's FLOPs and seconds, the arm's over the baseline's; None where not known."""
    seconds = _over(base.tokens_per_s, arm.tokens_per_s) if speeds_compare else None
    return _over(arm.flops_per_token, base.flops_per_token), seconds


def _compare(baseline: Sequence[Point], point: Point, cost_ratio: float | None) -> EqualCost | None:
    return None if cost_ratio is None else compare_at_equal_cost(baseline, point, cost_ratio)


def _measure(
    baseline: Sequence[Point],
    point: Point,
    flops: float | None,
    seconds: float | None,
    skipped: Sequence[str],
) -> Speedup:
    speedup = measure_speedup(baseline, point, flops_ratio=_over(1, flops), rate_ratio=_over(1, seconds))
    if not skipped:
        return speedup
    counted = ", ".join(f"{n} {status}" for status, n in sorted(Counter(skipped).items()))
    left_out = f"left out of the baseline's curve: {counted}"
    return dataclasses.replace(speedup, note="; ".join(filter(None, (speedup.note, left_out))))


def _over(a: float | None, b: float | None) -> float | None:
    return a / b if a is not None and b else None
