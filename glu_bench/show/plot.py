"""Lines drawn with characters: braille dots where the terminal has Unicode, ASCII elsewhere."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from itertools import pairwise

# dots of a braille cell, (column, row) to bit; Unicode 15, block 2800
DOTS = {(0, 0): 1, (0, 1): 2, (0, 2): 4, (1, 0): 8, (1, 1): 16, (1, 2): 32, (0, 3): 64, (1, 3): 128}
LABEL_WIDTH = 7


def can_draw_unicode(encoding: str | None = None) -> bool:
    """Whether the stream's encoding (stdout's by default) has braille."""
    try:
        "⠿─│".encode(encoding or sys.stdout.encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True


class Canvas:
    """A grid of dots, 2 x 4 to a character in braille and 1 x 1 in ASCII."""

    def __init__(self, width: int, height: int, unicode: bool) -> None:
        self.unicode = unicode
        self.width = max(1, width)
        self.height = max(1, height)
        self.n_columns = self.width * (2 if unicode else 1)
        self.n_rows = self.height * (4 if unicode else 1)
        self.curve: set[tuple[int, int]] = set()
        self.axis: set[tuple[int, int]] = set()

    def lines(self) -> list[str]:
        """The rows of characters, top first."""
        return [
            "".join(self._character(column, row) for column in range(self.width))
            for row in range(self.height)
        ]

    def _character(self, column: int, row: int) -> str:
        if not self.unicode:
            return "*" if (column, row) in self.curve else "." if (column, row) in self.axis else " "
        bits = 0
        for (dx, dy), bit in DOTS.items():
            dot = (2 * column + dx, 4 * row + dy)
            if dot in self.curve or dot in self.axis:
                bits |= bit
        return chr(0x2800 + bits) if bits else " "


def draw_curve(
    x: Sequence[float],
    y: Sequence[float],
    *,
    width: int,
    height: int,
    unicode: bool,
    axes: bool = True,
    x_limits: tuple[float, float] | None = None,
) -> list[str]:
    """Lines of text with the curve, its greatest and least value at the left.

    `width` counts the labels; `x_limits` leaves room beside the points. Values that are not finite
    are left out; nothing to draw is no line.
    """
    points = [(a, b) for a, b in zip(x, y, strict=True) if math.isfinite(a) and math.isfinite(b)]
    if not points or width < 1:
        return []
    n_label = LABEL_WIDTH if width >= 3 * LABEL_WIDTH else 0
    canvas = Canvas(width - n_label, height, unicode)
    x_low, x_high = x_limits or _limits([a for a, _ in points])
    y_low, y_high = _limits([b for _, b in points])

    def place(a: float, b: float) -> tuple[int, int]:
        column = round((a - x_low) / (x_high - x_low) * (canvas.n_columns - 1))
        return column, round((y_high - b) / (y_high - y_low) * (canvas.n_rows - 1))

    if axes:
        step = 3 if unicode else 2  # dotted, so that the curve stands out
        if y_low <= 0 <= y_high:
            canvas.axis |= {(column, place(x_low, 0)[1]) for column in range(0, canvas.n_columns, step)}
        if x_low <= 0 <= x_high:
            canvas.axis |= {(place(0, y_low)[0], row) for row in range(0, canvas.n_rows, step)}
    dots = [place(a, b) for a, b in points]
    canvas.curve.update(dots)
    for (c0, r0), (c1, r1) in pairwise(dots):
        n = max(abs(c1 - c0), abs(r1 - r0))
        canvas.curve |= {(c0 + round((c1 - c0) * i / n), r0 + round((r1 - r0) * i / n)) for i in range(1, n)}
    lines = canvas.lines()
    if not n_label:
        return lines
    labels = {0: y_high, len(lines) - 1: y_low} if len(lines) > 1 else {0: y_high}
    return [
        (f"{_shorten(labels[row])} " if row in labels else "").rjust(n_label) + line
        for row, line in enumerate(lines)
    ]


def _limits(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def _shorten(value: float) -> str:
    text = f"{value:.3f}"
    return text if len(text) < LABEL_WIDTH else f"{value:.2g}"[: LABEL_WIDTH - 1]
