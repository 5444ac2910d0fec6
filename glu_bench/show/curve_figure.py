"""Learning curves for a paper: loss against tokens, FLOPs and seconds, and the distance to the baseline."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from glu_bench.errors import DataError, show_controls
from glu_bench.show.figure import allow_missing_glyphs, check_figure, save_figure, show_label
from glu_bench.study.compare import Comparison
from glu_bench.study.curves import ArmCurve, Evaluated

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito 2008, Color Universal Design, less the yellow, faint on white; black is the baseline's;
# and a brown, so that the eight variants of Shazeer's table each have a colour
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7F4F24")
Style = Literal["-"] | tuple[float, Sequence[float]]
STYLES: tuple[Style, ...] = (  # dashes, so that a print in grey works too
    "-",
    (0, (5, 2)),
    (0, (6, 2, 1, 2)),
    (0, (1, 1.5)),
    (0, (3, 1, 1, 1, 1, 1)),
    (0, (8, 3)),
    (0, (2, 1)),
)
BASELINE = "black"
OTHERS = "0.75"
_SECONDS: Callable[[Evaluated], float | None] = attrgetter("elapsed_s")
PANELS: tuple[tuple[str, Callable[[Evaluated], float | None]], ...] = (
    ("training tokens", lambda point: float(point.tokens)),
    ("training FLOPs", lambda point: point.flops),
    ("seconds of training", _SECONDS),
)
STEEP_SHARE = 0.25  # of the budget: what lies above the losses after it may leave the axes


@dataclass(frozen=True, kw_only=True)
class _Look:
    """How one arm is drawn."""

    label: str
    colour: str
    style: Style
    width: float
    in_front: bool


def write_curves(path: Path, comparison: Comparison, curves: Sequence[ArmCurve]) -> None:
    """Four panels; the same curves give the same bytes as SVG.

    The baseline is black; the best arms, as many as the palette has colours, are coloured, all
    others grey. Bands: from the least to the greatest seed, and for differences the 95 % t
    interval, each evaluation by itself.
    Raises: ConfigError for an ending that is not known, DataError without a curve.
    """
    check_figure(path)
    if not curves:
        raise DataError("--figure: no run of this table logged a held-out loss")
    from matplotlib.figure import Figure
    from matplotlib.ticker import EngFormatter

    looks = _choose_looks(curves, comparison.baseline)
    figure = Figure(figsize=(9.0, 7.2), layout="constrained")
    grid = figure.subplots(2, 2)
    for axes, (name, place) in zip((grid[0, 0], grid[0, 1], grid[1, 0]), PANELS, strict=True):
        _draw_losses(axes, curves, looks, place)
        axes.set_xlabel(name)
        axes.set_ylabel("validation loss, nats/token")
        if place is not _SECONDS:
            axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    _draw_differences(grid[1, 1], curves, looks)
    grid[1, 1].xaxis.set_major_formatter(EngFormatter(sep=""))
    grid[1, 1].set_xlabel(PANELS[0][0])
    grid[1, 1].set_ylabel(f"minus {show_controls(comparison.baseline)}, nats/token", parse_math=False)
    figure.suptitle(show_controls(comparison.setting), fontsize=10, parse_math=False, wrap=True)
    _add_legend(figure, curves, looks)
    with allow_missing_glyphs():
        save_figure(figure, path)


def _choose_looks(curves: Sequence[ArmCurve], baseline: str) -> dict[str, _Look]:
    """Colours by rank at the end, as the table has it."""
    looks = {}
    rest = [curve.arm for curve in curves if curve.arm != baseline]
    for at, arm in enumerate(rest):
        known = at < len(PALETTE)
        looks[arm] = _Look(
            label=arm,
            colour=PALETTE[at] if known else OTHERS,
            style=STYLES[at] if known else "-",
            width=1.6 if known else 0.7,
            in_front=known,
        )
    looks[baseline] = _Look(
        label=f"{baseline} (baseline)", colour=BASELINE, style="-", width=1.6, in_front=True
    )
    return looks


def _draw_losses(
    axes: Axes,
    curves: Sequence[ArmCurve],
    looks: dict[str, _Look],
    place: Callable[[Evaluated], float | None],
) -> None:
    highest, lowest = [], []
    for curve in curves:
        points = [(x, point) for point in curve.points if (x := place(point)) is not None]
        if not points:
            continue
        look, xs = looks[curve.arm], [x for x, _ in points]
        _draw_line(axes, look, xs, [point.mean_loss_nats for _, point in points])
        lows, highs = [p.low_nats for _, p in points], [p.high_nats for _, p in points]
        if look.in_front and curve.n_seeds > 1:
            axes.fill_between(xs, lows, highs, color=look.colour, alpha=0.15, linewidth=0)
        late = [at for at, x in enumerate(xs) if x >= STEEP_SHARE * xs[-1]]
        highest.append(max(highs[at] for at in late))
        lowest.append(min(lows[at] for at in late))
    if not highest:
        axes.text(0.5, 0.5, "not recorded", ha="center", transform=axes.transAxes)
        return
    margin = 0.05 * (max(highest) - min(lowest)) or 0.01
    axes.set_ylim(min(lowest) - margin, max(highest) + margin)
    axes.set_xlim(left=0)


def _draw_differences(axes: Axes, curves: Sequence[ArmCurve], looks: dict[str, _Look]) -> None:
    """Arms minus the baseline; the axes fit the means, a wide band may leave them."""
    axes.axhline(0, color=BASELINE, linewidth=1.0)
    reach = [0.0]
    for curve in curves:
        points = [point for point in curve.points if point.difference_nats is not None]
        look, xs = looks[curve.arm], [point.tokens for point in points]
        if not points:
            continue
        means = [point.difference_nats for point in points if point.difference_nats is not None]
        _draw_line(axes, look, xs, means)
        late = [mean for x, mean in zip(xs, means, strict=True) if x >= STEEP_SHARE * xs[-1]]
        reach += [min(late), max(late)]
        known = [point for point in points if point.difference_ci95 is not None]
        if look.in_front and known:
            ends = [point.difference_ci95 for point in known if point.difference_ci95 is not None]
            lows, highs = zip(*ends, strict=True)
            axes.fill_between(
                [point.tokens for point in known], lows, highs, color=look.colour, alpha=0.15, linewidth=0
            )
    if len(reach) == 1:
        axes.text(0.5, 0.6, "no seed shared with the baseline", ha="center", transform=axes.transAxes)
        return
    margin = 0.25 * (max(reach) - min(reach)) or 0.01
    axes.set_ylim(min(reach) - margin, max(reach) + margin)
    axes.set_xlim(left=0)


def _draw_line(axes: Axes, look: _Look, xs: Sequence[float], ys: Sequence[float]) -> None:
    axes.plot(
        xs,
        ys,
        color=look.colour,
        linestyle=look.style,
        linewidth=look.width,
        marker="o" if len(xs) == 1 else "",
        zorder=3 if look.in_front else 1,
    )


def _add_legend(figure: Figure, curves: Sequence[ArmCurve], looks: dict[str, _Look]) -> None:
    """Below the panels: the coloured arms in the order of the table, and how many are grey."""
    from matplotlib.lines import Line2D

    shown = [looks[curve.arm] for curve in curves if looks[curve.arm].in_front]
    handles = [Line2D([], [], color=x.colour, linestyle=x.style, linewidth=x.width) for x in shown]
    labels = [show_label(look.label) for look in shown]
    n_grey = len(curves) - len(shown)
    if n_grey:
        handles.append(Line2D([], [], color=OTHERS, linewidth=0.7))
        labels.append(f"{n_grey} other arm{'s' if n_grey > 1 else ''}")
    legend = figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False, fontsize=9)
    legend.set_title("bands: all seeds; of differences, 95 % t interval at each evaluation")
    legend.get_title().set_fontsize(8)
    for text in legend.get_texts():
        text.set_parse_math(False)
