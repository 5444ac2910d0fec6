"""glu-bench compare: the table and the verdict."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import typer

from glu_bench.cli.completion import complete_run_or_sweep
from glu_bench.cli.options import OUTPUTS, AsJson, OutputDir, Quiet


def compare(
    runs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[RUN/SWEEP/FOLDER]...",
            help="What to compare; nothing: all finished runs.",
            autocompletion=complete_run_or_sweep,
        ),
    ] = None,
    *,
    baseline: Annotated[
        str | None, typer.Option("--baseline", help="The arm that differences refer to.")
    ] = None,
    arms: Annotated[
        str, typer.Option("--arms", help="Keys that make an arm, such as variant,match.")
    ] = "variant",
    split: Annotated[str, typer.Option("--split", help="test or val.")] = "test",
    from_csv: Annotated[
        Path | None,
        typer.Option(
            "--from-csv",
            help="Anybody's results instead: columns arm,seed,loss or arm,mean,sd,n.",
            dir_okay=False,
        ),
    ] = None,
    allow_mixed: Annotated[bool, typer.Option("--allow-mixed", help="One table whatever differs.")] = False,
    output_dir: OutputDir = OUTPUTS,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Arms side by side, one table a setting.

    Example: glu-bench compare --baseline gelu
    Example: glu-bench compare --from-csv results.csv
    """
    from glu_bench.errors import ConfigError
    from glu_bench.show.console import make_stderr, make_stdout, plain, print_json
    from glu_bench.show.tables import render_comparison
    from glu_bench.study.arms import find_runs
    from glu_bench.study.compare import compare_runs
    from glu_bench.study.results_csv import compare_csv

    if split not in ("val", "test"):
        raise ConfigError(f"--split {split}: val or test")
    if from_csv is not None:
        if runs:
            raise ConfigError(f"--from-csv {from_csv} and {runs[0]}: a file or runs, not both")
        tables = [compare_csv(from_csv, baseline)]
    else:
        found, named = find_runs(runs or [], output_dir)
        tables = compare_runs(
            found,
            baseline=baseline,
            split=split,
            arm_keys=[key.strip() for key in arms.split(",")],
            allow_mixed=allow_mixed,
            refuse_mixed=named,
        )
    if as_json:
        print_json({"tables": [dataclasses.asdict(table) for table in tables]})
        return
    stdout, stderr = make_stdout(), make_stderr()
    for table in tables:
        stdout.print(render_comparison(table))
        stdout.print(plain(table.verdict))
        if not quiet:
            for warning in table.warnings:
                stderr.print(plain(f"note: {warning}"))
    if tables[0].left_out and not quiet:
        stderr.print(plain(f"left out, no second arm in their setting: {', '.join(tables[0].left_out)}"))
