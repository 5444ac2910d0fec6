"""Loss against budget or size, arm by arm: what was measured, the law through it, what it foretells."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from glu_bench.errors import ConfigError, DataError
from glu_bench.runs.folder import Run
from glu_bench.schema import BUDGET_KEYS
from glu_bench.stats.fit import MIN_BUDGETS, TRUSTED, PowerLaw, fit_power_law
from glu_bench.stats.speedup import Speedup, measure_speedup
from glu_bench.study.arms import (
    Entry,
    Setting,
    add_tuned,
    describe_setting,
    group_by_setting,
    name_arms,
    read_entries,
)
from glu_bench.study.compare import choose_baseline
from glu_bench.study.plan import PlannedRun
from glu_bench.study.recall import recall_words
from glu_bench.study.speedup import collect_losses, read_loss, read_tokens

SIZE_KEYS = ("model.preset", "model.d_model", "model.n_layers", "model.n_heads", "match.d_ff")


@dataclass(frozen=True)
class Axis:
    """What loss is held against."""

    measure: Callable[[Mapping[str, Any]], float]  # from a run's final record
    varied: tuple[str, ...]  # parts of a setting that it takes along
    unit: str

    @property
    def keys(self) -> tuple[str, ...]:
        """Keys that may differ between the points of a curve."""
        keys = {"budget": BUDGET_KEYS, "model": SIZE_KEYS}
        return tuple(name for part in self.varied for name in keys[part])


AXES = {
    "tokens": Axis(read_tokens, ("budget",), "tokens"),
    "params": Axis(lambda result: float(result["n_params"]), ("model",), "parameters"),
    "flops": Axis(
        lambda result: float(result["flops_per_token"]) * float(result["tokens"]),
        ("budget", "model"),
        "FLOPs",
    ),
}


@dataclass(frozen=True, kw_only=True)
class Measured:
    """The runs of an arm at one C: tokens, parameters or FLOPs of the whole training."""

    c: float
    n_finished: int
    n_planned: int
    n_diverged: int
    mean_loss_nats: float
    sd_loss_nats: float | None  # None with fewer than two seeds
    fitted: bool = True  # False off the frontier, where sizes and budgets both vary


@dataclass(frozen=True, kw_only=True)
class Predicted:
    """What an arm's law says of a C; the interval is of the mean over seeds, not of one run."""

    c: float
    loss_nats: float
    ci95: tuple[float, float]
    beyond: bool  # outside twice the measured range, where nothing says that the law holds


@dataclass(frozen=True, kw_only=True)
class ArmLaw:
    """One arm over its budgets or sizes."""

    arm: str
    points: list[Measured]
    law: PowerLaw | None
    why: str  # there is no law, or what is odd about it
    predictions: list[Predicted]
    speedup: Speedup | None  # over the baseline at this arm's greatest budget; over tokens alone


@dataclass(frozen=True, kw_only=True)
class Scaling:
    """The arms of one setting, budget or size apart; best at the greatest C first."""

    setting: str
    over: str  # tokens, params or flops: the unit of every c
    split: str
    baseline: str
    curves: list[ArmLaw]
    left_out: list[str]
    warnings: list[str]


def fit_scaling(
    paths: Sequence[str | Path | Run | PlannedRun],
    *,
    over: str = "tokens",
    baseline: str | None = None,
    split: str = "test",
    arm_keys: Sequence[str] = ("variant",),
    predict: Sequence[float] = (),
) -> list[Scaling]:
    """The laws of runs, as `fit_entries` finds them."""
    entries = name_arms(add_tuned(read_entries(paths), paths), arm_keys)
    return fit_entries(entries, over=over, baseline=baseline, split=split, arm_keys=arm_keys, predict=predict)


def fit_entries(
    entries: Sequence[Entry],
    *,
    over: str = "tokens",
    baseline: str | None = None,
    split: str = "test",
    arm_keys: Sequence[str] = ("variant",),
    predict: Sequence[float] = (),
) -> list[Scaling]:
    """One table a setting in which some arm has four budgets (or sizes) or more.

    Over FLOPs both may vary; a law then goes through the frontier, the points better than every
    cheaper one.
    Raises: ConfigError if no arm has enough, with what to run; or if the baseline is no arm.
    """
    axis = AXES[over]
    groups = group_by_setting(sorted(entries, key=lambda each: each.name), arm_keys, axis.keys)
    counts = {key: _count_points(members, split, axis) for key, members in groups.items()}
    shown = {key: members for key, members in groups.items() if max(counts[key].values()) >= MIN_BUDGETS}
    if not shown:
        raise ConfigError(_say_what_to_run(groups, counts, over))
    arms = {entry.arm for members in shown.values() for entry in members}
    if baseline is not None and baseline not in arms:
        raise ConfigError(f"--baseline {baseline}: not among the arms {', '.join(sorted(arms))}")
    names = {entry.name for members in shown.values() for entry in members}
    left_out = sorted({entry.name for entry in entries} - names)
    made = [_make_scaling(shown[key], over, baseline, split, predict, left_out) for key in sorted(shown)]
    return sorted(made, key=lambda scaling: scaling.setting)


