"""Where arms win, as tables."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from glu_bench.show.console import plain
from glu_bench.show.numbers import fixed
from glu_bench.show.tables import make_table
from glu_bench.study.slices import ArmSlices

TITLES = {
    "frequency": "difference in nats/token, by how frequent the token is",
    "position": "difference in nats/token, by place in the window",
}


def render_slices(found: Sequence[ArmSlices], baseline: str) -> list[Table]:
    """A table a view: a row an arm, a column a part, the half-width of the 95 % interval beside it."""
    tables: list[Table] = []
    if not found:
        return tables
    for view, title in TITLES.items():
        labels = [f"{part.label} ({part.share:.0%})" for part in found[0].slices if part.view == view]
        table = make_table(f"{title}, against {baseline}", ("arm", "windows won", *labels))
        for arm in found:
            parts = [part for part in arm.slices if part.view == view]
            cells = [
                fixed(part.difference_nats, sign=True)
                + ("" if part.ci95 is None else f" ±{(part.ci95[1] - part.ci95[0]) / 2:.4f}")
                for part in parts
            ]
            table.add_row(plain(arm.arm), f"{arm.won_share:.0%}", *cells)
        tables.append(table)
    return tables
