"""A profile of training steps: parts of a step, parts of the model, the top operators."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import RenderableType

from glu_bench.show.console import plain
from glu_bench.show.tables import render_rows
from glu_bench.train.profile import Profile

NAME_WIDTH = 60


def render_profile(found: Profile) -> Iterator[RenderableType]:
    """What `train --profile` prints below the run's record."""
    if found.step_s is not None:
        how = "compiled" if found.compiled else "eager"
        title = f"a step: {1e3 * found.step_s:.3g} ms, steps {found.first_step} to {found.last_step}, {how}"
        yield render_rows(title, ("part", "time"), _lines(found.shares))
    if found.eager_s is not None:
        title = (
            f"the model: {1e3 * found.eager_s:.3g} ms forward and backward, measured apart in eager passes"
        )
        yield render_rows(title, ("part", "time"), _lines(found.eager_shares))
    if found.operators:
        lines = [
            (_shorten(each.name), f"{each.calls:,}", f"{1e3 * each.self_s:.3g}", f"{each.share:.1%}")
            for each in found.operators
        ]
        yield render_rows("operators of these steps, by own time", ("", "calls", "ms", "of step"), lines)
    if found.note:
        yield plain(found.note)
    if found.trace:
        yield plain(f"trace: {found.trace} (ui.perfetto.dev and chrome://tracing show it)")


def _lines(shares: dict[str, float]) -> list[tuple[str, str]]:
    return [(part.replace("_", "-"), f"{share:.1%}") for part, share in shares.items()]


def _shorten(name: str) -> str:
    return name if len(name) <= NAME_WIDTH else name[: NAME_WIDTH - 1] + "…"
