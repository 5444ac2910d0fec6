"""glu-bench bench: what things cost, against peers and the machine's limit."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from glu_bench.cli.completion import complete_variant
from glu_bench.cli.options import AsJson, ConfigDir, Quiet

if TYPE_CHECKING:
    from glu_bench.cost.row import Row
    from glu_bench.cost.startup import StartupRow
    from glu_bench.cost.variants import VariantBenchmark

app = typer.Typer(
    help="""Measure what things cost, against peers and the limit.

The limit is that of the machine, its matrix multiplications.

Example: glu-bench bench ffn swiglu geglu --preset nano
""",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@app.command()
def step(
    presets: Annotated[
        list[str] | None, typer.Argument(metavar="PRESET", help="Sizes; nano by default.")
    ] = None,
    *,
    batch_size: Annotated[int, typer.Option("--batch-size", min=1, help="Sequences a step.")] = 16,
    rounds: Annotated[int, typer.Option("--rounds", min=1, help="Turns each contestant takes.")] = 7,
    variants: Annotated[
        str | None,
        typer.Option(
            "--variants",
            metavar="NAME,GLOB,...",
            help="Instead of peers: our step with each of these variants against swiglu; all for all.",
        ),
    ] = None,
    config_dir: ConfigDir = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Tokens per second of a training step.

    Against transformers and the matrix-multiply peak.

    Example: glu-bench bench step nano micro
    """
    if variants is not None:
        from glu_bench.cost.variants import bench_variants

        words = variants.split(",")
        raced = bench_variants(
            presets or ["nano"], words, batch_size=batch_size, rounds=rounds, config_dir=config_dir
        )
        _print_variants(raced, as_json, quiet)
        return
    from glu_bench.cost.step import bench_step
    from glu_bench.show.console import make_stdout, plain, print_json
    from glu_bench.show.cost import render_parity
    from glu_bench.show.numbers import si
    from glu_bench.show.tables import render_rows

    found = bench_step(presets or ["nano"], batch_size=batch_size, rounds=rounds, config_dir=config_dir)
    if as_json:
        rows = [dataclasses.asdict(row) for row in found.rows]
        peak = {"flops_per_s": found.peak_flops_per_s, "dtype": "bf16"}
        parity = [dataclasses.asdict(each) for each in found.parity]
        print_json({"rows": rows, "peak": peak, "parity": parity, "environment": found.environment})
        return
    lines = [
        (
            row.name,
            si(row.ours),
            f"{row.ours_share_of_peak:.0%}",
            row.note or si(row.peer),
            "-" if row.ratio is None else f"{row.ratio:.2f}",
        )
        for row in found.rows
    ]
    stdout = make_stdout()
    columns = ("preset and peer", "ours tok/s", "of peak", "peer tok/s", "ours/peer")
    stdout.print(render_rows(f"bf16 peak {si(found.peak_flops_per_s)}FLOP/s", columns, lines))
    for row in [] if quiet else found.best_peers():
        if row.ratio is not None:
            stdout.print(plain(f"{row.preset}: {row.ratio:.2f} times the peer's fastest setting"))
    stdout.print(render_parity(found.parity))


@app.command()
def ffn(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="VARIANT|GLOB",
            help="Variants; by default the eight of core, all for all.",
            autocompletion=complete_variant,
        ),
    ] = None,
    *,
    preset: Annotated[str, typer.Option("--preset", help="Whose widths and length.")] = "micro",
    batch_size: Annotated[int, typer.Option("--batch-size", min=1, help="Sequences a pass.")] = 16,
    rounds: Annotated[int, typer.Option("--rounds", min=1, help="Turns each contestant takes.")] = 5,
    config_dir: ConfigDir = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Time and memory of the feed-forward block alone.

    Forward and backward: time, share of the peak, memory, parity.

    Example: glu-bench bench ffn swiglu '*relu*' --preset nano
    """
    from glu_bench.cost.feedforward import bench_feedforward
    from glu_bench.show.console import make_stdout, print_json
    from glu_bench.show.cost import render_feedforward

    found = bench_feedforward(
        names or ["core"], preset, batch_size=batch_size, rounds=rounds, config_dir=config_dir
    )
    if as_json:
        peak = {"flops_per_s": found.peak_flops_per_s, "dtype": found.dtype}
        shape = {"d_model": found.d_model, "n_tokens": found.n_tokens}
        rows = [dataclasses.asdict(row) for row in found.rows]
        print_json({"rows": rows, "peak": peak, "shape": shape, "environment": found.environment})
        return
    del quiet  # nothing is said beside the table
    make_stdout().print(render_feedforward(found))


@app.command()
def gates(
    presets: Annotated[
        list[str] | None, typer.Argument(metavar="PRESET", help="Sizes; nano by default.")
    ] = None,
    *,
    batch_size: Annotated[int, typer.Option("--batch-size", min=1, help="Sequences a step.")] = 16,
    rounds: Annotated[int, typer.Option("--rounds", min=1, help="Turns each part takes.")] = 7,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Seconds of a step with light diagnostics and without.

    The setting is train.diagnostics.

    Example: glu-bench bench gates nano micro
    """
    from glu_bench.cost.gates import bench_gates

    _print_rows(
        bench_gates(presets or ["nano"], batch_size=batch_size, rounds=rounds), "without", as_json, quiet, 4
    )


