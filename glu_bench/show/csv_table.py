"""Comparisons as CSV (RFC 4180): numbers unrounded, and no cell that a spreadsheet would run."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence

from glu_bench.errors import show_controls
from glu_bench.show.columns import Column, Value
from glu_bench.study.compare import Comparison

# what makes a spreadsheet read a cell as a formula; the last four are the full-width forms of the first
FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")


def write_csv(tables: Sequence[Comparison], columns: Sequence[Column]) -> str:
    """All tables in one, the setting in the first column; an interval takes two columns."""
    content = io.StringIO()
    writer = csv.writer(content)  # its dialect ends lines with CR LF and doubles quotes
    writer.writerow(["setting", *(part for column in columns for part in column.parts)])
    for table in tables:
        for arm in table.arms:
            values = (value for column in columns for value in column.read(arm))
            writer.writerow([guard_cell(table.setting), *map(_write_value, values)])
    return content.getvalue()


def guard_cell(text: str) -> str:
    """Text that no spreadsheet takes for a formula: an apostrophe before one, a number as it is."""
    if text.startswith(FORMULA) or text.lstrip().startswith(FORMULA):
        return text_if_number(text) or f"'{show_controls(text)}"
    return show_controls(text)


def text_if_number(text: str) -> str | None:
    """The text if all of it is a finite number in ASCII digits."""
    try:
        return text if text.isascii() and text == text.strip() and math.isfinite(float(text)) else None
    except ValueError:
        return None


def _write_value(value: Value) -> str:
    """A number by its shortest form that reads back the same; nothing for None."""
    if value is None:
        return ""
    return guard_cell(value) if isinstance(value, str) else repr(value)
