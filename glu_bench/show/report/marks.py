"""How an arm is drawn: the same colour, dash and symbol wherever it stands on the page."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from glu_bench.study.compare import Comparison

N_COLORS = 8  # --c0 to --c7 of style.css, told apart by colour-blind readers; --cb is the baseline's
DASHES = ("solid", "dash", "dot", "dashdot")  # once colours are used up
SVG_DASHES = {"solid": "", "dash": "6 3", "dot": "2 2", "dashdot": "6 2 2 2"}
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "triangle-down", "cross", "x", "star")


@dataclass(frozen=True)
class Mark:
    """The look of an arm."""

    color: str  # name of a CSS variable
    dash: str
    symbol: str

    @property
    def dasharray(self) -> str:
        """The dash as SVG has it."""
        return SVG_DASHES[self.dash]


def assign_marks(tables: Iterable[Comparison]) -> dict[str, Mark]:
    """A mark for each arm of a page, by name; arms differ while there are colours and dashes."""
    tables = list(tables)
    baselines = {table.baseline for table in tables}
    names = list(dict.fromkeys(arm.arm for table in tables for arm in table.arms))
    marks: dict[str, Mark] = {}
    for at, name in enumerate(name for name in names if name not in baselines):
        dash = DASHES[at // N_COLORS % len(DASHES)]
        marks[name] = Mark(f"--c{at % N_COLORS}", dash, SYMBOLS[at % len(SYMBOLS)])
    for at, name in enumerate(name for name in names if name in baselines):
        marks[name] = Mark("--cb", DASHES[at % len(DASHES)], SYMBOLS[at % len(SYMBOLS)])
    return marks
