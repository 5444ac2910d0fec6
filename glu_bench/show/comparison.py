"""A comparison in a terminal: the table, what its letters and p-values mean, the verdict last.

The verdict stands where the eye is when the command ends. No column is cut off: those that do not
fit are left out by default and named, and those asked for go into further tables below.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from rich.console import Console
from rich.measure import Measurement
from rich.table import Table

from glu_bench.errors import show_controls
from glu_bench.show.columns import Column, list_defaults, sort_columns
from glu_bench.show.console import plain
from glu_bench.show.tables import make_table
from glu_bench.study.compare import Comparison

PIPED_WIDTH = 100  # of a table's default columns, and of prose, where no terminal says how wide
UNLIMITED = 10_000


def print_comparison(stdout: Console, comparison: Comparison, columns: Sequence[Column] | None) -> list[str]:
    """Prints one table, its legend and its verdict; returns keys of columns that did not fit.

    Without `columns` the most telling that fit the width.
    """
    width = stdout.width if stdout.is_terminal else PIPED_WIDTH
    left_out: list[str] = []
    if columns is None:
        telling = list_defaults(comparison)
        columns = fit_columns(comparison, telling, width)
        left_out = [column.key for column in sort_columns(telling) if column not in columns]
        parts = [list(columns)]
    else:
        parts = split_columns(comparison, columns, width if stdout.is_terminal else UNLIMITED)
    for at, part in enumerate(parts):
        table = render_comparison(comparison, part)
        if at:
            table.title = None
        if not stdout.is_terminal:
            stdout.width = max(stdout.width, measure_width(table))
        stdout.print(table)
    for line in say_legend(comparison, columns):
        for wrapped in wrap_prose(line, width):
            stdout.print(plain(wrapped, style="dim"))
    for wrapped in wrap_prose(comparison.verdict, width):
        stdout.print(plain(wrapped, style="bold"))
    return left_out


def render_comparison(comparison: Comparison, columns: Sequence[Column]) -> Table:
    """One table of arms, best first."""
    table = make_table(comparison.setting, [])
    table.show_header = True
    for column in columns:
        table.add_column(
            plain(column.head(comparison)), justify="left" if column.is_text else "right", overflow="fold"
        )
    for arm in comparison.arms:
        table.add_row(*(plain(column.write(arm, comparison)) for column in columns))
    return table


def wrap_prose(text: str, width: int) -> list[str]:
    """Lines no longer than the width, broken between words."""
    return textwrap.wrap(show_controls(text), width, break_on_hyphens=False)


def measure_width(table: Table) -> int:
    """Characters that the table takes where nothing limits it."""
    console = Console(width=UNLIMITED)
    return Measurement.get(console, console.options, table).maximum


def fit_columns(comparison: Comparison, telling: Sequence[Column], width: int) -> list[Column]:
    """The columns, most telling first, as far as they fit the width; the first whatever its width."""
    chosen = list(telling[:1])
    for column in telling[1:]:
        if measure_width(render_comparison(comparison, [*chosen, column])) <= width:
            chosen.append(column)
    return sort_columns(chosen)


def split_columns(comparison: Comparison, columns: Sequence[Column], width: int) -> list[list[Column]]:
    """The columns in as many tables as their widths need, the arm's name first in each."""
    named = [column for column in columns if column.key == "arm"]
    parts: list[list[Column]] = [[]]
    for column in columns:
        part = parts[-1]
        wider = measure_width(render_comparison(comparison, [*part, column]))
        if wider > width and len(part) > len(named):
            part = [*named]
            parts.append(part)
        if column not in part:
            part.append(column)
    return parts


def say_legend(comparison: Comparison, columns: Sequence[Column]) -> list[str]:
    """What was tuned, what the letters and p-values mean, by which test, and what pairing bought."""
    keys = {column.key for column in columns}
    tuning = [f"tuned for each arm: {comparison.tuning}"] if comparison.tuning else []
    if any(key.startswith("speedup.") for key in keys):
        tuning += _say_speedups(comparison)
    n_pairs = sum(pair.p_raw is not None for pair in comparison.pairs)
    if not n_pairs:
        return tuning
    meanings = []
    if "letters" in keys:
        family = f" (Holm over {n_pairs} pairs)" if n_pairs > 1 else ""
        meanings.append(f"arms that share a letter are not separable{family}")
    n_arms = sum(arm.p_raw is not None for arm in comparison.arms)
    if "p_holm" in keys and n_arms:
        family = f"Holm over {n_arms} arms " if n_arms > 1 else ""
        meanings.append(f"p: {family}against {comparison.baseline}")
    return [*tuning, *(["; ".join(meanings)] if meanings else []), say_test(comparison)]


def _say_speedups(comparison: Comparison) -> list[str]:
    """What limits the speedups, with the arms it is said of unless it is all that have one."""
    notes = {arm.arm: arm.speedup.note for arm in comparison.arms if arm.speedup is not None}
    arms: dict[str, list[str]] = {}
    for arm, note in notes.items():
        if note:
            arms.setdefault(note, []).append(arm)
    return [
        f"speedup{'' if len(names) == len(notes) else ' of ' + ', '.join(names)}: {note}"
        for note, names in arms.items()
    ]


def say_test(comparison: Comparison) -> str:
    """The primary test, and what pairing bought: unpaired, 1 / (1 - r) times the seeds would see as much."""
    test = comparison.test.replace(" degrees of freedom", " df")
    correlation = comparison.seed_correlation
    if correlation is None:
        return f"test: {test}"
    factor = f"a factor of {1 / (1 - correlation):.3g} in seeds" if correlation > 0 else "nothing"
    return f"{test}; seeds correlate {correlation:.2f}: pairing bought {factor}"
