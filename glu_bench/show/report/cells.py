"""The page's tables: what stands in each cell, and by what a column is sorted."""

from __future__ import annotations

import math
import shlex
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from glu_bench.show.numbers import cell, duration, fixed, perplexity_text, si
from glu_bench.study.background import Background, Member
from glu_bench.study.compare import Arm, Comparison
from glu_bench.study.tuning import Choice

NOTHING = "–"
MAX_PAIRS = 300  # shown; of sixty arms there are 1,770
# said elsewhere, or nothing that was set
UNTOLD = ("seed", "variant.name", "variant.family", "variant.used_by", "tracker.name")
EQUAL_COSTS = (("equal_flops", "loss at equal FLOPs"), ("equal_time", "loss at equal time"))
WORDS = {
    "baseline": ("baseline", "baseline"),
    "better": ("better", "better"),
    "worse": ("worse", "worse"),
    "not_separable": ("tie", "not separable"),
    "insufficient": ("open", "not tested"),
}


@dataclass(frozen=True)
class Column:
    """A column's head; `text` stands left, numbers right."""

    title: str
    text: bool = False


@dataclass(frozen=True)
class Cell:
    """A cell; `sort` is None where there is nothing, which is sorted last."""

    text: str
    sort: float | str | None
    small: str = ""
    kind: str = ""  # a class of style.css


def list_result_columns(table: Comparison) -> list[Column]:
    """Heads of the table of results, the arm's own and the drawing's left out."""
    return [
        Column("loss, nats"),
        Column(f"vs {table.baseline}"),
        Column("p (Holm)"),
        Column("verdict", text=True),
        Column("letters", text=True),
        Column("runs"),
        Column("sd"),
        Column("perplexity"),
        Column("bits/byte"),
    ]


def list_result_cells(table: Comparison, arm: Arm) -> list[Cell]:
    """An arm's row of results."""
    is_baseline = arm.arm == table.baseline
    n = str(arm.n_finished) if arm.n_finished == arm.n_planned else f"{arm.n_finished} of {arm.n_planned}"
    kind, words = WORDS.get("baseline" if is_baseline else arm.verdict, ("open", arm.verdict))
    diverged = f"{arm.n_diverged} diverged" if arm.n_diverged else ""
    return [
        _number(arm.mean_loss_nats, small=_interval(arm.ci95)),
        Cell("0", 0.0) if is_baseline else _difference(arm),
        _probability(arm.p_holm),
        Cell(words, words, kind=f"tag {kind}"),
        Cell(arm.letters or NOTHING, arm.letters or None, kind="letters" if arm.letters else "none"),
        Cell(n, arm.n_finished, diverged, "bad" if diverged else ""),
        _number(arm.sd_loss_nats),
        Cell(NOTHING, None, kind="none")
        if arm.mean_loss_nats is None
        else Cell(perplexity_text(arm.perplexity), arm.perplexity if _finite(arm.perplexity) else math.inf),
        _number(arm.bits_per_byte),
    ]


def tone(table: Comparison, arm: Arm) -> str:
    """The class of an arm's interval in the drawing."""
    return WORDS.get("baseline" if arm.arm == table.baseline else arm.verdict, ("open", ""))[0]


def list_cost_columns(table: Comparison) -> list[Column]:
    """Heads of the table of costs."""
    columns = [
        Column("parameters"),
        Column("in feed-forward"),
        Column("match residual"),
        Column("FLOPs/token"),
        Column("tokens/s"),
        Column(f"speed over {table.baseline}"),
        Column("peak memory"),
    ]
    if any(arm.speedup for arm in table.arms):
        columns += [Column("speedup, compute"), Column("speedup, wall clock")]
    columns += [Column(title) for name, title in EQUAL_COSTS if any(getattr(arm, name) for arm in table.arms)]
    return columns


