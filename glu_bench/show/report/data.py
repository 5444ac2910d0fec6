"""What the page's script draws from: numbers, short, and texts without control characters."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from glu_bench.errors import show_controls
from glu_bench.show.report.marks import Mark
from glu_bench.study.background import Background, Member
from glu_bench.study.compare import Comparison
from glu_bench.study.traces import HELD_OUT, TRAINING, Trace

MAX_DIAGNOSTIC_POINTS = 20_000  # of a table
Points = list[list[float]]  # tokens, seconds, values


def make_page_data(
    tables: Sequence[Comparison], backgrounds: Sequence[Background], marks: dict[str, Mark]
) -> dict[str, Any]:
    """All tables of a page as plain lists, names escaped of control characters, nothing infinite."""
    return {
        "tables": [
            _make_table(table, background, marks)
            for table, background in zip(tables, backgrounds, strict=True)
        ]
    }


def mean_trace(members: Sequence[Member], quantity: str) -> Trace | None:
    """The mean over runs at the token counts that all of them logged; None without a run or such a count."""
    traces = [m.log.traces[quantity] for m in members if quantity in m.log.traces]
    if not traces or len(traces) < len(members):
        return None
    seconds = [dict(zip(t.tokens, t.elapsed_s, strict=True)) for t in traces]
    values = [dict(zip(t.tokens, t.values, strict=True)) for t in traces]
    shared = sorted(set.intersection(*(set(each) for each in values)))
    if not shared:
        return None
    return Trace(
        shared,
        [math.fsum(each[at] for each in seconds) / len(traces) for at in shared],
        [math.fsum(each[at] for each in values) / len(traces) for at in shared],
    )


def finished(background: Background, arm: str) -> list[Member]:
    """The runs of an arm that count in its mean."""
    return [member for member in background.members if member.arm == arm and member.result is not None]


def list_diagnostics(background: Background) -> list[str]:
    """Quantities logged along training beside the losses, in the order they were met."""
    names = dict.fromkeys(name for member in background.members for name in member.log.traces)
    return [name for name in names if name not in (HELD_OUT, TRAINING)]


def mean_profiles(table: Comparison, background: Background) -> dict[str, dict[str, list[float]]]:
    """Mean number a layer over the finished runs: by quantity, then by arm."""
    profiles: dict[str, dict[str, list[float]]] = {}
    for arm in table.arms:
        members = finished(background, arm.arm)
        for name in dict.fromkeys(name for member in members for name in member.log.profiles):
            rows = [member.log.profiles[name] for member in members if name in member.log.profiles]
            if len({len(row) for row in rows}) == 1:
                means = [math.fsum(column) / len(rows) for column in zip(*rows, strict=True)]
                profiles.setdefault(name, {})[arm.arm] = means
    return profiles


def label_choice(words: str, all_words: Sequence[str]) -> str:
    """An arm of a tuning by the words it does not share with the others; a variant by its name alone."""
    shared = set.intersection(*(set(each.split()) for each in all_words))
    own = [word for word in words.split() if word not in shared] or words.split()[:1]
    return " ".join(word.removeprefix("variant=") for word in own)


def _make_table(table: Comparison, background: Background, marks: dict[str, Mark]) -> dict[str, Any]:
    names = [arm.arm for arm in table.arms]
    flops = {arm.arm: arm.flops_per_token for arm in table.arms}
    return {
        "per": table.per,
        "baseline": names.index(table.baseline) if table.baseline in names else None,
        "arms": [
            {
                "name": show_controls(arm.arm),
                "color": marks[arm.arm].color,
                "dash": marks[arm.arm].dash,
                "symbol": marks[arm.arm].symbol,
                "flops": flops[arm.arm],
                "loss": _number(arm.mean_loss_nats),
                "ci": [_number(end) for end in arm.ci95] if arm.ci95 else None,
                "speed": _number(arm.tokens_per_s),
                "memory": arm.peak_bytes,
            }
            for arm in table.arms
        ],
        "runs": [
            {
                "arm": names.index(member.arm),
                "seed": member.seed,
                "status": member.status,
                "val": _points(member.log.traces.get(HELD_OUT)),
                "train": _points(member.log.traces.get(TRAINING)),
            }
            for member in background.members
            if member.log.traces
        ],
        "diagnostics": _make_diagnostics(table, background, names),
        "profiles": [
            {
                "name": show_controls(name),
                "arms": [
                    {"arm": names.index(arm), "y": [_number(value, 5) for value in values]}
                    for arm, values in by_arm.items()
                ],
            }
            for name, by_arm in mean_profiles(table, background).items()
        ],
        "tuning": [
            chart for tuning in background.tunings for chart in _make_tuning(tuning.choices, names, marks)
        ],
    }


def _make_diagnostics(table: Comparison, background: Background, names: list[str]) -> list[dict[str, Any]]:
    quantities = list_diagnostics(background)
    n_most = max(8, MAX_DIAGNOSTIC_POINTS // max(1, len(quantities) * len(names)))
    made = []
    for quantity in quantities:
        arms = []
        for at, arm in enumerate(table.arms):
            points = _points(mean_trace(finished(background, arm.arm), quantity), 5)
            if points:
                step = -(-len(points[0]) // n_most)
                arms.append({"arm": at, "points": [column[::-1][::step][::-1] for column in points]})
        if arms:
            made.append({"name": show_controls(quantity), "arms": arms})
    return made


def _make_tuning(choices: Sequence[Any], names: list[str], marks: dict[str, Mark]) -> list[dict[str, Any]]:
    """A chart a tuned key: held-out loss over its values, other keys at what was chosen."""
    all_words = [choice.arm for choice in choices]
    charts = []
    for key in choices[0].chosen if choices else ():
        arms = []
        for choice in choices:
            others = {name: value for name, value in choice.chosen.items() if name != key}
            curve = [
                point
                for point in choice.curve
                if all(point.values.get(name) == value for name, value in others.items())
            ]
            label = label_choice(choice.arm, all_words)
            mark = marks.get(label, Mark("--cb", "dot", "circle"))
            numbers = [_read_number(point.values[key]) for point in curve]
            curve = [point for _, point in sorted(zip(numbers, curve, strict=True), key=lambda pair: pair[0])]
            arms.append(
                {
                    "arm": names.index(label) if label in names else None,
                    "name": show_controls(label),
                    "color": mark.color,
                    "dash": mark.dash,
                    "symbol": mark.symbol,
                    "chosen": show_controls(choice.chosen[key]),
                    "edge": choice.edges.get(key),
                    "x": [show_controls(point.values[key]) for point in curve],
                    "y": [_number(point.mean_loss_nats) for point in curve],
                    "seeds": [
                        [_number(loss) for loss in point.losses_nats if math.isfinite(loss)]
                        for point in curve
                    ],
                }
            )
        numbers = [_read_number(value) for arm in arms for value in arm["x"]]
        charts.append(
            {
                "key": show_controls(key),
                "numeric": all(map(math.isfinite, numbers)),
                "log": all(0 < number < math.inf for number in numbers),
                "arms": arms,
            }
        )
    return charts


def _read_number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.inf  # words have no order


def _points(trace: Trace | None, digits: int = 6) -> Points | None:
    if trace is None:
        return None
    return [
        [round(tokens) for tokens in trace.tokens],
        [float(f"{elapsed_s:.4g}") for elapsed_s in trace.elapsed_s],
        [float(f"{value:.{digits}g}") for value in trace.values],
    ]


def _number(value: float | None, digits: int = 7) -> float | None:
    return None if value is None or not math.isfinite(value) else float(f"{value:.{digits}g}")
