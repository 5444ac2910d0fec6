"""Runs side by side: arms within settings, means over seeds, differences to a baseline.

An arm is what the keys declared to vary say; a setting is everything else that determines a
result. Runs of different settings never share a table unless asked for.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from glu_bench.errors import ConfigError
from glu_bench.evaluate.perplexity import perplexity
from glu_bench.runs.folder import Run
from glu_bench.stats.pair import Pair
from glu_bench.stats.speedup import Speedup
from glu_bench.study.arms import (
    Entry,
    add_tuned,
    describe_setting,
    first_difference,
    name_arms,
    read_entry,
    setting_of,
)
from glu_bench.study.plan import PlannedRun


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One row: the finished runs of an arm over its seeds."""

    arm: str
    n_finished: int
    n_planned: int
    n_diverged: int
    mean_loss_nats: float | None
    sd_loss_nats: float | None  # None with fewer than two seeds
    perplexity: float | None  # exp of the mean loss
    bits_per_byte: float | None
    difference_nats: float | None  # to the baseline, over the seeds both have
    n_shared_seeds: int
    ci95: tuple[float, float] | None = None  # of the mean
    difference_ci95: tuple[float, float] | None = None
    p_raw: float | None = None  # of the difference to the baseline
    p_holm: float | None = None  # over the arms against the baseline
    verdict: str = "insufficient"  # baseline, better, worse, not_separable, insufficient
    letters: str = ""  # arms that share one are not separable
    speedup: Speedup | None = None
    losses: dict[int, float] = field(default_factory=dict)  # nats/token by seed
    runs: tuple[str, ...] = ()  # folders of the finished runs, by seed
    n_params: int | None
    n_ffn_params: int | None
    match_residual: float | None
    flops_per_token: int | None
    tokens_per_s: float | None
    peak_bytes: int | None


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One table: the arms of one setting, best first."""

    setting: str
    baseline: str
    split: str
    arms: list[Arm]
    left_out: list[str]
    warnings: list[str]
    verdict: str
    test: str = ""  # the primary test in words
    pairs: list[Pair] = field(default_factory=list)
    detectable_nats: float | None = None  # the smallest difference these seeds see with 80 % power
    n_more_seeds: int | None = None  # that would settle the nearest tie


def compare_runs(
    paths: Sequence[str | Path | Run | PlannedRun],
    *,
    baseline: str | None = None,
    split: str = "test",
    arm_keys: Sequence[str] = ("variant",),
    allow_mixed: bool = False,
    refuse_mixed: bool = False,
) -> list[Comparison]:
    """One comparison a setting that has two arms or more; all in one if `allow_mixed`.

    `refuse_mixed` is for runs a person named one by one.
    A planned run that never began counts in `n_planned`.
    Raises: ConfigError if nothing can be compared, the baseline is no arm, or runs disagree.
    """
    entries = name_arms(add_tuned([read_entry(run) for run in paths], paths), arm_keys)
    if not entries:
        raise ConfigError(
            "no runs to compare; train some first: glu-bench sweep variant=gelu,swiglu seed=0,1"
        )
    groups: dict[tuple[tuple[str, str], ...], list[Entry]] = {}
    for entry in entries:
        setting = {} if allow_mixed else setting_of(entry, arm_keys)
        groups.setdefault(tuple((name, repr(value)) for name, value in sorted(setting.items())), []).append(
            entry
        )
    if refuse_mixed and len(groups) > 1:
        difference = first_difference(groups)
        raise ConfigError(f"the runs differ in more than {', '.join(arm_keys)}: {difference}; --allow-mixed")
    tables, left_out = [], []
    for members in groups.values():
        arms = {entry.arm for entry in members}
        if len(arms) < 2 or not any(entry.result for entry in members):
            left_out += [entry.name for entry in members]
        else:
            tables.append(members)
    if not tables:
        raise ConfigError(
            f"{len(entries)} runs, but no setting has two arms with a finished run; "
            "glu-bench runs list shows them"
        )
    arms = {entry.arm for members in tables for entry in members}
    if baseline is not None and baseline not in arms:
        raise ConfigError(f"--baseline {baseline}: not among the arms {', '.join(sorted(arms))}")
    shown = {entry.name for members in tables for entry in members}
    left_out = sorted(set(left_out) - shown)
    return [_tabulate(members, baseline, split, left_out) for members in tables]


def _warn_of_edges(by_arm: dict[str, list[Entry]]) -> list[str]:
    """What tuning chose for each arm, and whose best value ends the grid."""
    said = []
    for arm, entries in by_arm.items():
        for key in entries[0].tuned:
            edge = entries[0].edges.get(key)
            at = f", the {edge} end of the grid: --widen" if edge else ""
            said.append(f"{arm}: {key} {entries[0].identity[key]:g} by tuning{at}")
    return said


def _losses(entries: list[Entry], split: str) -> dict[int, list[float]]:
    """Losses by seed; mixed settings may hold several runs of one seed."""
    losses: dict[int, list[float]] = {}
    for entry in entries:
        if entry.result is not None:
            losses.setdefault(entry.seed, []).append(float(entry.result[f"{split}_loss_nats"]))
    return losses


def _tabulate(
    members: list[Entry],
    baseline: str | None,
    split: str,
    left_out: list[str],
) -> Comparison:
    by_arm: dict[str, list[Entry]] = {}
    for entry in sorted(members, key=lambda e: (e.seed, e.name)):
        by_arm.setdefault(entry.arm, []).append(entry)
    losses = {arm: _losses(entries, split) for arm, entries in by_arm.items()}
    finished = [arm for arm in by_arm if losses[arm]]
    chosen = baseline if baseline in by_arm else _choose_baseline(finished)
    warnings = []
    if baseline not in (None, chosen):
        warnings.append(f"{baseline} is no arm here; differences are to {chosen}")
    warnings += _warn_of_edges(by_arm)
    rows = []
    for arm, entries in by_arm.items():
        row = _make_arm(arm, entries, losses[arm], losses[chosen], split)
        rows.append(row)
        if row.n_finished < row.n_planned:
            warnings.append(f"{arm}: the mean is over {row.n_finished} of {row.n_planned} runs")
    rows.sort(key=lambda row: (row.mean_loss_nats is None, row.mean_loss_nats or 0.0, row.arm))
    return Comparison(
        setting=describe_setting(members[0].identity, members[0].tuned),
        baseline=chosen,
        split=split,
        arms=rows,
        left_out=left_out,
        warnings=sorted(warnings),
        verdict=_say_verdict(rows),
    )


def _choose_baseline(finished: list[str]) -> str:
    for familiar in ("gelu", "relu", "swish"):
        if familiar in finished:
            return familiar
    return sorted(finished)[0]


def _make_arm(
    arm: str, entries: list[Entry], losses: dict[int, list[float]], base: dict[int, list[float]], split: str
) -> Arm:
    results = [entry.result for entry in entries if entry.result is not None]
    values = [loss for at_seed in losses.values() for loss in at_seed]
    mean = statistics.fmean(values) if values else None
    shared = sorted(set(losses) & set(base))
    one = results[0] if results else {}
    speeds = [r["tokens_per_s"] for r in results if r["tokens_per_s"] is not None]
    return Arm(
        arm=arm,
        n_finished=len(values),
        n_planned=len(entries),
        n_diverged=sum(entry.status == "diverged" for entry in entries),
        mean_loss_nats=mean,
        sd_loss_nats=statistics.stdev(values) if len(values) > 1 else None,
        perplexity=perplexity(mean) if mean is not None else None,
        bits_per_byte=statistics.fmean(r[f"{split}_bits_per_byte"] for r in results) if results else None,
        difference_nats=(
            statistics.fmean(statistics.fmean(losses[s]) - statistics.fmean(base[s]) for s in shared)
            if shared
            else None
        ),
        n_shared_seeds=len(shared),
        n_params=one.get("n_params"),
        n_ffn_params=one.get("n_ffn_params"),
        match_residual=one.get("match_residual"),
        flops_per_token=one.get("flops_per_token"),
        tokens_per_s=statistics.median(speeds) if speeds else None,
        peak_bytes=max((r["peak_bytes"] for r in results), default=None),
    )


def _say_verdict(rows: list[Arm]) -> str:
    """The order in words; whether it could be chance is not tested yet, and that is said."""
    ranked = [row for row in rows if row.mean_loss_nats is not None and math.isfinite(row.mean_loss_nats)]
    if len(ranked) < 2:
        return "fewer than two arms have a finished run: nothing to compare yet"
    best, second = ranked[0], ranked[1]
    assert best.mean_loss_nats is not None
    assert second.mean_loss_nats is not None
    gap = second.mean_loss_nats - best.mean_loss_nats
    return (
        f"{best.arm} has the least mean loss, {gap:.4f} nats below {second.arm}; "
        "no test of significance was made, so this is an order, not a finding"
    )
