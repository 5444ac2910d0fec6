"""The page's drawings for readers without JavaScript: SVG by matplotlib, in the colours of the page."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from glu_bench.errors import show_controls
from glu_bench.show.figure import allow_missing_glyphs
from glu_bench.show.report.data import finished, mean_profiles, mean_trace
from glu_bench.show.report.marks import Mark
from glu_bench.study.background import Background
from glu_bench.study.compare import Comparison
from glu_bench.study.traces import HELD_OUT, TRAINING, Trace

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# matplotlib wants numbers for colours; these stand for variables of the page's style
INK, MUTED, GRID = "#000001", "#000002", "#000003"
VARIABLES = {INK: "--ink", MUTED: "--muted", GRID: "--grid"} | {
    f"#0001{at:02x}": f"--c{at}" for at in range(16)
}
VARIABLES["#0002ff"] = "--cb"
COLORS = {variable: color for color, variable in VARIABLES.items()}
MARKERS = {
    "circle": "o",
    "square": "s",
    "diamond": "D",
    "triangle-up": "^",
    "triangle-down": "v",
    "cross": "P",
    "x": "X",
    "star": "*",
}
LINES = {"solid": "-", "dash": "--", "dot": ":", "dashdot": "-."}
MAX_ARMS = 24  # a legend of more says nothing
MAX_NAME = 32
MAX_POINTS = 120
SKIPPED_SHARE = 0.1  # of the tokens: the steep start would flatten all that follows


def draw_losses(table: Comparison, background: Background, marks: dict[str, Mark], prefix: str) -> str | None:
    """Mean loss of each arm against tokens; None if nothing was logged."""
    quantity = choose_quantity(background)
    traces = _mean_traces(table, background, quantity)

    def draw(axes: Axes) -> None:
        for name, trace in traces.items():
            _plot(axes, name, trace.tokens, trace.values, marks[name])
        _skip_start(axes, traces.values())
        _say(axes, "tokens", f"{'held-out' if quantity == HELD_OUT else 'training'} loss, nats/token")

    return _render(draw, prefix, "losses") if traces else None


def draw_differences(
    table: Comparison, background: Background, marks: dict[str, Mark], prefix: str
) -> str | None:
    """Mean loss less the baseline's at equal tokens, over the seeds both have; None if nothing was logged."""
    quantity = choose_quantity(background)
    traces = {}
    for arm in table.arms:
        if arm.arm != table.baseline:
            trace = _difference(background, arm.arm, table.baseline, quantity)
            if trace:
                traces[arm.arm] = trace

    def draw(axes: Axes) -> None:
        axes.axhline(0, color=COLORS["--cb"], linewidth=1.2)
        for name, trace in traces.items():
            _plot(axes, name, trace.tokens, trace.values, marks[name])
        _skip_start(axes, traces.values(), also=[0.0])
        _say(axes, "tokens", f"loss less {_short(table.baseline)}'s, nats/token")

    return _render(draw, prefix, "differences") if traces else None


def draw_costs(table: Comparison, marks: dict[str, Mark], prefix: str) -> str | None:
    """Mean loss against tokens/s and against peak memory; None if nothing was measured."""
    rows = [arm for arm in table.arms if arm.mean_loss_nats is not None and arm.tokens_per_s is not None]

    def draw(left: Axes, right: Axes) -> None:
        from matplotlib.ticker import EngFormatter, MaxNLocator

        for axes, label in ((left, "tokens/s, more is better"), (right, "peak memory in MB, less is better")):
            for arm in rows:
                at = arm.tokens_per_s if axes is left else (arm.peak_bytes or 0) / 1e6
                mark = marks[arm.arm]
                symbol, color = MARKERS[mark.symbol], COLORS[mark.color]
                x, y = float(at or 0), float(arm.mean_loss_nats or 0)
                axes.plot([x], [y], symbol, color=color, markersize=8, label="")
                note = axes.annotate(
                    _short(arm.arm),
                    (x, y),
                    xytext=(7, 4),
                    textcoords="offset points",
                    color=INK,
                    fontsize=9,
                    parse_math=False,
                )
                note.set_in_layout(False)
            axes.margins(x=0.25, y=0.15)
            axes.xaxis.set_major_locator(MaxNLocator(5))
            axes.xaxis.set_major_formatter(EngFormatter(sep=""))
            _say(axes, label, f"loss, nats/{table.per}")

    return _render(draw, prefix, "costs", n_columns=2) if rows else None


