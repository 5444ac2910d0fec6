"""glu-bench inspect: what the gates of a run do."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from glu_bench.cli.completion import complete_run_or_sweep
from glu_bench.cli.options import AllowPlugins, AsJson, OutputDir, Quiet
from glu_bench.files import OUTPUTS

if TYPE_CHECKING:
    from glu_bench.evaluate.inspection import Inspection
    from glu_bench.runs.folder import Run


def inspect(
    runs: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN/SWEEP/FOLDER",
            help="What to look into; several stand side by side.",
            autocompletion=complete_run_or_sweep,
        ),
    ],
    *,
    over: Annotated[bool, typer.Option("--over", help="All checkpoints, in order.")] = False,
    checkpoint: Annotated[
        int | None, typer.Option("--checkpoint", metavar="STEP", help="That one; the last by default.")
    ] = None,
    split: Annotated[str, typer.Option("--split", help="train, val or test.")] = "val",
    tokens: Annotated[
        int | None, typer.Option("--tokens", min=1, help="The first so many tokens of it; 65,536 by default.")
    ] = None,
    device: Annotated[
        str | None, typer.Option("--device", help="Where to compute; the run's by default.")
    ] = None,
    figure: Annotated[
        Path | None,
        typer.Option("--figure", help="Draw depth profiles and histograms into a file: .svg, .png or .pdf."),
    ] = None,
    allow_plugin: AllowPlugins = None,
    output_dir: OutputDir = OUTPUTS,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Say what the gates of runs do, block by block.

    Dead and saturated units, rank of the hidden state, weights and gradients.

    Example: glu-bench inspect swiglu-nano --figure depth.svg

    Example: glu-bench inspect relu-nano swiglu-nano --json
    """
    from glu_bench.errors import ConfigError
    from glu_bench.evaluate.held_out import N_TOKENS
    from glu_bench.evaluate.inspection import inspect_run
    from glu_bench.ffn.plugins import load_plugins
    from glu_bench.show.console import make_stderr, plain
    from glu_bench.show.figure import check_figure
    from glu_bench.show.inspection import list_warnings

    if split not in ("train", "val", "test"):
        raise ConfigError(f"--split {split}: train, val or test")
    if over and checkpoint is not None:
        raise ConfigError(f"--over and --checkpoint {checkpoint}: all checkpoints or one, not both")
    if figure is not None:
        check_figure(figure)
    load_plugins(allow_plugin or [], packages=False)
    stderr = make_stderr()
    found: list[Inspection] = []
    named = _find_runs(runs, output_dir)
    for run in named:
        for step in run.list_steps() if over else [checkpoint]:
            if not quiet:
                stderr.print(plain(f"inspecting {run.path.name}" + (f" at step {step}" if step else "")))
            found.append(inspect_run(run, step=step, split=split, n_tokens=tokens or N_TOKENS, device=device))
    if as_json:
        _print_json(found, len(named), over)
    else:
        _print_tables(found, len(named))
    for each in found if not quiet else ():
        for line in list_warnings(each):
            stderr.print(plain(f"note: {each.run_id}, step {each.step}: {line}"))
    if figure is not None:
        from glu_bench.show.gate_figure import write_profiles

        write_profiles(figure, found)
        if not quiet:
            stderr.print(plain(f"drawn: {figure}"))


def _find_runs(words: list[str], output_dir: Path) -> list[Run]:
    """The runs that words name, but for planned ones that never began.

    Raises: DataError if none is left.
    """
    from glu_bench.errors import DataError
    from glu_bench.runs.folder import Run
    from glu_bench.study.arms import find_runs

    found, _ = find_runs(words, output_dir)
    begun = [run for run in found if isinstance(run, Run)]
    if not begun:
        raise DataError(f"{' '.join(words)}: no run there has begun")
    return begun


def _print_json(found: list[Inspection], n_runs: int, over: bool) -> None:
    """One run: its layers and summary; several, or several checkpoints: a list of these."""
    from glu_bench.show.console import print_json

    written = [_write(each) for each in found]
    if n_runs == 1 and not over:
        print_json(written[0])
    elif n_runs == 1:
        last = written[-1]
        print_json({**last, "checkpoints": written})
    else:
        print_json({"runs": written})


def _write(inspection: Inspection) -> dict[str, Any]:
    import dataclasses

    from glu_bench.evaluate.inspection import flatten_layer

    written = dataclasses.asdict(inspection)
    return written | {"layers": [flatten_layer(layer) for layer in inspection.layers]}


def _print_tables(found: list[Inspection], n_runs: int) -> None:
    from glu_bench.show.console import make_stdout
    from glu_bench.show.inspection import render_run, render_side_by_side

    if len(found) == 1:
        tables = list(render_run(found[0]))
    elif n_runs == len(found):
        tables = list(render_side_by_side(found))
    else:
        tables = []
        for run_id in dict.fromkeys(each.run_id for each in found):
            checkpoints = [each for each in found if each.run_id == run_id]
            tables += render_side_by_side(checkpoints, "step")
    for table in tables:
        make_stdout().print(table)
