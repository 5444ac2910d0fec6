"""A comparison as a LaTeX table (booktabs), its letters as superscripts, its verdict in the caption."""

from __future__ import annotations

import re
from collections.abc import Sequence

from glu_bench.errors import show_controls
from glu_bench.show.columns import Column
from glu_bench.show.comparison import say_legend
from glu_bench.study.compare import Arm, Comparison

PREAMBLE = "% needs \\usepackage{booktabs} and \\usepackage[T1]{fontenc}\n"
SPECIAL = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "%": r"\%",
    "#": r"\#",
    "_": r"\_",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': '{"}',
    "`": "{`}",  # two of them, or one after ? and !, would be another sign
    "[": "{[}",  # after \\ it would begin an optional argument
    "]": "{]}",
    "*": "{*}",
}
# a sign before digits, which the text font would set as a hyphen
SIGN = re.compile(r"(?<![^\s(])([+-])(?=\d)")
LAST_LETTER = "\u017f"  # of Latin Extended-A; what lies beyond pdflatex sets with other fonts, or not at all
UNSET = frozenset("ĦħĸĿŀŉŦŧſ")  # and these of it


def write_latex(comparison: Comparison, columns: Sequence[Column]) -> str:
    """A table environment; letters stand on the loss, or on the arm where the loss is not shown."""
    shown = [column for column in columns if column.key != "letters"]
    bearer = ""
    if len(shown) < len(columns):
        keys = [column.key for column in shown]
        bearer = next((key for key in ("mean_loss_nats", "arm") if key in keys), "")
        shown = shown if bearer else list(columns)
    said = [*say_legend(comparison, columns), *comparison.warnings]
    sentences = (f" {line[0].upper()}{line[1:]}." for line in said)
    caption = f"{comparison.setting}. {comparison.verdict}{''.join(sentences)}"
    lines = [
        r"\begin{table}",
        r"  \centering",
        rf"  \caption{{{escape_latex(caption)}}}",
        rf"  \begin{{tabular}}{{{''.join('l' if column.is_text else 'r' for column in shown)}}}",
        r"    \toprule",
        f"    {' & '.join(_head(column, comparison) for column in shown)} \\\\",
        r"    \midrule",
        *(
            f"    {' & '.join(_cell(column, arm, comparison, bearer) for column in shown)} \\\\"
            for arm in comparison.arms
        ),
        r"    \bottomrule",
        r"  \end{tabular}",
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def escape_latex(text: str) -> str:
    """Text that any LaTeX sets as it is; characters beyond Latin Extended-A as their number, U+03B2."""
    shown = (
        c if c <= LAST_LETTER and c not in UNSET else f"U+{ord(c):04X}"  # told, not lost
        for c in show_controls(text)
    )
    escaped = "".join(SPECIAL.get(c, c) for part in shown for c in part)
    return SIGN.sub(r"$\1$", escaped).replace("--", "-{}-")


def _head(column: Column, comparison: Comparison) -> str:
    head = column.head(comparison)
    return escape_latex(f"{head} ({column.unit})" if column.unit and head else head)


def _cell(column: Column, arm: Arm, comparison: Comparison, bearer: str) -> str:
    written = column.write(arm, comparison)
    cell = "--" if written == "-" and not column.is_text else escape_latex(written)
    letters = escape_latex(arm.letters)
    return rf"{cell}\textsuperscript{{{letters}}}" if column.key == bearer and letters else cell