def draw_tuning(chart: dict[str, Any], prefix: str) -> str | None:
    """Held-out loss over the values of one tuned key; None if its values are words."""
    if not chart["numeric"]:
        return None

    def draw(axes: Axes) -> None:
        for arm in chart["arms"]:
            pairs = [(float(x), y) for x, y in zip(arm["x"], arm["y"], strict=True) if y is not None]
            mark = Mark(arm["color"], arm["dash"], arm["symbol"])
            _plot(axes, arm["name"], [x for x, _ in pairs], [y for _, y in pairs], mark, symbols=True)
            for x, y in pairs:
                if x == float(arm["chosen"]):
                    axes.plot([x], [y], "o", color="none", markeredgecolor=INK, markersize=13, label="")
        if chart["log"]:
            axes.set_xscale("log")
            values = sorted({float(x) for arm in chart["arms"] for x in arm["x"]})
            axes.set_xticks(values, [f"{value:g}" for value in values])
            axes.minorticks_off()
        _say(axes, _short(chart["key"]), "held-out loss, nats/token")

    return _render(draw, prefix, "tuning")


def draw_profile(name: str, by_arm: dict[str, list[float]], marks: dict[str, Mark], prefix: str) -> str:
    """One quantity over the layers."""

    def draw(axes: Axes) -> None:
        from matplotlib.ticker import MaxNLocator

        for arm, values in by_arm.items():
            _plot(axes, arm, list(range(1, len(values) + 1)), values, marks[arm], symbols=True)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        _say(axes, "layer", _short(name))

    return _render(draw, prefix, "profile")


def draw_profiles(
    table: Comparison, background: Background, marks: dict[str, Mark], prefix: str
) -> list[str]:
    """A drawing for each of the first few quantities that are a number a layer."""
    profiles = list(mean_profiles(table, background).items())[:4]
    return [draw_profile(name, by_arm, marks, f"{prefix}{at}") for at, (name, by_arm) in enumerate(profiles)]


def choose_quantity(background: Background) -> str:
    """Held-out loss where runs logged it at three steps or more, else the training loss."""
    counts = [len(m.log.traces[HELD_OUT].values) for m in background.members if HELD_OUT in m.log.traces]
    return HELD_OUT if counts and max(counts) >= 3 else TRAINING


def _mean_traces(table: Comparison, background: Background, quantity: str) -> dict[str, Trace]:
    found = {arm.arm: mean_trace(finished(background, arm.arm), quantity) for arm in table.arms}
    return {name: trace for name, trace in list(found.items())[:MAX_ARMS] if trace}


def _difference(background: Background, arm: str, baseline: str, quantity: str) -> Trace | None:
    ours, theirs = finished(background, arm), finished(background, baseline)
    seeds = {member.seed for member in ours} & {member.seed for member in theirs}
    a, b = (mean_trace([m for m in side if m.seed in seeds], quantity) for side in (ours, theirs))
    if a is None or b is None:
        return None
    at_b = dict(zip(b.tokens, b.values, strict=True))
    shared = [
        (x, s, y - at_b[x]) for x, s, y in zip(a.tokens, a.elapsed_s, a.values, strict=True) if x in at_b
    ]
    return Trace(*([point[at] for point in shared] for at in range(3))) if shared else None


