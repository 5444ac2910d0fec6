"""Rich tables of results."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich import box
from rich.table import Table

from glu_bench.evaluate.loss import HeldOutLoss, perplexity
from glu_bench.show.console import plain
from glu_bench.show.numbers import duration, fixed, p_text, perplexity_text, si

if TYPE_CHECKING:
    from glu_bench.study.compare import Comparison  # whose statistics few tables need


def make_table(title: str, columns: Sequence[str], left: int = 1) -> Table:
    """A plain table whose first `left` columns are text and the others numbers."""
    table = Table(
        title=plain(title) if title else None,
        title_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        show_header=any(columns),
    )
    for at, name in enumerate(columns):
        table.add_column(name, justify="left" if at < left else "right", no_wrap=True)
    return table


def render_result(record: Mapping[str, Any]) -> Table:
    """The final record of one run."""
    table = make_table(record["run_id"], ("", ""), left=2)
    rows = [
        ("test perplexity", perplexity_text(record["test_perplexity"])),
        ("test loss", f"{record['test_loss_nats']:.4f} nats/token"),
        ("test bits/byte", f"{record['test_bits_per_byte']:.4f}"),
        ("val loss", f"{record['val_loss_nats']:.4f} nats/token"),
        ("train loss", f"{record['train_loss_nats']:.4f} nats/token"),
        ("parameters", f"{record['n_params']:,}"),
        ("in feed-forward", f"{record['n_ffn_params']:,} at F={record['d_ff']}"),
        ("match residual", f"{record['match_residual']:+.3%} of the ungated baseline's"),
        ("FLOPs/token", f"{si(record['flops_per_token'])}, forward and backward"),
        (
            "kept/token",
            f"{si(record.get('ffn_saved_bytes_per_token'))}B by feed-forward, for backward",
        ),
        ("hidden RMS", f"{_span(record.get('hidden_rms_at_init'))} at the start, by layer"),
        (
            "trained",
            f"{record['tokens']:,} tokens in {record['steps']:,} steps, {duration(record['elapsed_s'])}",
        ),
        ("throughput", f"{si(record['tokens_per_s'])} tokens/s"),
        ("peak memory", f"{si(record['peak_bytes'])}B"),
        ("weights sha256", record["parameters_sha256"][:16]),
    ]
    if record["unstable"]:
        rows.append(("unstable", "the training loss ended above where it began"))
    if not record["exact"]:
        rows.append(("inexact", "resumed under other threads or instructions"))
    for name, value in rows:
        table.add_row(name, plain(value))
    return table


def _span(values: Sequence[float] | None) -> str:
    """First and last of the layers' numbers; runs of an early version have none."""
    return "not recorded" if not values else " to ".join(f"{v:.3g}" for v in (values[0], values[-1]))


def render_comparison(comparison: Comparison) -> Table:
    """One table of arms, best first."""
    table = make_table(
        comparison.setting,
        (
            *("arm", "n", "loss", "sd", "", f"{comparison.split} ppl", "bits/byte"),
            *(f"vs {comparison.baseline}", "95 % interval", "p (Holm)"),
            *("FFN params", "residual", "FLOPs/token", "tokens/s"),
        ),
    )
    for arm in comparison.arms:
        n = str(arm.n_finished) if arm.n_finished == arm.n_planned else f"{arm.n_finished}/{arm.n_planned}"
        table.add_row(
            plain(arm.arm),
            n + (f" ({arm.n_diverged} diverged)" if arm.n_diverged else ""),
            fixed(arm.mean_loss_nats),
            fixed(arm.sd_loss_nats),
            arm.letters,
            "-" if arm.mean_loss_nats is None else perplexity_text(arm.perplexity),
            fixed(arm.bits_per_byte),
            "baseline" if arm.arm == comparison.baseline else fixed(arm.difference_nats, sign=True),
            _interval(arm.difference_ci95),
            p_text(arm.p_holm),
            si(arm.n_ffn_params),
            "-" if arm.match_residual is None else f"{arm.match_residual:+.2%}",
            si(arm.flops_per_token),
            si(arm.tokens_per_s),
        )
    return table


def _interval(ends: tuple[float, float] | None) -> str:
    return "-" if ends is None else f"{fixed(ends[0], sign=True)} to {fixed(ends[1], sign=True)}"


def render_evaluations(found: Iterable[tuple[str, HeldOutLoss]]) -> Table:
    """Held-out losses of runs, a row each."""
    table = make_table(
        "", ("run", "split", "perplexity", "loss", "bits/byte", "tokens", "bytes", "stride"), left=2
    )
    for run_id, loss in found:
        table.add_row(
            plain(run_id),
            plain(loss.split),
            perplexity_text(perplexity(loss.loss_nats)),
            fixed(loss.loss_nats),
            fixed(loss.bits_per_byte),
            f"{loss.n_tokens:,}",
            f"{loss.n_bytes:,}",
            str(loss.stride),
        )
    return table


def render_rows(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]], left: int = 1) -> Table:
    """Any rows of text."""
    table = make_table(title, columns, left)
    for row in rows:
        table.add_row(*(plain(cell) for cell in row))
    return table
