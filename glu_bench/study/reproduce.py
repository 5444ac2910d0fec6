"""A published table and ours of the same arms: order, gap of gated over ungated arms, verdict."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from glu_bench.config import expand_grid, read_variant
from glu_bench.errors import ConfigError, DataError
from glu_bench.files import sha256_bytes
from glu_bench.schema import BUDGET_KEYS
from glu_bench.stats.blocked import Losses
from glu_bench.stats.concordance import Concordance, find_concordance
from glu_bench.stats.findings import Findings, judge_losses, judge_means, judge_summaries
from glu_bench.stats.gap import Gap, find_gap, find_summary_gap
from glu_bench.stats.interval import ALPHA, Summary
from glu_bench.stats.pair import Pair
from glu_bench.study import tuning
from glu_bench.study.arms import describe_setting
from glu_bench.study.card import Card, Column, Scale, find_column, spell_grid
from glu_bench.study.compare import choose_baseline
from glu_bench.study.plan import Plan, PlannedRun, has_plan, load_plan

RULES = (
    "contradicted: a pair that both sides separate stands in opposite order, or both gaps' 95 % intervals "
    "leave out 0 on opposite sides, or chance gives so few agreements with probability 5 % or less. "
    "reproduced: none of these, and every pair that the published side tells apart is separated here in the "
    "same order, or one of them is and chance gives so many agreements with probability 5 % or less. "
    "not_separable: all else."
)


@dataclass(frozen=True, kw_only=True)
class ScaledSweep:
    """What a scale of a card runs: words of a sweep, what it tunes, and the sweep's id."""

    name: str
    words: list[str]
    tune: list[str]
    tune_seeds: list[int]


@dataclass(frozen=True, kw_only=True)
class Row:
    """One arm on one side."""

    arm: str
    mean_loss_nats: float
    sd_loss_nats: float | None
    n_finished: int
    n_planned: int
    letters: str  # arms of one side that share one are not separable
    difference_nats: float | None  # to the baseline of its side; the two sides can be held together here
    tuned: dict[str, str]  # what tuning chose


@dataclass(frozen=True, kw_only=True)
class Side:
    """A table, best first; losses of the two sides are in different units and never subtracted."""

    setting: str
    test: str
    baseline: str
    arms: list[Row]
    pairs: list[Pair]
    gap: Gap | None  # gated less ungated


@dataclass(frozen=True, kw_only=True)
class Reproduction:
    """Published against ours. The verdict is one of `RULES`."""

    card: str
    title: str
    source: str
    column: str
    published: Side
    ours: Side
    concordance: Concordance
    contradicted_pairs: list[tuple[str, str]]
    verdict: str
    sentence: str
    rules: str
    warnings: list[str]


@dataclass(frozen=True, kw_only=True)
class Finished:
    """What a plan's runs have given so far."""

    losses: Losses
    n_planned: dict[str, int]
    tuned: dict[str, dict[str, str]]
    warnings: list[str]
    setting: str


@dataclass(frozen=True, kw_only=True)
class _Taken:
    """A planned run that counts, and what tuning chose for it."""

    planned: PlannedRun
    arm: str
    seed: int
    tuned: dict[str, str]
    edges: list[tuple[str, str, str]]  # key, its value, and the end of the grid that this is