def _count_points(members: Sequence[Entry], split: str, axis: Axis) -> dict[str, int]:
    counts = {}
    for arm in sorted({entry.arm for entry in members}):
        points, _ = collect_losses((e for e in members if e.arm == arm), split, axis.measure)
        counts[arm] = len(points)
    return counts


def _make_scaling(
    members: Sequence[Entry],
    over: str,
    baseline: str | None,
    split: str,
    predict: Sequence[float],
    left_out: list[str],
) -> Scaling:
    axis = AXES[over]
    by_arm: dict[str, list[Entry]] = {}
    for entry in members:
        by_arm.setdefault(entry.arm, []).append(entry)
    finished = sorted(arm for arm, own in by_arm.items() if any(read_loss(e, split) is not None for e in own))
    chosen = baseline if baseline in finished else choose_baseline(finished)
    warnings = []
    if baseline not in (None, chosen):
        warnings.append(f"{baseline} has no finished run here; speedups are over {chosen}")
    curves = []
    for arm, own in by_arm.items():
        _, skipped = collect_losses(own, split, axis.measure)
        if skipped:
            warnings.append(f"{arm}: {len(own) - len(skipped)} of {len(own)} runs finished")
        speedup = None
        if over == "tokens" and arm in finished and arm != chosen:
            speedup = _measure_last(by_arm[chosen], own, split)
        curves.append(_make_curve(arm, own, axis, split, predict, speedup))
    top = max(point.c for curve in curves for point in curve.points)
    one = members[0]
    return Scaling(
        setting=describe_setting(one.identity, one.tuned, axis.varied),
        over=over,
        split=split,
        baseline=chosen,
        curves=sorted(curves, key=lambda curve: _rank(curve, top)),
        left_out=left_out,
        warnings=sorted(warnings),
    )


def _rank(curve: ArmLaw, top: float) -> tuple[bool, float, str]:
    if curve.law is None:
        return True, 0.0, curve.arm
    return False, float(curve.law.loss_at(top)), curve.arm


def _make_curve(
    arm: str, own: Sequence[Entry], axis: Axis, split: str, predict: Sequence[float], speedup: Speedup | None
) -> ArmLaw:
    points, _ = collect_losses(own, split, axis.measure)
    kept = points
    sizes = {tuple(repr(entry.identity.get(name)) for name in SIZE_KEYS) for entry in own}
    if len(axis.varied) > 1 and len(sizes) > 1:
        kept = [p for p in points if all(p.mean < other.mean for other in points if other.c < p.c)]
    law, why = None, ""
    try:
        law = fit_power_law(kept)
        why = "; ".join(law.notes)
    except DataError as error:
        why = str(error)
    if len(kept) < len(points):
        n_off = len(points) - len(kept)
        why = "; ".join(filter(None, (why, f"{n_off} of {len(points)} points off the frontier")))
    planned = _count_planned(own, axis)
    measured = [
        Measured(
            c=point.c,
            n_finished=len(point.losses),
            n_planned=max(planned[point.c][0], len(point.losses)),
            n_diverged=planned[point.c][1],
            mean_loss_nats=point.mean,
            sd_loss_nats=statistics.stdev(point.losses) if len(point.losses) > 1 else None,
            fitted=point in kept,
        )
        for point in points
    ]
    predictions = [_predict(law, c) for c in predict] if law else []
    return ArmLaw(arm=arm, points=measured, law=law, why=why, predictions=predictions, speedup=speedup)


def _predict(law: PowerLaw, c: float) -> Predicted:
    low, high = law.band_at(c)
    first, last = law.trusted
    return Predicted(
        c=c,
        loss_nats=float(law.loss_at(c)),
        ci95=(float(low[0]), float(high[0])),
        beyond=not first <= c <= last,
    )


