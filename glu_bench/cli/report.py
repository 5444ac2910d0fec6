"""glu-bench report: the page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from glu_bench.cli.completion import complete_run_or_sweep
from glu_bench.cli.options import AsJson, OutputDir, Quiet
from glu_bench.files import OUTPUTS


def report(
    runs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="RUN/SWEEP/FOLDER",
            help="What the page shows; nothing: all finished runs.",
            autocompletion=complete_run_or_sweep,
        ),
    ] = None,
    *,
    page: Annotated[
        Path, typer.Option("-o", "--output", help="The page; an earlier one is replaced.")
    ] = Path("report.html"),
    baseline: Annotated[
        str | None, typer.Option("--baseline", help="The arm that differences refer to.")
    ] = None,
    arms: Annotated[
        str, typer.Option("--arms", help="Keys that make an arm, such as variant,match.")
    ] = "variant",
    split: Annotated[str, typer.Option("--split", help="test or val.")] = "test",
    allow_mixed: Annotated[bool, typer.Option("--allow-mixed", help="One table whatever differs.")] = False,
    output_dir: OutputDir = OUTPUTS,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Write one HTML page of all results, which opens offline.

    Verdict, table, curves, cost, and how to get each number again.

    Example: glu-bench report gates -o gates.html
    """
    from glu_bench.errors import ConfigError
    from glu_bench.show.console import make_stdout, plain, print_json
    from glu_bench.show.report.page import Asked, check_place, render_report, write_report
    from glu_bench.study.arms import find_runs
    from glu_bench.study.compare import compare_runs

    if split not in ("val", "test"):
        raise ConfigError(f"--split {split}: val or test")
    check_place(page)
    found, named = find_runs(runs or [], output_dir)
    tables = compare_runs(
        found,
        baseline=baseline,
        split=split,
        arm_keys=[key.strip() for key in arms.split(",")],
        allow_mixed=allow_mixed,
        refuse_mixed=named,
    )
    asked = Asked(
        words=runs or [],
        output_dir=output_dir,
        baseline=baseline,
        arms=arms,
        split=split,
        allow_mixed=allow_mixed,
    )
    n_bytes = write_report(page, render_report(tables, found, asked))
    if as_json:
        print_json({"path": str(page), "bytes": n_bytes, "tables": len(tables)})
    elif not quiet:
        n = f"{len(tables)} table" + ("" if len(tables) == 1 else "s")
        make_stdout().print(plain(f"{page}: {n}, {n_bytes / 1e6:.1f} MB, opens offline"))
