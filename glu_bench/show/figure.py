"""Curves of one variant, or of the family, as a file for a paper or a lesson, by matplotlib."""

from __future__ import annotations

import contextlib
import io
import textwrap
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from glu_bench.errors import ConfigError, show_controls
from glu_bench.files import make_folder, write_bytes
from glu_bench.schema import Variant

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from glu_bench.ffn.curve import Curve

N_COLUMNS = 6
FORMATS = ("svg", "png", "pdf")


def check_figure(path: Path) -> str:
    """The format that the file's ending asks for.

    Raises: ConfigError if it is none of FORMATS.
    """
    ending = path.suffix.removeprefix(".").lower()
    if ending not in FORMATS:
        raise ConfigError(f"--figure {path}: the file's ending is one of .svg, .png, .pdf")
    return ending


def write_figure(path: Path, variant: Variant, curve: Curve) -> None:
    """Function and derivative in one drawing; the same input gives the same bytes as SVG.

    Raises: ConfigError for an ending that is not known.
    """
    check_figure(path)
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.0, 3.4), layout="constrained")
    axes = figure.subplots()
    _draw(axes, curve)
    axes.set_title(f"{variant.name}: {variant.formula}", parse_math=False, wrap=True)
    axes.set_xlabel("gate" if curve.of == "gate" else "h")
    axes.legend(frameon=False)
    save_figure(figure, path)


def write_family_figure(path: Path, family: Sequence[tuple[Variant, Curve]]) -> None:
    """Small multiples: each function of the family once, with its derivative, its variants and formula.

    Raises: ConfigError for an ending that is not known.
    """
    check_figure(path)
    from matplotlib.figure import Figure

    panels = _group_by_curve(family)
    n_rows = -(-len(panels) // N_COLUMNS)
    figure = Figure(figsize=(2.2 * N_COLUMNS, 2.3 * n_rows + 0.4), layout="constrained")
    grid = list(figure.subplots(n_rows, N_COLUMNS, sharex=True, sharey=True, squeeze=False).flat)
    for axes, (variants, curve) in zip(grid, panels, strict=False):
        _draw(axes, curve)
        names = textwrap.fill(", ".join(variant.name for variant in variants), 34)
        axes.set_title(names, fontsize=8, parse_math=False)
        formula = textwrap.fill(variants[0].formula, 38)
        axes.set_xlabel(formula, fontsize=6, parse_math=False, family="monospace")
        axes.set_ylim(-1.5, 4.0)
        axes.set_xticks((-4, -2, 0, 2, 4))
        axes.tick_params(labelsize=7, labelbottom=True)
    for axes in grid[len(panels) :]:
        axes.remove()
    handles = grid[0].get_lines()[2:]
    figure.legend(handles=handles, loc="outside lower center", ncols=2, frameon=False, fontsize=9)
    save_figure(figure, path)


def _group_by_curve(family: Sequence[tuple[Variant, Curve]]) -> list[tuple[list[Variant], Curve]]:
    """Variants with one function between them, ungated ones first, as their formula is the function's."""
    panels: dict[tuple[float, ...], tuple[list[Variant], Curve]] = {}
    for variant, curve in family:
        panels.setdefault(tuple(round(y, 9) for y in curve.values), ([], curve))[0].append(variant)
    return [(sorted(variants, key=lambda v: v.gated), curve) for variants, curve in panels.values()]


def _draw(axes: Axes, curve: Curve) -> None:
    axes.axhline(0, color="0.8", linewidth=0.8)
    axes.axvline(0, color="0.8", linewidth=0.8)
    axes.plot(curve.x, curve.values, color="C0", label="function")
    axes.plot(curve.x, curve.slopes, color="C1", linestyle="--", label="derivative")


def show_label(name: str) -> str:
    """A name as a legend shows it: a label that begins with "_" would be left out."""
    shown = show_controls(name)
    return f" {shown}" if shown.startswith("_") else shown


@contextlib.contextmanager
def allow_missing_glyphs() -> Iterator[None]:
    """A block that may write names in scripts that the font lacks.

    They are boxes in a PNG, the text itself in an SVG.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        yield


def save_figure(figure: Figure, path: Path) -> None:
    """Write a drawing in the format of the file's ending; the same drawing gives the same SVG.

    Raises: ConfigError for an ending that is not known.
    """
    from matplotlib import rc_context

    ending = check_figure(path)
    content = io.BytesIO()
    with rc_context({"svg.hashsalt": "glu-bench", "svg.fonttype": "none"}):
        figure.savefig(content, format=ending, dpi=200, metadata={"Date": None} if ending == "svg" else None)
    make_folder(path.parent)
    write_bytes(path, content.getvalue())