def make_protocol(
    card: Card, scale_name: str, scale: Scale, *, given: Sequence[str] = (), quick: bool = False
) -> ScaledSweep:
    """The sweep of a scale. `given` words replace the card's.

    `quick` tunes nothing: every arm gets the middle of each grid, the lower one of two.
    """
    keys = {word.partition("=")[0] for word in given}
    words = [
        f"variant={','.join(card.arms)}",
        f"seed={','.join(map(str, scale.seeds))}",
        f"model={scale.model}",
        *([] if keys & set(BUDGET_KEYS) else [f"train.tokens={scale.tokens}"]),
        *scale.overrides,
    ]
    words = [word for word in words if word.partition("=")[0] not in keys]
    grids = {key: grid for key, grid in scale.tune.items() if key not in keys}
    if quick:
        words += [spell_grid(key, [grid[(len(grid) - 1) // 2]]) for key, grid in grids.items()]
    tune = [] if quick else [spell_grid(key, grid) for key, grid in grids.items()]
    name = f"{card.name}-{scale_name}{'-quick' if quick else ''}"
    if given:
        name += f"-{sha256_bytes(chr(10).join(sorted(given)).encode())[:6]}"
    return ScaledSweep(
        name=name, words=[*words, *given], tune=tune, tune_seeds=scale.tune_seeds if tune else []
    )


def check_protocol(protocol: ScaledSweep, output_dir: Path, config_dir: Path | None = None) -> None:
    """Refuse a sweep's name that stands for other runs; more seeds and more values to tune are the same.

    Raises: ConfigError if an earlier sweep of that name has arms or settings that this one has not.
    """
    free = {"seed", *(word.partition("=")[0] for word in protocol.tune)}
    name = protocol.name + ("-tune" if protocol.tune else "")
    if not has_plan(output_dir, name):
        return
    now = {_spell_arm(words, free) for words in expand_grid(protocol.words, config_dir)}
    for planned in load_plan(output_dir / "sweeps" / name).runs:
        if (before := _spell_arm(planned.words, free)) not in now:
            raise ConfigError(f"sweep {name} has other runs ({before}); choose another --name")


def _spell_arm(words: Sequence[str], free: set[str]) -> str:
    return " ".join(sorted(word for word in words if word.partition("=")[0] not in free))


def read_finished(plan: Plan) -> Finished:
    """Test losses by arm and seed of a plan's runs, those of its recorded tuning if it has one.

    Raises: ConfigError for several runs of one arm and seed, of which none is the one to take;
    DataError for a record that is broken.
    """
    taken = _take_runs(plan)
    losses: dict[str, dict[int, float]] = {}
    n_diverged: Counter[str] = Counter()
    for each in taken:
        run = plan.run(each.planned)
        outcome = run.outcome()
        loss = run.result(("test_loss_nats",))["test_loss_nats"] if outcome == "complete" else None
        if loss is not None and math.isfinite(loss):
            losses.setdefault(each.arm, {})[each.seed] = float(loss)
        elif outcome in ("complete", "diverged"):
            n_diverged[each.arm] += 1
    n_planned = dict(Counter(each.arm for each in taken))
    return Finished(
        losses=losses,
        n_planned=n_planned,
        tuned={each.arm: each.tuned for each in taken},
        warnings=[*_warn_of_edges(taken), *_warn_of_unfinished(losses, n_planned, n_diverged)],
        setting=describe_setting(taken[0].planned.identity, tuple(taken[0].tuned)) if taken else "",
    )


def _take_runs(plan: Plan) -> list[_Taken]:
    """The runs that count in the order of the plan: those that the recorded tuning made, or all."""
    record = plan.folder / tuning.FILE
    made = tuning.load_tuning(record).runs if record.exists() else None
    taken: dict[tuple[str, int], _Taken] = {}
    for planned in plan.runs:
        if made is not None and planned.run_id not in made:
            continue  # of an earlier choice
        arm, seed = str(planned.identity["variant.name"]), int(planned.identity["seed"])
        if (arm, seed) in taken:
            raise ConfigError(
                f"sweep {plan.sweep_id} has several runs of {arm} at seed {seed}: "
                f"more varies than arms and seeds; glu-bench compare {plan.sweep_id}"
            )
        chosen = made[planned.run_id] if made is not None else {"keys": [], "edges": {}}
        values = dict(word.split("=", 1) for word in planned.words)
        if unset := sorted({*chosen["keys"], *chosen["edges"]} - set(values)):
            raise DataError(f"{record}: {planned.run_id} was tuned over {unset[0]}, which no word of it sets")
        taken[arm, seed] = _Taken(
            planned=planned,
            arm=arm,
            seed=seed,
            tuned={key: values[key] for key in chosen["keys"]},
            edges=[(key, values[key], side) for key, side in chosen["edges"].items()],
        )
    return list(taken.values())


def _warn_of_edges(taken: Sequence[_Taken]) -> list[str]:
    """A line for each arm and key whose best value ends its grid; the seeds of an arm say the same."""
    lines = [
        f"{each.arm}: {key} {value} by tuning, the {side} end of the grid: --widen"
        for each in taken
        for key, value, side in each.edges
    ]
    return list(dict.fromkeys(lines))


def _warn_of_unfinished(
    losses: Losses, n_planned: Mapping[str, int], n_diverged: Mapping[str, int]
) -> list[str]:
    lines = []
    for arm, n in n_planned.items():
        n_finished = len(losses.get(arm, {}))
        if n_finished < n:
            said = f", {n_diverged[arm]} diverged" if arm in n_diverged else ""
            lines.append(f"{arm}: {n_finished} of {n} runs finished{said}")
    return lines


def judge_reproduction(
    card: Card, column_name: str | None, finished: Finished, config_dir: Path | None = None
) -> Reproduction:
    """Published against ours, and the verdict by `RULES`.

    Separable means Holm over all pairs of a side at 5 %: Welch for a column with sds, an assumed
    noise where the card states one, the seed-blocked model for ours. The concordance is over the
    pairs that the published side separates; over all its unequal pairs where nothing says how noisy
    it is, and then no pair can be contradicted.
    Raises: ConfigError if fewer than two arms of the column have a finished run.
    """
    name, column = find_column(card, column_name)
    ours_losses = {arm: finished.losses[arm] for arm in column.arms if arm in finished.losses}
    if len(ours_losses) < 2:
        raise ConfigError(
            f"{card.name}: fewer than two arms of column {name} have a finished run, nothing to set beside it"
        )
    gated = {arm for arm in column.arms if read_variant(arm, config_dir).gated}
    baseline = choose_baseline(list(ours_losses))  # of both sides
    published = _judge_published(column, baseline)
    ours = judge_losses(ours_losses, baseline)
    has_noise = any(pair.p_raw is not None for pair in published.pairs)
    told_apart = _list_told_apart(column, published, has_noise, set(ours_losses))
    concordance = find_concordance(told_apart, {e.arm: e.adjusted_loss_nats for e in ours.estimates})
    separable = {(pair.a, pair.b) for pair in ours.pairs if pair.separable}
    contradicted = [(a, b) for a, b in told_apart if has_noise and (b, a) in separable]
    ours_gap = find_gap(ours_losses, gated)
    published_gap = _find_published_gap(column, gated, set(ours_losses))
    verdict, reasons = decide(
        concordance,
        n_separated=sum(pair in separable for pair in told_apart),
        contradicted=contradicted,
        signs=(published_gap.sign if published_gap else 0, ours_gap.sign if ours_gap else 0),
    )
    return Reproduction(
        card=card.name,
        title=card.title,
        source=card.source,
        column=name,
        published=_make_published_side(card, column, published, has_noise, published_gap),
        ours=_make_our_side(finished, ours, ours_gap),
        concordance=concordance,
        contradicted_pairs=contradicted,
        verdict=verdict,
        sentence="; ".join(reasons),
        rules=RULES,
        warnings=[*finished.warnings, *ours.warnings, *_list_remarks(column, ours_losses, has_noise)],
    )


def decide(
    concordance: Concordance,
    *,
    n_separated: int,
    contradicted: Sequence[tuple[str, str]],
    signs: tuple[int, int],
) -> tuple[str, list[str]]:
    """The verdict by `RULES` and what led to it.

    `n_separated` of the concordance's pairs are separated here in the published order; `signs` are
    those of the published gap and ours, 0 where the interval holds 0.
    """
    against = []
    if contradicted:
        pairs = ", ".join(f"{a} below {b}" for a, b in contradicted)
        against.append(f"published and separable, here separable the other way: {pairs}")
    if signs[0] * signs[1] < 0:
        against.append("the gap of gated to ungated arms has the other sign")
    if concordance.of and concordance.p_at_most <= ALPHA:
        against.append(f"so few agreements come by chance with probability {concordance.p_at_most:.2g}")
    counted = (
        f"{concordance.agree} of {concordance.of} published pairs in the same order, "
        f"{n_separated} of them separable here"
    )
    if against:
        return "contradicted", [counted, *against]
    if not concordance.of:
        return "not_separable", ["the published noise separates no pair of the arms that finished here"]
    by_chance = f"chance gives so many with probability {concordance.p_at_least:.2g}"
    if n_separated == concordance.of or (n_separated and concordance.p_at_least <= ALPHA):
        return "reproduced", [counted, by_chance, "no pair is contradicted"]
    return "not_separable", [counted, by_chance, "no pair is contradicted"]


def _summaries(column: Column) -> dict[str, Summary]:
    return {arm: Summary(n=column.n, mean=row.mean, sd=row.sd) for arm, row in column.arms.items()}


def _judge_published(column: Column, baseline: str) -> Findings:
    summaries = _summaries(column)
    if column.noise is None:
        return judge_summaries(summaries, baseline)
    return judge_means(summaries, column.noise.sd, column.noise.df, baseline)


def _find_published_gap(column: Column, gated: set[str], arms: set[str]) -> Gap | None:
    """Over the arms that ours has too, so that the two gaps speak of the same arms."""
    summaries = {arm: summary for arm, summary in _summaries(column).items() if arm in arms}
    noise = None if column.noise is None else (column.noise.sd, float(column.noise.df))
    return find_summary_gap(summaries, gated, noise)


def _list_told_apart(
    column: Column, published: Findings, has_noise: bool, arms: set[str]
) -> list[tuple[str, str]]:
    """Pairs of these arms that the published side orders, the lower loss first."""
    means = {arm: row.mean for arm, row in column.arms.items()}
    return [
        (pair.a, pair.b)
        for pair in published.pairs
        if (pair.separable if has_noise else means[pair.a] < means[pair.b]) and {pair.a, pair.b} <= arms
    ]


def _make_published_side(
    card: Card, column: Column, published: Findings, has_noise: bool, gap: Gap | None
) -> Side:
    return Side(
        setting=f"{column.what}; {card.protocol}",
        test=published.test if has_noise else "none, the card states no noise",
        baseline=published.baseline,
        arms=_make_rows(published, dict.fromkeys(column.arms, column.n), {}),
        pairs=published.pairs,
        gap=gap,
    )


def _make_our_side(finished: Finished, ours: Findings, gap: Gap | None) -> Side:
    return Side(
        setting=finished.setting,
        test=ours.test,
        baseline=ours.baseline,
        arms=_make_rows(ours, finished.n_planned, finished.tuned),
        pairs=ours.pairs,
        gap=gap,
    )


def _list_remarks(column: Column, ours: Losses, has_noise: bool) -> list[str]:
    """What is missing on our side, and what is assumed of the published one."""
    remarks = []
    if missing := [arm for arm in column.arms if arm not in ours]:
        remarks.append(f"without {', '.join(missing)}: no finished run")
    if column.noise is not None:
        remarks.append(f"published noise assumed, sd {column.noise.sd:g}: {column.noise.reason}")
    elif not has_noise:
        remarks.append("the card states no noise: every unequal pair counts, none can be contradicted")
    return remarks


def _make_rows(
    found: Findings, n_planned: Mapping[str, int], tuned: Mapping[str, dict[str, str]]
) -> list[Row]:
    return [
        Row(
            arm=estimate.arm,
            mean_loss_nats=estimate.mean_loss_nats,
            sd_loss_nats=estimate.sd_loss_nats,
            n_finished=estimate.n,
            n_planned=n_planned[estimate.arm],
            letters=estimate.letters,
            difference_nats=estimate.difference_nats,
            tuned=tuned.get(estimate.arm, {}),
        )
        for estimate in found.estimates
    ]


def list_stand_ins(request: tuning.Request, plan: Plan) -> list[tuning.Choice]:
    """A choice for each arm before tuning has ended: its first value, which costs as much as any."""
    first = {key: values[0] for key, values in request.tuned.items()}
    arms = dict.fromkeys(tuning.name_arm(planned.words, request) for planned in plan.runs)
    return [tuning.Choice(arm=arm, chosen=first, edges={}, curve=[]) for arm in arms]
