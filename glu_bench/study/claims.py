"""Every claim of the table beside what runs and arithmetic say of it.

One rule for all. A claim predicts the sign of a contrast of arms (of a ratio: which side of 1).
It is supported if the contrast differs from 0 on the predicted side after Holm over all such
tests of one call, at 5 %; not supported if it does so on the other side; not separable
otherwise, and where nothing estimates the noise. What is exact, counts and functions, takes no
interval: it is supported or not. Claims without runs are not measured, and say what would.

Of several settings whose runs hold the number that a claim asks for, that with most of its arms and
seeds counts, whatever the number.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from glu_bench.errors import GluBenchError
from glu_bench.ffn.formula import CORE
from glu_bench.runs.folder import Run
from glu_bench.runs.publish import is_whole
from glu_bench.stats.contrast import Weighed, weigh_arms
from glu_bench.stats.holm import adjust_holm
from glu_bench.stats.interval import ALPHA, find_interval, find_p
from glu_bench.study.arms import Entry, add_tuned, describe_setting, group_by_setting, name_arms, read_entries
from glu_bench.study.claim_table import CLAIMS, DEEP, Claim, FactClaim, RunClaim, Stratum
from glu_bench.study.measures import Sources, Values
from glu_bench.study.plan import PlannedRun

SUPPORTED, NOT_SUPPORTED, NOT_SEPARABLE, NOT_MEASURED = (
    "supported",
    "not_supported",
    "not_separable",
    "not_measured",
)
EXACT_TOLERANCE = 0.005  # matching may leave counts that far apart
RULE = (
    "A claim predicts on which side of 0 (a ratio: of 1; a share with a level in its row: of that) a "
    "difference of arms lies: supported if it lies there at 5 % after Holm over the tests of this table, not "
    "supported if on the other side, else not separable. Intervals are of 95 %, each by itself. Counts and "
    "functions are exact and take none."
)

Summary = Mapping[str, float | int | None]
Inspect = Callable[[Run], Summary]  # what the network-level inspection of a run's last checkpoint says


@dataclass(frozen=True, kw_only=True)
class Judged:
    """One row: a claim under one matching."""

    claim: str
    source: str
    measurement: str
    value: float | None
    ci95: tuple[float, float] | None
    verdict: str
    unit: str
    predicted: str  # above or below the level (a ratio: 1), or exact
    level: float = 0.0
    match: str | None = None  # None: both, or of no account
    n_seeds: int | None = None
    p_raw: float | None = None
    p_holm: float | None = None  # over all tests of the table
    test: str = ""
    arms: tuple[str, ...] = ()
    setting: str = ""
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """All rows in the order of the table, and what a reader should know."""

    claims: list[Judged]
    n_tests: int  # the family of p_holm
    warnings: list[str]
    rule: str = RULE


@dataclass(frozen=True, kw_only=True)
class _Setting:
    """Runs that differ in arm and seed alone, or in learning rate too."""

    name: str
    identity: dict[str, Any]  # of one of them
    entries: tuple[Entry, ...]
    tuned: tuple[str, ...]


def judge_claims(
    found: Sequence[str | Path | Run | PlannedRun], *, inspect: Inspect, table: Sequence[Claim] = CLAIMS
) -> Judgement:
    """A row for each claim and matching; runs are inspected only where a claim needs it."""
    read = read_entries(found)
    settings = _group(name_arms(add_tuned(read, found), ("variant",)), ("variant",))
    over_lr = _group(name_arms(read, ("variant",)), ("variant", "optim.lr"))
    warnings: set[str] = set()
    sources = _make_sources(inspect, warnings)
    rows: list[Judged] = []
    for claim in table:
        for match in claim.matches:
            if isinstance(claim, FactClaim):
                rows.append(_judge_fact(claim, match))
            else:
                rows.append(_judge_runs(claim, match, over_lr if claim.over_lr else settings, sources))
    adjusted = adjust_holm([row.p_raw for row in rows])
    rows = [_conclude(row, p) for row, p in zip(rows, adjusted, strict=True)]
    return Judgement(
        claims=rows, n_tests=sum(row.p_raw is not None for row in rows), warnings=sorted(warnings)
    )


def _group(entries: Sequence[Entry], arm_keys: tuple[str, ...]) -> list[_Setting]:
    """Settings with the entries of the eight, in an order that inputs have no say in."""
    groups = group_by_setting((entry for entry in entries if entry.arm in CORE), arm_keys)
    settings = []
    for _, members in sorted(groups.items()):
        members.sort(key=lambda e: (CORE.index(e.arm), e.seed, e.name))
        one = members[0]
        tuned = one.tuned or (("optim.lr",) if "optim.lr" in arm_keys else ())
        name = describe_setting(one.identity, one.tuned, arm_keys)
        settings.append(
            _Setting(name=name, identity=one.identity, entries=tuple(members), tuned=tuple(tuned))
        )
    return settings


def _make_sources(inspect: Inspect, warnings: set[str]) -> Sources:
    """Logs and inspections, each read once; a run that cannot be inspected is named in `warnings`."""

    @functools.cache
    def read_rows(folder: str) -> list[dict[str, Any]]:
        return [row for row in Run(Path(folder)).rows() if isinstance(row, dict)]

    @functools.cache
    def read_summary(folder: str) -> Summary:
        try:
            return inspect(Run(Path(folder)))
        except GluBenchError as error:
            warnings.add(f"{Path(folder).name} was not inspected: {error}")
            return {}

    @functools.cache
    def read_whole(folder: str) -> list[dict[str, Any]]:
        rows = read_rows(folder)
        return rows if is_whole(rows, Run(Path(folder)).config().train.log_every) else []

    return Sources(
        rows=lambda entry: read_rows(entry.folder),
        every_row=lambda entry: read_whole(entry.folder),
        summary=lambda entry: read_summary(entry.folder),
    )


def _judge_fact(claim: FactClaim, match: str | None) -> Judged:
    fact = claim.find(match)
    return Judged(
        claim=claim.claim,
        source=claim.source,
        measurement=claim.measurement,
        value=fact.value,
        ci95=None,
        verdict=SUPPORTED if fact.holds else NOT_SUPPORTED,
        unit=claim.unit,
        predicted="exact",
        match=match,
        test="exact",
        note=fact.note,
    )


def _judge_runs(claim: RunClaim, match: str | None, settings: Sequence[_Setting], sources: Sources) -> Judged:
    row = Judged(
        claim=claim.claim,
        source=claim.source,
        measurement=claim.measurement,
        value=None,
        ci95=None,
        verdict=NOT_MEASURED,
        unit=claim.unit,
        predicted="above" if claim.above else "below",
        level=claim.level,
        match=match,
    )
    fitting = [setting for setting in settings if _fits(setting, claim, match)]
    ranked = [(_rank(setting, claim), setting) for setting in fitting]
    ranked = [each for each in ranked if each[0][1] > 0]
    if not ranked:
        return replace(row, note=f"no finished runs: {_suggest(claim, match)}")
    ranked.sort(key=lambda each: each[0], reverse=True)
    chosen, values, strata = _find_measured(claim, [setting for _, setting in ranked], sources)
    looked_at = {entry.name for entry in chosen.entries}
    n_others = sum(not {entry.name for entry in setting.entries} <= looked_at for _, setting in ranked)
    row = replace(row, setting=chosen.name)
    machines = {entry.machine for entry in chosen.entries if entry.arm in claim.arms and entry.result}
    if claim.on_machine and len(machines) > 1:
        return replace(row, note=f"the runs were trained on {'; '.join(sorted(machines))}")
    if not strata:
        return replace(row, note=f"{_say_missing(claim)}: {_suggest(claim, match)}")
    weights = _weigh(strata)
    notes = _list_notes(claim, chosen, weights, n_others)
    row = replace(row, arms=tuple(weights), note="; ".join(notes))
    return _test(row, claim, weigh_arms(values, weights))


def _find_measured(
    claim: RunClaim, settings: Sequence[_Setting], sources: Sources
) -> tuple[_Setting, Values, list[Stratum]]:
    """The first setting whose runs hold the number, with it and its strata; else the first, empty."""
    for setting in settings:
        values = _measure(claim, setting, sources)
        if strata := _complete(claim.strata, set(values)):
            return setting, values, strata
    return settings[0], {}, []


def _measure(claim: RunClaim, setting: _Setting, sources: Sources) -> Values:
    """Finite values of the arms, of logarithms where ratios are asked for."""
    arms = set(claim.arms)
    entries = setting.entries
    if claim.relative:  # the arms of whole strata alone: one that is not compared must set no level
        there = {entry.arm for entry in entries if entry.result is not None}
        arms = {arm for stratum in _complete(claim.strata, there) for side in stratum for arm in side}
    values = claim.measure([entry for entry in entries if entry.arm in arms or not claim.relative], sources)
    if claim.unit != "ratio":
        return values
    logs = {
        arm: {seed: math.log(value) for seed, value in by_seed.items() if value > 0}
        for arm, by_seed in values.items()
    }
    return {arm: by_seed for arm, by_seed in logs.items() if by_seed}


def _test(row: Judged, claim: RunClaim, weighed: Weighed) -> Judged:
    """The row with its number and, where chance has a part, interval and raw p."""
    ratio = claim.unit == "ratio"

    def say(number: float) -> float:
        return math.exp(number) if ratio else number

    row = replace(row, value=say(weighed.difference), n_seeds=weighed.n_seeds, test=weighed.test)
    contrast = weighed.contrast
    if contrast is not None:
        low, high = find_interval(contrast.difference, contrast.standard_error, contrast.df)
        p = find_p((contrast.difference - claim.level) / contrast.standard_error, contrast.df)
        return replace(row, ci95=(say(low), say(high)), p_raw=p, verdict=NOT_SEPARABLE)
    if claim.exact:
        far = weighed.difference if claim.above else -weighed.difference
        verdict = SUPPORTED if far > EXACT_TOLERANCE else NOT_SUPPORTED
        return replace(row, test="exact", verdict=verdict)
    return replace(row, verdict=NOT_SEPARABLE, note="; ".join(filter(None, (weighed.test, row.note))))


def _conclude(row: Judged, p_holm: float | None) -> Judged:
    """The verdict once all tests of the table are known."""
    if p_holm is None or row.value is None:
        return row
    if p_holm > ALPHA:
        return replace(row, p_holm=p_holm)
    above = row.value > (1 if row.unit == "ratio" else row.level)
    verdict = SUPPORTED if above == (row.predicted == "above") else NOT_SUPPORTED
    return replace(row, p_holm=p_holm, verdict=verdict)


def _fits(setting: _Setting, claim: RunClaim, match: str | None) -> bool:
    identity = setting.identity
    return (
        (match is None or identity["match.mode"] == match)
        and (claim.compiled is None or identity["train.compile"] == claim.compiled)
        and (claim.epochs == 0 or (identity["train.epochs"] or 0) >= claim.epochs)
    )


def _rank(setting: _Setting, claim: RunClaim) -> tuple[bool, int, int, int, int, bool, int, str]:
    """Deep where that is asked for; then most whole strata, arms, shared seeds, learning rates where
    these are looked over; tuned; the larger budget."""
    seeds: dict[str, set[int]] = {}
    for entry in setting.entries:
        if entry.arm in claim.arms and entry.result is not None:
            seeds.setdefault(entry.arm, set()).add(entry.seed)
    strata = _complete(claim.strata, set(seeds))
    arms = _weigh(strata)
    shared = set.intersection(*(seeds[arm] for arm in arms)) if arms else set()
    tokens = max((int(e.result["tokens"]) for e in setting.entries if e.result), default=0)
    n_rates = len({entry.identity["optim.lr"] for entry in setting.entries}) if claim.over_lr else 0
    deep = claim.deep and setting.identity["model.n_layers"] >= DEEP and bool(strata)
    tuned = bool(setting.tuned)
    return deep, len(strata), len(arms), len(shared), n_rates, tuned, tokens, repr(setting.identity)


def _complete(strata: Sequence[Stratum], there: set[str]) -> list[Stratum]:
    """The strata with an arm on each side that has any, and those of their arms that are there."""
    kept = []
    for first, second in strata:
        one = tuple(arm for arm in first if arm in there)
        other = tuple(arm for arm in second if arm in there)
        if one and (other or not second):
            kept.append((one, other))
    return kept


def _weigh(strata: Sequence[Stratum]) -> dict[str, float]:
    """Strata count alike, and so do the arms of a side."""
    weights: dict[str, float] = {}
    for first, second in strata:
        for side, sign in ((first, 1.0), (second, -1.0)):
            for arm in side:
                weights[arm] = weights.get(arm, 0.0) + sign / len(side) / len(strata)
    return weights


def _list_notes(claim: RunClaim, setting: _Setting, weights: Mapping[str, float], n_others: int) -> list[str]:
    notes = []
    if claim.deep:
        layers = setting.identity["model.n_layers"]
        notes.append(f"{layers} layers" + ("" if layers >= DEEP else ", not a very deep network"))
    missing = [arm for arm in claim.arms if arm not in weights]
    if missing:
        notes.append(f"without {', '.join(missing)}")
    if not claim.over_lr:
        mine = [entry for entry in setting.entries if entry.arm in weights]
        n_finished = sum(entry.result is not None for entry in mine)
        n_diverged = sum(entry.status == "diverged" for entry in mine)
        if n_finished < len(mine):
            diverged = f", {n_diverged} diverged" if n_diverged else ""
            notes.append(f"{n_finished} of {len(mine)} runs{diverged}")
    if n_others:
        notes.append(f"{n_others} other setting{'s' if n_others > 1 else ''} not looked at")
    return notes


def _say_missing(claim: RunClaim) -> str:
    return "no learning rate diverged above a stable one" if claim.over_lr else "the runs hold no such number"


def _suggest(claim: RunClaim, match: str | None) -> str:
    """The sweep that would measure it."""
    words = [f"variant={','.join(claim.arms)}", f"match={match}" if match else "", claim.words]
    return " ".join(["glu-bench sweep", *filter(None, words), "seed=0,1,2"])
