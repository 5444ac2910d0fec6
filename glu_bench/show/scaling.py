"""Laws of loss against budget or size: tables, a line of words a speedup, and a figure."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table

from glu_bench.errors import show_controls
from glu_bench.show.console import plain
from glu_bench.show.figure import check_figure, save_figure
from glu_bench.show.numbers import fixed, si
from glu_bench.show.tables import make_table
from glu_bench.stats.fit import TRUSTED
from glu_bench.stats.speedup import Speedup
from glu_bench.study.scaling import AXES, ArmLaw, Scaling

if TYPE_CHECKING:
    from matplotlib.axes import Axes

N_SAMPLES = 120
MARKERS = "osD^vPX*<>"


def render_points(scaling: Scaling) -> Table:
    """What was measured, and how far off the law it lies."""
    unit = AXES[scaling.over].unit
    table = make_table(
        scaling.setting, ("arm", unit, "n", f"{scaling.split} loss", "sd", "law", "off the law")
    )
    for curve in scaling.curves:
        for point in curve.points:
            n = str(point.n_finished)
            if point.n_finished < point.n_planned:
                n += f"/{point.n_planned}"
            expected = float(curve.law.loss_at(point.c)) if curve.law and point.fitted else None
            table.add_row(
                plain(curve.arm),
                si(point.c),
                n + (f" ({point.n_diverged} diverged)" if point.n_diverged else ""),
                fixed(point.mean_loss_nats),
                fixed(point.sd_loss_nats),
                fixed(expected),
                fixed(None if expected is None else point.mean_loss_nats - expected, sign=True),
            )
    return table


def render_laws(scaling: Scaling) -> Table:
    """L = L_inf + A C^-alpha for each arm, and what it says of the budgets asked about."""
    asked = list(dict.fromkeys(each.c for curve in scaling.curves for each in curve.predictions))
    table = make_table(
        "",
        (
            *("arm", "budgets" if scaling.over != "params" else "sizes", "L_inf [95 %]", "A [95 %]"),
            *("alpha [95 %]", "sd of a run", *(f"at {si(c)} [95 %]" for c in asked)),
        ),
    )
    for curve in scaling.curves:
        law = curve.law
        if law is None:
            table.add_row(plain(curve.arm), str(len(curve.points)), *("-" for _ in range(4 + len(asked))))
            continue
        foretold = {each.c: each for each in curve.predictions}
        table.add_row(
            plain(curve.arm),
            str(len(law.points)),
            _with_limits(law.l_inf_nats, law.l_inf_ci95, ".4f"),
            _with_limits(law.a_nats, law.a_ci95, ".3g"),
            _with_limits(law.alpha, law.alpha_ci95, ".3f"),
            fixed(law.residual_sd_nats),
            *(_with_limits(foretold[c].loss_nats, foretold[c].ci95, ".4f") for c in asked),
        )
    return table


def describe_speedup(speedup: Speedup) -> str:
    """A speedup in words: `1.37x in compute (1.21 to 1.55), 1.20x in wall clock (…)`, and why not more."""
    parts = []
    for name, value, limits, bounds in (
        ("compute", speedup.compute, speedup.compute_ci95, speedup.compute_bounds),
        ("wall clock", speedup.wall, speedup.wall_ci95, speedup.wall_bounds),
    ):
        if value is not None:
            interval = "" if limits is None else f" ({_span(limits)})"
            parts.append(f"{value:.3g}x in {name}{interval}")
        elif bounds is not None:
            parts.append(f"{_span(bounds)} x in {name}")
    said = ", ".join(parts) or "not known"
    return f"{said}; {speedup.note}" if speedup.note else said


def _span(limits: tuple[float | None, float | None]) -> str:
    low, high = limits
    if low is None:
        return "any" if high is None else f"at most {high:.3g}"
    return f"at least {low:.3g}" if high is None else f"{low:.3g} to {high:.3g}"


def _with_limits(value: float, limits: tuple[float | None, float | None], form: str) -> str:
    low, high = ("…" if end is None else format(end, form) for end in limits)
    return f"{value:{form}} [{low}, {high}]"


def write_scaling_figure(path: Path, scalings: Sequence[Scaling]) -> None:
    """A panel a setting: means with their sd, each law with its 95 % band, dashed outside the data.

    Raises: ConfigError for an ending that is not known.
    """
    check_figure(path)
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.0, 4.4 * len(scalings)), layout="constrained")
    panels = figure.subplots(len(scalings), 1, squeeze=False)[:, 0]
    for axes, scaling in zip(panels, scalings, strict=True):
        for at, curve in enumerate(scaling.curves):
            _draw(axes, curve, f"C{at % 10}", MARKERS[at % len(MARKERS)])
        axes.set_xscale("log")
        axes.set_title(show_controls(scaling.setting), parse_math=False, fontsize=9)
        axes.set_xlabel(
            {"tokens": "training tokens", "params": "parameters"}.get(scaling.over, "training FLOPs")
        )
        axes.set_ylabel(f"{scaling.split} loss, nats/token")
        for text in axes.legend(frameon=False, fontsize=8).get_texts():
            text.set_parse_math(False)
    save_figure(figure, path)


def _draw(axes: Axes, curve: ArmLaw, color: str, marker: str) -> None:
    import numpy as np

    for fitted in (True, False):
        points = [point for point in curve.points if point.fitted is fitted]
        if points:
            axes.errorbar(
                [point.c for point in points],
                [point.mean_loss_nats for point in points],
                yerr=[point.sd_loss_nats or 0.0 for point in points],
                fmt=marker,
                color=color,
                markersize=5,
                capsize=2,
                markerfacecolor=color if fitted else "none",
                label=show_controls(curve.arm) if fitted else None,
            )
    if curve.law is None:
        return
    first, last = curve.law.points[0].c, curve.law.points[-1].c
    ends = [first, last * TRUSTED, *(each.c for each in curve.predictions)]
    c = np.unique(np.append(np.geomspace(min(ends), max(ends), N_SAMPLES), (first, last)))
    low, high = curve.law.band_at(c)
    axes.fill_between(c, low, high, color=color, alpha=0.15, linewidth=0)
    loss = curve.law.loss_at(c)
    for part, style in ((c <= first, "--"), ((c >= first) & (c <= last), "-"), (c >= last, "--")):
        axes.plot(c[part], loss[part], color=color, linestyle=style, linewidth=1.3)
