"""Runs side by side: arms within settings, means over seeds, differences to a baseline.

An arm is what the keys declared to vary say; a setting is everything else that determines a
result. Runs of different settings never share a table unless asked for.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from glu_bench.errors import ConfigError
from glu_bench.evaluate.loss import perplexity
from glu_bench.runs.folder import Run
from glu_bench.schema import BUDGET_KEYS
from glu_bench.stats.equal_cost import EqualCost
from glu_bench.stats.findings import Estimate, Findings, judge_losses
from glu_bench.stats.pair import Pair
from glu_bench.stats.speedup import Speedup
from glu_bench.stats.verdict import say_verdict
from glu_bench.study.arms import (
    Entry,
    Setting,
    add_tuned,
    describe_setting,
    first_difference,
    group_by_setting,
    name_arms,
    read_entries,
    setting_key,
)
from glu_bench.study.plan import PlannedRun
from glu_bench.study.speedup import add_speedups, read_loss


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One row: the finished runs of an arm over its seeds."""

    arm: str
    n_finished: int
    n_planned: int
    n_diverged: int
    mean_loss_nats: float | None = None
    sd_loss_nats: float | None = None  # None with fewer than two seeds
    perplexity: float | None = None  # exp of the mean loss
    bits_per_byte: float | None = None
    difference_nats: float | None = None  # to the baseline; by least squares where seeds are not all shared
    n_shared_seeds: int = 0  # with the baseline
    ci95: tuple[float, float] | None = None  # of the mean
    difference_ci95: tuple[float, float] | None = None
    p_raw: float | None = None  # of the difference to the baseline
    p_holm: float | None = None  # over the arms against the baseline
    verdict: str = "insufficient"  # baseline, better, worse, not_separable, insufficient
    letters: str = ""  # arms that share one are not separable
    n_params: int | None = None
    n_ffn_params: int | None = None
    match_residual: float | None = None
    flops_per_token: int | None = None
    forward_flops_per_token: int | None = None
    ffn_saved_bytes_per_token: int | None = None  # kept for the backward pass by all blocks
    tokens_per_s: float | None = None
    peak_bytes: int | None = None
    speedup: Speedup | None = None
    equal_flops: EqualCost | None = None  # against the baseline given as many FLOPs
    equal_time: EqualCost | None = None  # as many seconds
    edges: dict[str, str] = field(default_factory=dict)  # tuned key: the end of its grid that was best
    losses: dict[int, float] = field(default_factory=dict)  # nats/token by seed
    runs: tuple[str, ...] = ()  # folders of the finished runs, by seed


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
    tuned: tuple[str, ...] = ()  # keys that a recorded tuning chose, arm by arm
    tuning: str = ""  # the grid and the seeds of that tuning, in words
    machines: tuple[str, ...] = ()  # that finished runs were trained on; speeds of several do not compare
    test: str = ""  # the primary test in words
    pairs: list[Pair] = field(default_factory=list)
    detectable_nats: float | None = None  # the smallest difference these seeds see with 80 % power
    per: str = "token"  # what losses count nats of: token, or byte where tokenizers differ
    nearest_tie: tuple[str, str] | None = None
    n_more_seeds: int | None = None  # an arm, that would settle it; None beyond 1,000
    seed_correlation: float | None = None  # of two runs that share a seed: what pairing bought


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
    found = read_entries(paths)
    # in one table for all a tuned run stands once; else also in its table of tuned runs
    entries = name_arms(found if allow_mixed else add_tuned(found, paths), arm_keys)
    if not entries:
        raise ConfigError(
            "no runs to compare; train some first: glu-bench sweep variant=gelu,swiglu seed=0,1"
        )
    groups = _drop_parts({(): entries} if allow_mixed else group_by_setting(entries, arm_keys))
    if refuse_mixed and len(groups) > 1:
        difference = first_difference(groups)
        raise ConfigError(f"the runs differ in more than {', '.join(arm_keys)}: {difference}; --allow-mixed")
    tables, alone = [], []
    for members in groups.values():
        arms = {entry.arm for entry in members}
        ended = any(entry.result or entry.status == "diverged" for entry in members)
        if len(arms) < 2 or not ended:
            alone += members
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
    made = [(_tabulate(members, baseline, split, arm_keys), members) for members in tables]
    made.sort(key=lambda each: (each[0].setting, min(entry.name for entry in each[1])))
    left_out = _list_left_out(alone, made)
    return [replace(table, left_out=left_out) for table in add_speedups(made, entries, arm_keys)]


