"""Claims beside what was measured: a table to read, and one for a page."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from glu_bench.show.markdown_table import escape_markdown, write_paragraph
from glu_bench.show.numbers import p_text
from glu_bench.show.tables import render_rows
from glu_bench.study.claims import NOT_MEASURED, Judged, Judgement

COLUMNS = ("match", "value", "95 % interval", "n", "p (Holm)", "verdict")
N_NAMED = 3  # measurements that a note names


def render_claims(judgement: Judgement) -> Table:
    """A line a claim, and below it a row for each measurement and matching."""
    rows: list[tuple[str, ...]] = []
    before = None
    for row in judgement.claims:
        if row.claim != before:
            rows.append((row.claim, *("" for _ in COLUMNS)))
        rows.append((f"  {row.measurement}", *_cells(row)))
        before = row.claim
    table = render_rows("", ("claim, and how it is measured", *COLUMNS), rows)
    table.columns[0].no_wrap = False  # words give way to numbers
    return table


def write_claims(judgement: Judgement) -> str:
    """The same as Markdown, with the source of each claim; below it the rule, settings and notes."""
    heads = ("claim", "where it is made", "measurement", *COLUMNS)
    lines = [f"| {' | '.join(heads)} |", "|---|---|---|---|---:|---:|---:|---:|---|"]
    before: tuple[str, ...] = ("", "", "")
    for row in judgement.claims:
        said = (row.claim, row.source, row.measurement)
        below = ("", "", "" if said == before else row.measurement)  # what the row above said holds on
        words = below if said[:2] == before[:2] else said
        lines.append(f"| {' | '.join(escape_markdown(cell) for cell in (*words, *_cells(row)))} |")
        before = said
    paragraphs = [judgement.rule, *(f"Setting: {setting}." for setting in list_settings(judgement.claims))]
    notes = [*judgement.warnings, *list_notes(judgement.claims)]
    parts = ["\n".join(lines), *map(write_paragraph, paragraphs)]
    parts += ["\n".join(f"- {escape_markdown(note)}" for note in notes)] if notes else []
    return "\n\n".join(parts) + "\n"


def list_settings(rows: Sequence[Judged]) -> list[str]:
    """The settings whose runs have a say, in the order in which they come up."""
    return list(dict.fromkeys(row.setting for row in rows if row.setting and row.verdict != NOT_MEASURED))


def list_notes(rows: Sequence[Judged]) -> list[str]:
    """What a row's numbers do not say, a line each, and what would measure what is not measured."""
    lines: dict[str, list[str]] = {}
    for row in rows:
        if row.note:
            line = f"{_say_verdict(NOT_MEASURED)}, {row.note}" if row.verdict == NOT_MEASURED else row.note
            lines.setdefault(line, []).append(row.measurement)
    return [
        line if line.startswith(_say_verdict(NOT_MEASURED)) else f"{line} ({_list_some(names)})"
        for line, names in lines.items()
    ]


def _list_some(names: Sequence[str]) -> str:
    """The first few measurements, and how many more."""
    each = list(dict.fromkeys(names))
    more = len(each) - N_NAMED
    return "; ".join(each) if more <= 1 else f"{'; '.join(each[:N_NAMED])}; and {more} more"


def _cells(row: Judged) -> tuple[str, ...]:
    interval = "" if row.ci95 is None else f"{_say(row.ci95[0], row)} to {_say(row.ci95[1], row)}"
    return (
        row.match or "",
        "-" if row.value is None else _say(row.value, row),
        interval,
        "" if row.n_seeds is None else str(row.n_seeds),
        "" if row.p_holm is None else p_text(row.p_holm),
        _say_verdict(row.verdict),
    )


def _say_verdict(verdict: str) -> str:
    return verdict.replace("_", " ")


def _say(number: float, row: Judged) -> str:
    """Shares in percent, differences with their sign."""
    level = row.predicted == "exact" or row.unit == "ratio" or row.level > 0
    if row.unit == "share":
        return f"{number:.2%}" if level else f"{number:+.2%}"
    if row.unit == "nats":
        return f"{number:+.4f}"
    return f"{number:.3g}" if level else f"{number:+.3g}"
