"""glu-bench report: the page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from glu_bench.cli.options import AllowMixed, Arms, AsJson, Baseline, FinishedRuns, OutputDir, Quiet
from glu_bench.files import OUTPUTS
from glu_bench.words import split_keys


def report(
    runs: FinishedRuns = None,
    *,
    page: Annotated[
        Path, typer.Option("-o", "--output", help="The page; an earlier one is replaced.")
    ] = Path("report.html"),
    baseline: Baseline = None,
    arms: Arms = "variant",
    split: Annotated[str, typer.Option("--split", help="test or val.")] = "test",
    allow_mixed: AllowMixed = False,
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
        arm_keys=split_keys(arms),
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