def _plot(
    axes: Axes, name: str, x: Sequence[float], y: Sequence[float], mark: Mark, symbols: bool = False
) -> None:
    step = -(-len(x) // MAX_POINTS)
    axes.plot(
        x[::-1][::step][::-1],
        y[::-1][::step][::-1],
        LINES[mark.dash],
        color=COLORS[mark.color],
        marker=MARKERS[mark.symbol] if symbols or len(x) <= 24 else None,
        markersize=5,
        linewidth=1.8,
        label=f"\u200b{_short(name)}",  # a label that begins with _ would be left out
    )


def _short(name: str) -> str:
    """A name as a drawing has room for it; the tables have it whole."""
    shown = show_controls(name)
    return shown if len(shown) <= MAX_NAME else f"{shown[: MAX_NAME - 1]}…"


def _say(axes: Axes, x: str, y: str) -> None:
    from matplotlib.ticker import EngFormatter

    if x == "tokens":
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.set_xlabel(x, color=MUTED, parse_math=False)
    axes.set_ylabel(y, color=MUTED, parse_math=False)
    axes.tick_params(colors=MUTED, labelcolor=MUTED)
    axes.grid(color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    for side, spine in axes.spines.items():
        spine.set_visible(side == "bottom")
        spine.set_color(GRID)


def _skip_start(axes: Axes, traces: Iterable[Trace], also: Sequence[float] = ()) -> None:
    """Limit the axis to what comes after the first tenth; `also` is kept in sight."""
    traces = list(traces)
    last = max(trace.tokens[-1] for trace in traces)
    values = [
        value
        for trace in traces
        for at, value in zip(trace.tokens, trace.values, strict=True)
        if at >= SKIPPED_SHARE * last
    ]
    low, high = min(*values, *also, *values), max(*values, *also, *values)
    if low < high:
        pad = 0.06 * (high - low)
        axes.set_ylim(low - pad, high + pad)


def _render(draw: Callable[..., None], prefix: str, name: str, n_columns: int = 1) -> str:
    """The drawing as an element of the page: ids of its own, colours by variable, the page's font."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    content = io.StringIO()
    with (
        rc_context({"svg.hashsalt": "glu-bench", "svg.fonttype": "none", "font.size": 11}),
        allow_missing_glyphs(),  # the reader's fonts count
    ):
        figure = Figure(figsize=(9.2, 3.9), layout="constrained")
        figure.patch.set_visible(False)
        panels = list(figure.subplots(1, n_columns, squeeze=False).flat)
        for axes in panels:
            axes.patch.set_visible(False)
        draw(*panels)
        handles, labels = panels[0].get_legend_handles_labels()
        if labels:
            legend = figure.legend(
                handles, labels, loc="outside right upper", frameon=False, labelcolor=INK, fontsize=10
            )
            for text in legend.get_texts():
                text.set_parse_math(False)
        figure.savefig(content, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    return _adopt(content.getvalue(), f"{prefix}{name}-")


def _adopt(svg: str, prefix: str) -> str:
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'<svg [^>]*viewBox="([^"]+)"[^>]*>', r'<svg viewBox="\1" aria-hidden="true">', svg, count=1)
    svg = re.sub(r">\s+<", "><", svg)
    return re.sub(r"<[^>]+>", lambda tag: _adopt_tag(tag[0], prefix), svg)  # texts stay as they are


def _adopt_tag(tag: str, prefix: str) -> str:
    tag = re.sub(r' id="([^"]+)"', rf' id="{prefix}\1"', tag)
    tag = re.sub(r'xlink:href="#([^"]+)"', rf'href="#{prefix}\1"', tag)
    tag = re.sub(r"url\(#([^)]+)\)", rf"url(#{prefix}\1)", tag)
    tag = re.sub(r" font-family: [^;\"]*;?| transform=\"rotate\(-0 [^\"]*\"", "", tag)
    tag = re.sub(r"(\d\.\d)\d+", r"\1", tag)
    for color, variable in VARIABLES.items():
        tag = tag.replace(color, f"var({variable})")
    return " ".join(tag.split())