def _count_planned(own: Sequence[Entry], axis: Axis) -> dict[float, tuple[int, int]]:
    """Seeds planned and diverged at each C; a run without a record belongs where its settings stand."""
    at: dict[tuple[str, ...], float] = {}
    stands = {entry.name: tuple(repr(entry.identity.get(name)) for name in axis.keys) for entry in own}
    for entry in own:
        if entry.result is not None:
            at[stands[entry.name]] = axis.measure(entry.result)
    counted: dict[float, tuple[set[int], set[int]]] = {c: (set(), set()) for c in at.values()}
    for entry in own:
        c = at.get(stands[entry.name])
        if c is not None:
            counted[c][0].add(entry.seed)
            if entry.status == "diverged":
                counted[c][1].add(entry.seed)
    return {c: (len(seeds), len(diverged)) for c, (seeds, diverged) in counted.items()}


def _measure_last(base: Sequence[Entry], own: Sequence[Entry], split: str) -> Speedup:
    baseline, _ = collect_losses(base, split, read_tokens)
    points, _ = collect_losses(own, split, read_tokens)

    def ratio(name: str, over: Sequence[Entry], under: Sequence[Entry]) -> float | None:
        a, b = (
            [e.result[name] for e in entries if e.result and e.result.get(name)] for entries in (over, under)
        )
        return statistics.median(a) / statistics.median(b) if a and b else None

    return measure_speedup(
        baseline,
        points[-1],
        flops_ratio=ratio("flops_per_token", base, own),
        rate_ratio=ratio("tokens_per_s", own, base),
    )


def _say_what_to_run(
    groups: Mapping[Setting, list[Entry]], counts: Mapping[Setting, dict[str, int]], over: str
) -> str:
    """That no arm has enough points, and a sweep that would give them."""
    what = "sizes" if over == "params" else "budgets"
    variants, model, size, tokens = ["gelu", "swiglu"], "model=nano", "model=pico,nano,micro,mini", [131_072]
    has = "no finished runs"
    if groups:
        key = max(groups, key=lambda each: (max(counts[each].values()), each))
        arm, most = max(counts[key].items(), key=lambda item: (item[1], item[0]))
        members = groups[key]
        has = f"{arm} has finished runs at {most} of them"
        variants = sorted({str(entry.identity["variant.name"]) for entry in members})
        model = f"model={members[0].identity['model.preset']}"
        size = f"{size} model.seq_len={members[0].identity['model.seq_len']}"
        there = {int(entry.result["tokens"]) for entry in members if entry.result}
        tokens = sorted(there)[:MIN_BUDGETS] or tokens
    rest = _recall_rest(members[0]) if groups else None
    if over == "params":
        words = f"{size} train.tokens={tokens[-1]}"
    elif rest is not None:  # the same runs at budgets that are missing
        more = [2 ** (at + 1) * tokens[-1] for at in range(max(1, MIN_BUDGETS - len(tokens)))]
        words = " ".join([*rest, f"train.tokens={','.join(map(str, more))}"])
    else:
        while len(tokens) < MIN_BUDGETS:
            tokens.append(2 * tokens[-1])
        words = f"{model} train.tokens={','.join(map(str, tokens))}"
    return (
        f"a fit takes {MIN_BUDGETS} {what} of an arm, all else equal; {has}: "
        f"glu-bench sweep variant={','.join(variants)} {words} seed=0,1,2"
    )


def _recall_rest(entry: Entry) -> list[str] | None:
    """The words of a run's setting, all but variant, seed and budget; None where it has no folder to read."""
    words = recall_words(Run(Path(entry.folder)).config()) if entry.folder else None
    left_out = ("variant", "seed", *BUDGET_KEYS)
    return None if words is None else [word for word in words if word.partition("=")[0] not in left_out]


def list_beyond(scaling: Scaling) -> list[str]:
    """A line for each extrapolation further than the law is trusted."""
    lines = []
    for curve in scaling.curves:
        for each in curve.predictions:
            if each.beyond and curve.law is not None:
                first, last = curve.law.points[0].c, curve.law.points[-1].c
                times = each.c / last if each.c > last else first / each.c
                side = "above" if each.c > last else "below"
                lines.append(
                    f"{curve.arm} at {each.c:.4g} {AXES[scaling.over].unit}: {times:.3g} times {side} the "
                    f"measured range, more than {TRUSTED:g}; the band holds only if the law does"
                )
    return lines