def list_cost_cells(table: Comparison, arm: Arm) -> list[Cell]:
    """An arm's row of costs."""
    base = next((each.tokens_per_s for each in table.arms if each.arm == table.baseline), None)
    ratio = arm.tokens_per_s / base if arm.tokens_per_s and base else None
    cells = [
        _whole(arm.n_params),
        _whole(arm.n_ffn_params),
        _or_nothing(arm.match_residual, lambda value: f"{value:+.2%}"),
        _or_nothing(arm.flops_per_token, si),
        _or_nothing(arm.tokens_per_s, si),
        _or_nothing(ratio, lambda value: f"{value:.2f}"),
        _or_nothing(arm.peak_bytes, lambda value: f"{si(value)}B"),
    ]
    if any(each.speedup for each in table.arms):
        cells += [_speedup(arm, "compute"), _speedup(arm, "wall")]
    for name, _ in EQUAL_COSTS:
        if any(getattr(each, name) for each in table.arms):
            equal = getattr(arm, name)
            ends = _interval(equal.ci95, sign=True) if equal else ""
            cells.append(_number(equal.difference_nats if equal else None, sign=True, small=ends))
    return cells


PAIR_COLUMNS = (
    Column("a", text=True),
    Column("b", text=True),
    Column("a - b, nats"),
    Column("95 % interval"),
    Column("p"),
    Column("p (Holm)"),
    Column("paired p"),
    Column("correlation"),
    Column("shared seeds"),
    Column("separable", text=True),
)


def list_pair_rows(table: Comparison) -> list[list[Cell]]:
    """The pairs of a table, of many the nearest ones."""
    pairs = table.pairs
    if len(pairs) > MAX_PAIRS:
        pairs = sorted(pairs, key=lambda pair: abs(pair.difference_nats))[:MAX_PAIRS]
    return [
        [
            Cell(pair.a, pair.a),
            Cell(pair.b, pair.b),
            _number(pair.difference_nats, sign=True),
            Cell(_interval(pair.ci95) or NOTHING, pair.ci95[0] if pair.ci95 else None),
            _probability(pair.p_raw),
            _probability(pair.p_holm),
            _probability(pair.p_paired),
            _number(pair.correlation, digits=2),
            Cell(str(pair.n_shared_seeds), pair.n_shared_seeds),
            Cell("yes" if pair.separable else "no", str(pair.separable)),
        ]
        for pair in pairs
    ]


RUN_COLUMNS = (
    Column("arm", text=True),
    Column("seed"),
    Column("status", text=True),
    Column("test loss"),
    Column("val loss"),
    Column("steps"),
    Column("time"),
    Column("run", text=True),
    Column("command", text=True),
)


def list_run_rows(background: Background) -> list[list[Cell]]:
    """Every run behind a table, with the command that trains it again."""
    rows = []
    for member in background.members:
        result = member.result or {}
        rows.append(
            [
                Cell(member.arm, member.arm),
                Cell(str(member.seed), member.seed),
                Cell(member.status, member.status, member.reason or ""),
                _number(result.get("test_loss_nats")),
                _number(result.get("val_loss_nats")),
                _whole(result.get("steps")),
                _or_nothing(result.get("elapsed_s"), duration),
                Cell(member.run_id, member.run_id, kind="code"),
                Cell(write_command(member), None, kind="code"),
            ]
        )
    return rows


def write_command(member: Member) -> str:
    """The shell command that trains a run."""
    if member.words is not None:
        return shlex.join(["glu-bench", "train", *member.words])
    return f"not by built-in files; all its settings: {member.folder}/config.yaml"


def list_settings(table: Comparison, background: Background) -> tuple[list[list[str]], list[list[str]]]:
    """Settings that differ (a value an arm) and settings that all runs share (one value)."""
    values: dict[str, dict[str, list[str]]] = {}
    for member in background.members:
        extra = {} if member.result is None else {"d_ff": member.result.get("d_ff")}
        for name, value in (member.settings | extra).items():
            if name not in UNTOLD:
                seen = values.setdefault(name, {}).setdefault(member.arm, [])
                word = _plain(value)
                if word not in seen:
                    seen.append(word)
    differing, shared = [], []
    for name, by_arm in values.items():
        words = {word for seen in by_arm.values() for word in seen}
        if len(words) > 1:
            each = [", ".join(by_arm.get(arm.arm, [NOTHING])) for arm in table.arms]
            differing.append([name, *each])
        elif words:
            shared.append([name, words.pop()])
    return differing, shared


