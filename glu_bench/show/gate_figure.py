"""What the gates do, block by block: depth profiles and histograms, by matplotlib."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from glu_bench.evaluate.inspection import Inspection, flatten_layer
from glu_bench.evaluate.units import GATE_CELLS, GATE_REACH, OCTAVE_REACH
from glu_bench.show.curve_figure import PALETTE, STYLES
from glu_bench.show.figure import allow_missing_glyphs, check_figure, save_figure, show_label

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PROFILES = (  # title, key, whether the axis is logarithmic
    ("dead units, share", "dead_share", False),
    ("exact zeros, share", "zero_share", False),
    ("saturated gates, share", "saturation", False),
    ("effective rank over width", "effective_rank_share", False),
    ("varying part of hidden, share", "hidden_varying_share", False),
    ("kurtosis of hidden", "hidden_kurtosis", True),
    ("greatest |hidden|", "hidden_max", True),
    ("gradient norm, gate", "gate_gradient_norm", True),
    ("gradient norm, up", "up_gradient_norm", True),
    ("gradient norm, down", "down_gradient_norm", True),
)
N_COLUMNS = 4


def write_profiles(path: Path, inspections: Sequence[Inspection]) -> None:
    """A panel a quantity over depth, a line each run or checkpoint, then two histograms over all blocks.

    The same inspections give the same bytes as SVG. A quantity that is not known at a block is a gap.
    Raises: ConfigError for an ending that is not known.
    """
    check_figure(path)
    from matplotlib.figure import Figure

    n_rows = -(-(len(PROFILES) + 2) // N_COLUMNS)
    figure = Figure(figsize=(2.9 * N_COLUMNS, 2.5 * n_rows + 0.5), layout="constrained")
    grid = list(figure.subplots(n_rows, N_COLUMNS, squeeze=False).flat)
    rows = [[flatten_layer(layer) for layer in each.layers] for each in inspections]
    for axes, (title, key, logarithmic) in zip(grid, PROFILES, strict=False):
        _draw_profile(axes, rows, key, logarithmic)
        axes.set_title(title, fontsize=9)
    gates, octaves = grid[len(PROFILES) : len(PROFILES) + 2]
    for at, layers in enumerate(rows):
        look = {"color": _colour(at), "linestyle": STYLES[at % len(STYLES)], "linewidth": 1.2}
        edges = [-GATE_REACH + 2 * GATE_REACH / GATE_CELLS * cell for cell in range(GATE_CELLS + 1)]
        gates.stairs(_shares(layers, "gate_histogram"), edges, **look)
        powers = [float(cell - OCTAVE_REACH) for cell in range(2 * OCTAVE_REACH + 1)]
        octaves.stairs(_shares(layers, "hidden_octaves"), powers, **look)
    gates.set_title("input of the gate, share a cell", fontsize=9)
    octaves.set_title("log2 |hidden|, share an octave", fontsize=9)
    octaves.axvline(8.8, color="0.6", linewidth=0.8)  # log2 448, the greatest number of fp8 e4m3
    octaves.set_xlim(-30, 12)
    for axes in grid:
        axes.tick_params(which="both", labelsize=7)
    _add_legend(figure, inspections)
    with allow_missing_glyphs():
        save_figure(figure, path)


def _draw_profile(axes: Axes, rows: Sequence[Sequence[dict[str, Any]]], key: str, logarithmic: bool) -> None:
    from matplotlib.ticker import MaxNLocator

    drawn = False
    for at, layers in enumerate(rows):
        values = [float("nan") if row[key] is None else row[key] for row in layers]
        drawn |= any(value == value and (value > 0 or not logarithmic) for value in values)
        axes.plot(
            [row["layer"] for row in layers],
            values,
            color=_colour(at),
            linestyle=STYLES[at % len(STYLES)],
            linewidth=1.4,
            marker="o",
            markersize=3,
        )
    if logarithmic and drawn:
        axes.set_yscale("log")
    if not drawn:
        axes.text(0.5, 0.5, "none here", ha="center", transform=axes.transAxes, fontsize=8)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("block", fontsize=8)


def _colour(at: int) -> str:
    return PALETTE[at % len(PALETTE)]


def _shares(layers: Sequence[dict[str, Any]], key: str) -> list[float]:
    """The counts of all blocks, over their sum."""
    counts = [sum(column) for column in zip(*(row[key] for row in layers), strict=True)]
    total = sum(counts) or 1
    return [count / total for count in counts]


def _add_legend(figure: Figure, inspections: Sequence[Inspection]) -> None:
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], color=_colour(at), linestyle=STYLES[at % len(STYLES)], linewidth=1.4)
        for at in range(len(inspections))
    ]
    several = len({each.step for each in inspections}) > 1
    labels = [show_label(each.run_id) + (f", step {each.step:,}" if several else "") for each in inspections]
    legend = figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False, fontsize=8)
    for text in legend.get_texts():
        text.set_parse_math(False)