def _list_left_out(alone: Sequence[Entry], made: Sequence[tuple[Comparison, list[Entry]]]) -> list[str]:
    """Runs that no table shows, but those of a baseline at other budgets, which speedups are made of."""
    curves = {
        setting_key(entry, (), BUDGET_KEYS)
        for table, members in made
        for entry in members
        if entry.arm == table.baseline
    }
    shown = {entry.name for _, members in made for entry in members}
    unused = (entry.name for entry in alone if setting_key(entry, (), BUDGET_KEYS) not in curves)
    return sorted(set(unused) - shown)


def _drop_parts(groups: dict[Setting, list[Entry]]) -> dict[Setting, list[Entry]]:
    """The groups without those whose runs are all in one of tuned runs: the arms that chose alike."""
    tuned = [{entry.name for entry in members} for members in groups.values() if members[0].tuned]
    return {
        setting: members
        for setting, members in groups.items()
        if members[0].tuned or not any({entry.name for entry in members} <= names for names in tuned)
    }


def _warn_of_edges(by_arm: dict[str, list[Entry]]) -> list[str]:
    """What tuning chose for each arm, and whose best value ends the grid."""
    said = []
    for arm, entries in by_arm.items():
        for key in entries[0].tuned:
            edge = entries[0].edges.get(key)
            at = f", the {edge} end of the grid: --widen" if edge else ""
            value = entries[0].identity[key]
            shown = f"{value:g}" if isinstance(value, int | float) else value
            said.append(f"{arm}: {key} {shown} by tuning{at}")
    return said


def _find_twins(by_arm: dict[str, list[Entry]], baseline: str | None) -> dict[str, str]:
    """Arms that came to the very weights of another at every seed, with that other.

    Such as an ungated variant at match=width and match=params: taken for two, its noise would count twice.
    """
    first: dict[tuple[tuple[int, str, float | None], ...], str] = {}
    twins: dict[str, str] = {}
    for arm in sorted(by_arm, key=lambda arm: (arm != baseline, arm)):
        weights = tuple(
            (entry.seed, str(entry.result.get("parameters_sha256", arm)), read_loss(entry, "test"))
            for entry in by_arm[arm]
            if entry.result is not None
        )
        if weights and (other := first.setdefault(weights, arm)) != arm:
            twins[arm] = other
    return twins


def _losses(entries: list[Entry], split: str, per: str) -> dict[int, float]:
    """Finite losses by seed; where mixed settings hold several runs of one seed, their mean."""
    losses: dict[int, list[float]] = {}
    for entry in entries:
        loss = read_loss(entry, split) if per == "token" else _read_nats_per_byte(entry, split)
        if loss is not None:
            losses.setdefault(entry.seed, []).append(loss)
    return {seed: statistics.fmean(sorted(values)) for seed, values in losses.items()}


def _tabulate(
    members: list[Entry],
    baseline: str | None,
    split: str,
    arm_keys: Sequence[str],
) -> Comparison:
    by_arm: dict[str, list[Entry]] = {}
    for entry in sorted(members, key=lambda e: (e.seed, e.name)):
        by_arm.setdefault(entry.arm, []).append(entry)
    twins = _find_twins(by_arm, baseline)
    by_arm = {arm: entries for arm, entries in by_arm.items() if arm not in twins}
    # a token is another amount of text to another tokenizer, a byte is the same to all
    per = "byte" if len({entry.identity["tokenizer_fingerprint"] for entry in members}) > 1 else "token"
    losses = {arm: _losses(entries, split, per) for arm, entries in by_arm.items()}
    finished = [arm for arm in by_arm if losses[arm]]
    chosen = baseline if baseline in by_arm else choose_baseline(finished or list(by_arm))
    warnings = [
        f"{arm}: the same weights as {other} at every seed, and shown as that" for arm, other in twins.items()
    ]
    machines = sorted({entry.machine for entry in members if entry.result is not None})
    if len(machines) > 1:
        warnings.append(f"trained on {'; '.join(machines)}: tokens/s, seconds and memory do not compare")
    if baseline not in (None, chosen):
        warnings.append(f"{baseline} is no arm here; differences are to {chosen}")
    if chosen not in finished:
        warnings.append(f"{chosen} has no finished run: nothing is set against it")
    if per == "byte":
        warnings.append("tokenizers differ: losses are in nats per byte of text, and there is no perplexity")
    warnings += _warn_of_edges(by_arm)
    found = judge_losses({arm: losses[arm] for arm in finished}, chosen) if finished else None
    estimates = {estimate.arm: estimate for estimate in found.estimates} if found else {}
    rows = []
    for arm, entries in by_arm.items():
        row = _make_arm(arm, entries, losses[arm], split)
        if arm in estimates:
            row = add_estimate(row, estimates[arm], len(set(losses[arm]) & set(losses[chosen])))
            row = replace(row, perplexity=row.perplexity if per == "token" else None)
        rows.append(row)
        if len(losses[arm]) < len(row.runs):
            warnings.append(f"{arm}: seeds with several runs count once, at their mean")
        if row.n_finished < row.n_planned:
            warnings.append(f"{arm}: the mean is over {row.n_finished} of {row.n_planned} runs")
    rank_of = {arm: rank for rank, arm in enumerate(estimates)}  # best first
    rows.sort(key=lambda row: (rank_of.get(row.arm, len(rank_of)), row.arm))
    one = min(members, key=lambda entry: entry.name)  # of mixed settings the same one whatever their order
    table = Comparison(
        setting=describe_setting(one.identity, one.tuned, arm_keys),
        baseline=chosen,
        split=split,
        per=per,
        arms=rows,
        left_out=[],
        warnings=sorted(warnings),
        verdict="no arm has a finished run: nothing to compare",
        tuned=one.tuned,
        tuning=one.budget,
        machines=tuple(machines),
    )
    return add_findings(table, found) if found else table