def list_facts(background: Background, of: str) -> list[list[str]]:
    """Facts of the `machine` or the `text`: name, value; where runs differ, each value with its count."""
    facts: dict[str, dict[str, int]] = {}
    sides = [member.machine if of == "machine" else member.text for member in background.members]
    sides = [side for side in sides if side]
    for side in sides:
        for name, value in side.items():
            word = _plain(value)
            facts.setdefault(name, {})[word] = facts.get(name, {}).get(word, 0) + 1
    return [
        [name, next(iter(counts)) if len(counts) == 1 else _count(counts.items())]
        for name, counts in facts.items()
    ]


def list_choices(choices: Sequence[Choice], labels: Sequence[str]) -> list[list[str]]:
    """What a tuning chose: arm, values, and whether the grid ended there."""
    return [
        [
            label,
            ", ".join(f"{key} {value}" for key, value in choice.chosen.items()),
            ", ".join(f"{key}: the {side} end of the grid" for key, side in choice.edges.items()) or "inside",
            str(sum(len(point.losses_nats) for point in choice.curve)),
        ]
        for label, choice in zip(labels, choices, strict=True)
    ]


def _count(items: Iterable[tuple[str, int]]) -> str:
    return "; ".join(f"{word} ({n} runs)" for word, n in sorted(items, key=lambda item: -item[1]))


def _plain(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(map(_plain, value)) or "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "none" if value is None or value == "" else cell(value)


def _difference(arm: Arm) -> Cell:
    small = _interval(arm.difference_ci95, sign=True)
    return _number(arm.difference_nats, sign=True, small=small)


def _speedup(arm: Arm, of: str) -> Cell:
    """The ratio with its interval, or the bounds that there are instead."""
    if arm.speedup is None:
        return Cell(NOTHING, None, kind="none")
    value, interval = getattr(arm.speedup, of), getattr(arm.speedup, f"{of}_ci95")
    if value is not None:
        return _number(value, digits=2, small=_limits(interval))
    bounds = _limits(getattr(arm.speedup, f"{of}_bounds"))
    return Cell(bounds or NOTHING, None, kind="" if bounds else "none")


def _limits(ends: tuple[float | None, float | None] | None) -> str:
    low, high = ends or (None, None)
    if low is None or high is None:
        known = [("at least", low), ("at most", high)]
        return " ".join(f"{words} {value:.2f}" for words, value in known if value is not None)
    return f"{low:.2f} to {high:.2f}"


def _interval(ends: tuple[float, float] | None, digits: int = 4, sign: bool = False) -> str:
    return "" if ends is None else f"{fixed(ends[0], digits, sign)} to {fixed(ends[1], digits, sign)}"


def _number(value: float | None, digits: int = 4, sign: bool = False, small: str = "") -> Cell:
    if not _finite(value):
        return Cell(NOTHING if value is None else str(value), None, small, "none")
    return Cell(fixed(value, digits, sign), value, small)


def _probability(value: float | None) -> Cell:
    if not _finite(value) or value is None:
        return Cell(NOTHING, None, kind="none")
    return Cell("<0.0001" if value < 1e-4 else f"{value:.4f}", value)


def _whole(value: int | None) -> Cell:
    return Cell(NOTHING, None, kind="none") if value is None else Cell(f"{value:,}", value)


def _or_nothing(value: float | None, write: Callable[[float], str]) -> Cell:
    return Cell(NOTHING, None, kind="none") if value is None else Cell(write(value), value)


def _finite(value: float | None) -> bool:
    return value is not None and math.isfinite(value)
