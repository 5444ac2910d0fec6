"""A comparison as Markdown that GitHub renders: heading, table, verdict."""

from __future__ import annotations

import re
from collections.abc import Sequence

from glu_bench.errors import show_controls
from glu_bench.show.columns import Column
from glu_bench.show.comparison import say_legend
from glu_bench.study.compare import Comparison

SPECIAL = re.compile(r"([\\`*_\[\]<>#|~&$])")
# what at its start would make a paragraph a list, a rule or a heading
START = re.compile(r"^([-+=]|\d+(?=[.)]))")


def write_markdown(comparison: Comparison, columns: Sequence[Column]) -> str:
    """Heading, table with units, verdict, what its letters and tests are, and notes, each a block."""
    heads = [_head(column, comparison) for column in columns]
    rules = [":---" if column.is_text else "---:" for column in columns]
    rows = [[escape_markdown(column.write(arm, comparison)) for column in columns] for arm in comparison.arms]
    table = "\n".join(f"| {' | '.join(cells)} |" for cells in (heads, rules, *rows))
    parts = [f"### {escape_markdown(comparison.setting)}", table, write_paragraph(comparison.verdict)]
    parts += [write_paragraph(f"{line}.") for line in say_legend(comparison, columns)]
    if comparison.warnings:
        parts.append("\n".join(f"- {escape_markdown(warning)}" for warning in comparison.warnings))
    return "\n\n".join(parts) + "\n"


def escape_markdown(text: str) -> str:
    """Text that renders as it is, on one line: no markup, no HTML, no end of a cell."""
    return SPECIAL.sub(r"\\\1", show_controls(text))


def write_paragraph(text: str) -> str:
    """Text that renders as one paragraph."""
    escaped = escape_markdown(text.strip())
    found = START.match(escaped)
    at = found.end() if found and escaped[0].isdigit() else 0
    return f"{escaped[:at]}\\{escaped[at:]}" if found else escaped


def _head(column: Column, comparison: Comparison) -> str:
    head = escape_markdown(column.head(comparison))
    return f"{head} ({escape_markdown(column.unit)})" if column.unit and head else head
