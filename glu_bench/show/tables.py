"""Rich tables of results."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich import box
from rich.table import Table

from glu_bench.evaluate.loss import HeldOutLoss, perplexity
from glu_bench.show.console import plain
from glu_bench.show.numbers import duration, fixed, perplexity_text, si

if TYPE_CHECKING:
    from glu_bench.evaluate.ablation import Ablation


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
        table.add_column(plain(name), justify="left" if at < left else "right", no_wrap=True)
    return table


def render_result(record: Mapping[str, Any]) -> Table:
    """The final record of one run."""
    table = make_table(record["run_id"], ("", ""), left=2)
    rows = [
        ("test perplexity", perplexity_text(record["test_perplexity"])),
        ("test loss", f"{fixed(record['test_loss_nats'])} nats/token"),
        ("test bits/byte", fixed(record["test_bits_per_byte"])),
        ("val loss", f"{fixed(record['val_loss_nats'])} nats/token"),
        ("train loss", f"{fixed(record['train_loss_nats'])} nats/token"),
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
        *_utilisation(record.get("mfu")),
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


def _utilisation(mfu: float | None) -> list[tuple[str, str]]:
    """Known on some devices alone."""
    return [] if mfu is None else [("of peak", f"{mfu:.1%} of the device's dense bf16 FLOP/s")]


def _span(values: Sequence[float] | None) -> str:
    """First and last of the layers' numbers; runs of an early version have none."""
    return "not recorded" if not values else " to ".join(f"{v:.3g}" for v in (values[0], values[-1]))


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


def render_splits(found: Mapping[str, Any]) -> Table:
    """How much of a text is in each split, as `data show` describes it."""
    rows = [
        (
            split,
            f"{entry['n_documents']:,}",
            f"{entry['n_bytes']:,}",
            f"{entry['n_tokens']:,}",
            f"{entry['n_bytes'] / entry['n_tokens']:.2f}" if entry["n_tokens"] else "-",
        )
        for split, entry in found["splits"].items()
    ]
    title = f"{found['corpus']}, tokenizer {found['tokenizer']}"
    return render_rows(title, ("split", "documents", "bytes", "tokens", "bytes/token"), rows)


def render_ablation(found: Ablation) -> Table:
    """What replacing the gates of one run costs: each block alone, then all at once."""
    title = (
        f"{found.run_id}, {found.gate} gates, {found.tokens:,} tokens of {found.split}: "
        f"{found.loss_nats:.4f} nats/token as trained"
    )
    rows = [(str(layer), fixed(lost, sign=True)) for layer, lost in enumerate(found.lost_nats_per_layer)]
    return render_rows(title, ("block", "nats"), [*rows, ("all", fixed(found.lost_nats, sign=True))])


def render_rows(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]], left: int = 1) -> Table:
    """Any rows of text."""
    table = make_table(title, columns, left)
    for row in rows:
        table.add_row(*(plain(cell) for cell in row))
    return table
