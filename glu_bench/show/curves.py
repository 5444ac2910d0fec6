"""A variant's function and its derivative in the terminal."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import zip_longest

from rich.text import Text

from glu_bench.ffn.curve import Curve
from glu_bench.show.plot import can_draw_unicode, draw_curve

HEIGHT = 9
GAP = 3
WIDEST = 48


def render_curve(curve: Curve, width: int) -> Iterator[Text]:
    """Both drawings side by side, or one below the other where the terminal is narrow."""
    unicode = can_draw_unicode()
    beside = width >= 60
    each = min(WIDEST, (width - GAP) // 2 if beside else width - 1)
    span = f"{curve.x[0]:g} to {curve.x[-1]:g}"
    panels = [
        [title[:each], *draw_curve(curve.x, y, width=each, height=HEIGHT, unicode=unicode)]
        for title, y in (
            (f"{curve.of} function, {span}", curve.values),
            ("its derivative", curve.slopes),
        )
    ]
    if beside:
        for left, right in zip_longest(*panels, fillvalue=""):
            yield Text(f"{left:<{each}}{'':{GAP}}{right}".rstrip(), no_wrap=True)
    else:
        for line in (*panels[0], *panels[1]):
            yield Text(line, no_wrap=True)
