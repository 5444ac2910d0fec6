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
from typing import Any

from glu_bench.errors import ConfigError
from glu_bench.evaluate.perplexity import perplexity
from glu_bench.runs.folder import Run, find_run, list_runs, make_identity
from glu_bench.study.plan import Plan, PlannedRun, find_plan, load_plan
from glu_bench.study.tuning import list_tuned


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


@dataclass(frozen=True)
class _Entry:
    name: str
    identity: dict[str, Any]
    seed: int
    status: str
    result: dict[str, Any] | None
    arm: str = ""
    tuned: tuple[str, ...] = ()  # keys that a recorded tuning chose, arm by arm
    edges: dict[str, str] = field(default_factory=dict)


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
    entries = _name_arms(_add_tuned([_read(run) for run in paths], paths), arm_keys)
    if not entries:
        raise ConfigError(
            "no runs to compare; train some first: glu-bench sweep variant=gelu,swiglu seed=0,1"
        )
    groups: dict[tuple[tuple[str, str], ...], list[_Entry]] = {}
    for entry in entries:
        setting = {} if allow_mixed else _setting_of(entry, arm_keys)
        groups.setdefault(tuple((name, repr(value)) for name, value in sorted(setting.items())), []).append(
            entry
        )
    if refuse_mixed and len(groups) > 1:
        difference = _first_difference(groups)
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


def find_runs(texts: Sequence[str], output_dir: Path) -> tuple[list[Run | PlannedRun], bool]:
    """Runs that words name (run, sweep or folder; none: all there are), and whether each was named.

    A sweep's runs that never began come as planned ones.
    Raises: ConfigError for a word that names nothing.
    """
    if not texts:
        return list(list_runs(output_dir)), False
    runs: dict[Path, Run | PlannedRun] = {}
    named = True
    for text in texts:
        found = _find_run_or_sweep(text, output_dir)
        if isinstance(found, Run):
            runs[found.path.resolve()] = found
            continue
        named = False
        if isinstance(found, Plan):
            for planned in found.runs:
                run = found.run(planned)
                began = (run.path / "config.yaml").is_file()
                runs[run.path.resolve()] = run if began else planned
        else:
            runs.update({run.path.resolve(): run for run in found})
    return list(runs.values()), named


def _find_run_or_sweep(text: str, output_dir: Path) -> Run | Plan | list[Run]:
    path = Path(text)
    if (path / "config.yaml").is_file():
        return Run(path)
    if (path / "plan.json").is_file():
        return load_plan(path)
    if path.is_dir() and ((path / "runs").is_dir() or any(path.glob("*/config.yaml"))):
        return list_runs(path) or [Run(inner.parent) for inner in sorted(path.glob("*/config.yaml"))]
    try:
        return find_run(text, output_dir)
    except ConfigError as error:
        try:
            return find_plan(text, output_dir)
        except ConfigError:
            raise error from None


def _read(found: str | Path | Run | PlannedRun) -> _Entry:
    if isinstance(found, PlannedRun):
        return _Entry(found.run_id, found.identity, found.identity["seed"], "planned", None)
    run = found if isinstance(found, Run) else Run(Path(found))
    config = run.config()
    facts = run.environment()
    identity = make_identity(config, {"data_fingerprint": "", "tokenizer_fingerprint": "", **facts})
    status = run.status()
    return _Entry(
        run.path.name, identity, config.seed, status, run.result() if status == "complete" else None
    )


def _is_arm_key(dotted: str, arm_keys: Sequence[str]) -> bool:
    return any(dotted == key or dotted.startswith(f"{key}.") for key in arm_keys)


def _add_tuned(entries: list[_Entry], paths: Sequence[str | Path | Run | PlannedRun]) -> list[_Entry]:
    """The entries, and once more those that a recorded tuning made: exempt from the keys it chose."""
    folders = {
        (path.path if isinstance(path, Run) else Path(path)).resolve().parent.parent
        for path in paths
        if not isinstance(path, PlannedRun)
    }
    tuned: dict[str, dict[str, Any]] = {}
    for folder in sorted(folders):
        tuned |= list_tuned(folder)
    again = [
        replace(entry, tuned=tuple(tuned[entry.name]["keys"]), edges=tuned[entry.name]["edges"])
        for entry in entries
        if entry.name in tuned
    ]
    return entries + again


