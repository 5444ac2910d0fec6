"""A published table beside ours, and lists of cards."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from glu_bench.show.comparison import PIPED_WIDTH, measure_width, wrap_prose
from glu_bench.show.console import plain
from glu_bench.show.numbers import binary_size, duration, fixed, si
from glu_bench.show.tables import render_rows
from glu_bench.stats.concordance import Concordance
from glu_bench.stats.gap import Gap
from glu_bench.study.card import Card
from glu_bench.study.reproduce import Reproduction, Row

if TYPE_CHECKING:
    from glu_bench.cost.estimate import Stage


def render_reproduction(found: Reproduction, width: int) -> Table:
    """Both tables side by side in the published order; without deviations where they find no room."""
    ours = {row.arm: row for row in found.ours.arms}
    keys = list(dict.fromkeys(key for row in found.ours.arms for key in row.tuned))
    head = ["arm", "published", "sd", "", f"vs {found.published.baseline}"]
    head += ["ours", "sd", "", f"vs {found.ours.baseline}", "n"]
    head += [key.rpartition(".")[2] for key in keys]
    rows = [
        (
            *(row.arm, fixed(row.mean_loss_nats, 3), fixed(row.sd_loss_nats, 3), row.letters),
            _render_difference(row, found.published.baseline, 3),
            *_render_ours(ours.get(row.arm), keys, found.ours.baseline),
        )
        for row in found.published.arms
    ]
    title = f"{found.title} ({found.source}), column {found.column}"
    table = render_rows(title, head, rows)
    if measure_width(table) <= width:
        return table
    kept = [at for at, name in enumerate(head) if name != "sd"]
    return render_rows(title, [head[at] for at in kept], [[row[at] for at in kept] for row in rows])


def _render_difference(row: Row, baseline: str, digits: int) -> str:
    return "baseline" if row.arm == baseline else fixed(row.difference_nats, digits, sign=True)


def _render_ours(row: Row | None, keys: Sequence[str], baseline: str) -> list[str]:
    if row is None:
        return ["-", "-", "", "-", "0", *("-" for _ in keys)]
    n = str(row.n_finished) if row.n_finished == row.n_planned else f"{row.n_finished}/{row.n_planned}"
    return [
        *(fixed(row.mean_loss_nats), fixed(row.sd_loss_nats), row.letters),
        *(_render_difference(row, baseline, 4), n),
        *(row.tuned.get(key, "-") for key in keys),
    ]


def print_reproduction(stdout: Console, found: Reproduction) -> None:
    """The table, what stands behind it, the verdict last."""
    width = stdout.width if stdout.is_terminal else PIPED_WIDTH
    stdout.print(render_reproduction(found, width))
    *said, verdict = say_reproduction(found)
    for line in said:
        for wrapped in wrap_prose(line, width):
            stdout.print(plain(wrapped, style="dim"))
    for wrapped in wrap_prose(verdict, width):
        stdout.print(plain(wrapped, style="bold"))


def say_reproduction(found: Reproduction) -> list[str]:
    """The lines under the table: settings, gaps, concordance, the rules of the verdict, and it."""
    concordance = found.concordance
    lines = [
        f"published: {found.published.setting}; {found.published.test}",
        f"ours: {found.ours.setting}; {found.ours.test}",
        f"gated less ungated: published {_say_gap(found.published.gap)}, ours {_say_gap(found.ours.gap)}",
        _say_concordance(found.concordance),
    ]
    if concordance.opposite:
        pairs = ", ".join(f"{a} below {b}" for a, b in concordance.opposite)
        lines.append(f"published but not so here: {pairs}")
    return [*lines, f"rules: {found.rules}", f"verdict: {found.verdict}; {found.sentence}"]


def _say_concordance(found: Concordance) -> str:
    how = "all orders counted" if found.is_exact else "random orders drawn"
    return (
        f"concordance: {found.agree} of {found.of} pairs that the published side tells apart; a random order "
        f"gives {found.chance_level:g} on average, so many or more with probability {found.p_at_least:.2g} "
        f"({how})"
    )


def _say_gap(gap: Gap | None) -> str:
    if gap is None:
        return "- (no arms on one side)"
    interval = (
        "no interval"
        if gap.ci95 is None
        else f"95 % interval {fixed(gap.ci95[0], sign=True)} to {fixed(gap.ci95[1], sign=True)}"
    )
    seeds = f", {gap.n_seeds} seed{'s' if gap.n_seeds > 1 else ''}" if gap.n_seeds else ""
    return f"{fixed(gap.difference_nats, sign=True)} ({interval}{seeds})"


def render_cards(cards: Iterable[Card]) -> Table:
    """The cards with their columns and scales."""
    rows = [
        (card.name, card.source, len(card.arms), ", ".join(card.columns), ", ".join(card.scales))
        for card in cards
    ]
    return render_rows("", ("card", "source", "arms", "columns", "scales"), rows, left=2)


def render_stages(name: str, stages: Sequence[Stage]) -> Table:
    """What each stage of a protocol costs."""
    rows = [
        (
            *(each.stage, each.planned, each.pending),
            *(si(each.flops), duration(each.elapsed_s), binary_size(each.disk_bytes)),
        )
        for each in stages
    ]
    return render_rows(name, ("stage", "runs", "left", "FLOPs", "time, one by one", "disk"), rows)