@app.command()
def data(
    *,
    small_mb: Annotated[int, typer.Option("--small-mb", min=1, help="The smaller text, in MB.")] = 10,
    large_mb: Annotated[int, typer.Option("--large-mb", min=1, help="The larger text, in MB.")] = 1000,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Tokenising speed and memory, and the supply of batches.

    Example: glu-bench bench data --large-mb 200
    """
    from glu_bench.cost.data import bench_data

    _print_rows(bench_data(small_mb, large_mb), "library alone", as_json, quiet)


@app.command()
def compare(
    sizes: Annotated[
        list[int] | None,
        typer.Argument(metavar="N", min=2, help="Numbers of run folders; 10, 100 and 1000 by default."),
    ] = None,
    *,
    rounds: Annotated[int, typer.Option("--rounds", min=1, help="Times each is run; the best counts.")] = 3,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Seconds and memory of compare over made-up run folders.

    Example: glu-bench bench compare 10 1000
    """
    from glu_bench.cost.compare import bench_compare

    _print_rows(bench_compare(sizes or (10, 100, 1000), rounds), "peer", as_json, quiet)


@app.command()
def memory(
    lengths: Annotated[
        list[int] | None,
        typer.Argument(metavar="T", min=2, help="Context lengths; 256, 512 to 4096 by default."),
    ] = None,
    *,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Memory of a training step by context length.

    And of a large vocabulary's loss; both against plain PyTorch.

    Example: glu-bench bench memory 256 1024
    """
    from glu_bench.cost.memory import LENGTHS, bench_memory

    _print_rows(bench_memory(lengths or LENGTHS), "plain", as_json, quiet)


@app.command()
def startup(
    *,
    rounds: Annotated[int, typer.Option("--rounds", min=1, help="Times each is run; the best counts.")] = 5,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Seconds to start commands and the first compiled step.

    The step without a compiler cache and with one.

    Example: glu-bench bench startup --rounds 3
    """
    from glu_bench.cost.startup import bench_startup

    _print_rows(bench_startup(rounds), "bare", as_json, quiet)


def _print_variants(found: VariantBenchmark, as_json: bool, quiet: bool) -> None:
    from glu_bench.cost.variants import LIMIT
    from glu_bench.show.console import make_stdout, plain, print_json
    from glu_bench.show.cost import render_variants

    if as_json:
        rows = [dataclasses.asdict(row) for row in found.rows]
        print_json({"rows": rows, "peak": None, "environment": found.environment})
        return
    stdout = make_stdout()
    stdout.print(render_variants(found))
    if quiet:
        return
    beyond = ", ".join(row.name for row in found.list_beyond())
    n_pointwise = sum(row.pointwise for row in found.rows)
    stdout.print(
        plain(f"of {n_pointwise} pointwise variants above {LIMIT:g} times swiglu: {beyond or 'none'}")
    )


def _print_rows(
    rows: Sequence[Row | StartupRow],
    peer: str,
    as_json: bool,
    quiet: bool,
    digits: int = 2,
) -> None:
    from glu_bench.runs.environment import read_environment
    from glu_bench.show.console import make_stdout, plain, print_json
    from glu_bench.show.tables import render_rows

    if as_json:
        found = [dataclasses.asdict(row) for row in rows]
        print_json({"rows": found, "peak": None, "environment": read_environment("cpu")})
        return
    lines = [
        (
            row.name,
            "-" if row.ours is None else f"{row.ours:.3g}",
            "-" if row.peer is None else f"{row.peer:.3g}",
            "-" if row.ratio is None else f"{row.ratio:.{digits}f}",
            row.unit,
        )
        for row in rows
    ]
    stdout = make_stdout()
    stdout.print(render_rows("", ("", "ours", peer, "ratio", "unit"), lines))
    for row in rows:
        if row.ours is None and not quiet:
            stdout.print(plain(f"{row.name}: not measured, {row.note}"))