def add_findings(table: Comparison, found: Findings) -> Comparison:
    """The table with what the tests of all its arms say."""
    return replace(
        table,
        warnings=sorted(table.warnings + found.warnings),
        verdict=say_verdict(found),
        test=found.test,
        pairs=found.pairs,
        detectable_nats=found.detectable_nats,
        n_more_seeds=found.n_more_seeds,
        nearest_tie=found.nearest_tie,
        seed_correlation=found.seed_correlation,
    )


def choose_baseline(arms: list[str]) -> str:
    """The arm that differences refer to unless somebody says: an ungated one that people know."""
    for familiar in ("gelu", "relu", "swish"):
        for arm in sorted(arms):
            if familiar in arm.split():  # "gelu params" of --arms variant,match
                return arm
    return sorted(arms)[0]


def _make_arm(arm: str, entries: list[Entry], losses: dict[int, float], split: str) -> Arm:
    """The counts and costs of an arm."""
    finished = [entry for entry in entries if read_loss(entry, split) is not None]
    results = [entry.result for entry in finished if entry.result is not None]
    one = results[0] if results else {}
    speeds = [r["tokens_per_s"] for r in results if r["tokens_per_s"] is not None]
    bits = sorted(b for r in results if (b := r[f"{split}_bits_per_byte"]) is not None)
    return Arm(
        arm=arm,
        n_finished=len(results),
        n_planned=len(entries),
        n_diverged=sum(
            entry.status == "diverged" or (entry.result is not None and read_loss(entry, split) is None)
            for entry in entries
        ),
        bits_per_byte=statistics.fmean(bits) if bits else None,
        n_params=one.get("n_params"),
        n_ffn_params=one.get("n_ffn_params"),
        match_residual=one.get("match_residual"),
        flops_per_token=one.get("flops_per_token"),
        forward_flops_per_token=one.get("forward_flops_per_token"),
        ffn_saved_bytes_per_token=one.get("ffn_saved_bytes_per_token"),
        tokens_per_s=statistics.median(speeds) if speeds else None,
        peak_bytes=max((r["peak_bytes"] for r in results), default=None),
        edges=entries[0].edges,
        losses=losses,
        runs=tuple(entry.folder for entry in finished),
    )


def _read_nats_per_byte(entry: Entry, split: str) -> float | None:
    """Bits per byte times ln 2."""
    bits = entry.result.get(f"{split}_bits_per_byte") if entry.result else None
    return None if bits is None else float(bits) * math.log(2)


def add_estimate(row: Arm, estimate: Estimate, n_shared_seeds: int) -> Arm:
    """The row with its mean, interval and test."""
    return replace(
        row,
        mean_loss_nats=estimate.mean_loss_nats,
        sd_loss_nats=estimate.sd_loss_nats,
        ci95=estimate.ci95,
        perplexity=perplexity(estimate.mean_loss_nats),
        difference_nats=estimate.difference_nats,
        difference_ci95=estimate.difference_ci95,
        n_shared_seeds=n_shared_seeds,
        p_raw=estimate.p_raw,
        p_holm=estimate.p_holm,
        verdict=estimate.verdict,
        letters=estimate.letters,
    )
