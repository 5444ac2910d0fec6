"""Tables of what blocks and steps cost."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from glu_bench.cost.feedforward import FeedForwardBenchmark, FeedForwardRow
from glu_bench.cost.step_parity import StepParity
from glu_bench.cost.variants import VariantBenchmark
from glu_bench.show.numbers import fixed, si
from glu_bench.show.tables import render_rows

FEEDFORWARD_COLUMNS = (
    *("block", "F", "ms", "tok/s", "of peak", "x swiglu", "kept B/token", "bound", "peak B"),
    *("off fp32", "off bf16", "bf16 itself", ""),
)
PARITY_COLUMNS = ("preset and fast path", "off fp32", "off bf16", "bf16 itself")
VARIANT_COLUMNS = ("preset and variant", "F", "ms/step", "swiglu's", "x swiglu", "tok/s", "")


def render_feedforward(found: FeedForwardBenchmark) -> Table:
    """The blocks of a feed-forward benchmark: variants, then peers.

    `off` columns are distances from the plain block, `bf16 itself` that of plain bf16 from plain fp32.
    """
    title = (
        f"D={found.d_model}, {found.n_tokens:,} tokens forward and backward; "
        f"{found.dtype} peak {si(found.peak_flops_per_s)}FLOP/s"
    )
    return render_rows(title, FEEDFORWARD_COLUMNS, [_feedforward_line(row) for row in found.rows])


def render_variants(found: VariantBenchmark) -> Table:
    """The training steps of variants beside swiglu's."""
    lines = [
        (
            row.name,
            str(row.d_ff),
            f"{row.ours:.3g}",
            f"{row.peer:.3g}",
            f"{row.ratio:.3f}",
            si(row.tokens_per_s),
            "" if row.pointwise else "not pointwise",
        )
        for row in found.rows
    ]
    return render_rows("", VARIANT_COLUMNS, lines)


def render_parity(found: Sequence[StepParity]) -> Table:
    """How far the fast paths of training steps are from the plain one."""
    lines = [
        (
            row.name,
            *("-" if value is None else f"{value:.1e}" for value in (row.fp32, row.bf16, row.bf16_rounding)),
        )
        for row in found
    ]
    return render_rows("greatest relative difference of loss and gradients from plain", PARITY_COLUMNS, lines)


def _feedforward_line(row: FeedForwardRow) -> tuple[str, ...]:
    return (
        row.name,
        str(row.d_ff),
        "-" if row.elapsed_ms is None else f"{row.elapsed_ms:.3g}",
        si(row.tokens_per_s),
        "-" if row.share_of_peak is None else f"{row.share_of_peak:.0%}",
        fixed(row.time_to_swiglu, 3),
        "-" if row.saved_bytes_per_token is None else f"{row.saved_bytes_per_token:.0f}",
        str(row.bound_bytes_per_token),
        si(row.peak_bytes),
        "-" if row.parity_fp32 is None else f"{row.parity_fp32:.1e}",
        "-" if row.parity_bf16 is None else f"{row.parity_bf16:.1e}",
        "-" if row.bf16_rounding is None else f"{row.bf16_rounding:.1e}",
        row.note,
    )
