"""A published table beside ours, and lists of cards."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.table import Table

from glu_bench.show.console import plain
from glu_bench.show.numbers import duration, fixed, si
from glu_bench.show.tables import make_table, render_rows
from glu_bench.stats.concordance import Concordance
from glu_bench.stats.gap import Gap
from glu_bench.study.card import Card
from glu_bench.study.reproduce import Reproduction, Row

Stage = tuple[str, int, int, int, float | None, int]  # name, runs, left, FLOPs, seconds, bytes


def render_reproduction(found: Reproduction) -> Table:
    """Both tables side by side in the published order."""
    ours = {row.arm: row for row in found.ours.arms}
    keys = list(dict.fromkeys(key for row in found.ours.arms for key in row.tuned))
    table = make_table(
        f"{found.title} ({found.source}), column {found.column}",
        ("arm", "published", "sd", "", "ours", "sd", "", "n", *(key.rpartition(".")[2] for key in keys)),
    )
    for row in found.published.arms:
        table.add_row(
            plain(row.arm),
            *(fixed(row.mean_loss_nats, 3), fixed(row.sd_loss_nats, 3), row.letters),
            *_render_ours(ours.get(row.arm), keys),
        )
    return table


def _render_ours(row: Row | None, keys: Sequence[str]) -> list[str]:
    if row is None:
        return ["-", "-", "", "0", *("-" for _ in keys)]
    n = str(row.n_finished) if row.n_finished == row.n_planned else f"{row.n_finished}/{row.n_planned}"
    return [
        *(fixed(row.mean_loss_nats), fixed(row.sd_loss_nats), row.letters, n),
        *(row.tuned.get(key, "-") for key in keys),
    ]


def say_reproduction(found: Reproduction) -> list[str]:
    """The lines under the table: settings, gaps, concordance, the verdict and its rules."""
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
    return [*lines, f"verdict: {found.verdict}; {found.sentence}", f"rules: {found.rules}"]


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
    from glu_bench.show.numbers import binary_size

    rows = [
        (stage, n_runs, n_left, si(flops), duration(elapsed_s), binary_size(disk_bytes))
        for stage, n_runs, n_left, flops, elapsed_s, disk_bytes in stages
    ]
    return render_rows(name, ("stage", "runs", "left", "FLOPs", "time, one by one", "disk"), rows)