def _setting_of(entry: _Entry, arm_keys: Sequence[str]) -> dict[str, Any]:
    exempt = {"seed", *entry.tuned}
    setting = {
        name: value
        for name, value in entry.identity.items()
        if name not in exempt and not _is_arm_key(name, arm_keys)
    }
    return setting | ({"tuned": entry.tuned} if entry.tuned else {})


def _arm_of(identity: dict[str, Any], arm_keys: Sequence[str]) -> str:
    names = {"variant": "variant.name", "model": "model.preset", "match": "match.mode", "data": "data.corpus"}
    names |= {"optim": "optim.name", "tokenizer": "tokenizer.kind"}
    parts = []
    for key in arm_keys:
        dotted = names.get(key, key)
        if dotted not in identity:
            raise ConfigError(f"--arms {key}: no such key among those that determine a result")
        parts.append(str(identity[dotted]) if key in names else f"{key}={identity[dotted]}")
    return " ".join(parts)


def _name_arms(entries: list[_Entry], arm_keys: Sequence[str]) -> list[_Entry]:
    """The entries with the names of their arms: one name never stands for two configurations.

    `variant=swiglu variant.up_clamp=7` beside plain swiglu becomes "swiglu up_clamp=7.0".
    """
    by_name: dict[str, list[_Entry]] = {}
    for entry in entries:
        by_name.setdefault(_arm_of(entry.identity, arm_keys), []).append(entry)
    names: dict[str, list[str]] = {}
    for name, members in by_name.items():
        keys = {key for entry in members for key in entry.identity if _is_arm_key(key, arm_keys)}
        names[name] = [k for k in sorted(keys) if len({repr(e.identity.get(k)) for e in members}) > 1]

    def rename(entry: _Entry) -> _Entry:
        name = _arm_of(entry.identity, arm_keys)
        values = ((key.partition(".")[2] or key, entry.identity.get(key)) for key in names[name])
        return replace(entry, arm=" ".join([name, *(f"{k}={v}" for k, v in values if v is not None)]))

    return [rename(entry) for entry in entries]


def _first_difference(groups: dict[tuple[tuple[str, str], ...], list[_Entry]]) -> str:
    one, other = (dict(setting) for setting in list(groups)[:2])
    name = next(name for name in sorted({*one, *other}) if one.get(name) != other.get(name))
    return f"{name} is {one.get(name)} and {other.get(name)}"


def _warn_of_edges(by_arm: dict[str, list[_Entry]]) -> list[str]:
    """What tuning chose for each arm, and whose best value ends the grid."""
    said = []
    for arm, entries in by_arm.items():
        for key in entries[0].tuned:
            edge = entries[0].edges.get(key)
            at = f", the {edge} end of the grid: --widen" if edge else ""
            said.append(f"{arm}: {key} {entries[0].identity[key]:g} by tuning{at}")
    return said


def _describe_setting(identity: dict[str, Any], tuned: tuple[str, ...] = ()) -> str:
    budget = next(
        f"{identity[f'train.{unit}']:,} {unit}"
        for unit in ("tokens", "steps", "epochs")
        if identity[f"train.{unit}"]
    )
    return ", ".join(
        [
            f"{identity['model.preset']} {identity['model.d_model']}x{identity['model.n_layers']}",
            str(identity["data.corpus"]),
            budget,
            f"match {identity['match.mode']}",
            f"{identity['optim.name']} lr "
            + ("tuned" if "optim.lr" in tuned else f"{identity['optim.lr']:g}"),
            str(identity["train.precision"]),
            *(f"{key} tuned" for key in tuned if key != "optim.lr"),
        ]
    )


def _losses(entries: list[_Entry], split: str) -> dict[int, list[float]]:
    """Losses by seed; mixed settings may hold several runs of one seed."""
    losses: dict[int, list[float]] = {}
    for entry in entries:
        if entry.result is not None:
            losses.setdefault(entry.seed, []).append(float(entry.result[f"{split}_loss_nats"]))
    return losses


def _tabulate(
    members: list[_Entry],
    baseline: str | None,
    split: str,
    left_out: list[str],
) -> Comparison:
    by_arm: dict[str, list[_Entry]] = {}
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
        setting=_describe_setting(members[0].identity, members[0].tuned),
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
    arm: str, entries: list[_Entry], losses: dict[int, list[float]], base: dict[int, list[float]], split: str
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
