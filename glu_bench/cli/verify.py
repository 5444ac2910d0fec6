"""glu-bench runs verify: whether folders still hold what was written."""

from __future__ import annotations

from typing import Annotated

import typer

from glu_bench.cli.completion import complete_run
from glu_bench.cli.options import AsJson, OutputDir, Quiet
from glu_bench.files import OUTPUTS


def verify(
    runs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="RUN",
            help="Run ids, prefixes or folders; nothing: all there are.",
            autocompletion=complete_run,
        ),
    ] = None,
    *,
    output_dir: OutputDir = OUTPUTS,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Check that runs still hold what was written.

    Hashes again: settings against the id, record, held-out windows, checkpoints.

    Example: glu-bench runs verify swiglu-nano
    """
    from glu_bench.errors import DataError
    from glu_bench.runs.folder import find_run, list_runs
    from glu_bench.runs.integrity import verify_run
    from glu_bench.show.console import make_stderr, make_stdout, plain, print_json

    found = [find_run(text, output_dir) for text in runs] if runs else list_runs(output_dir)
    problems = {run.path: verify_run(run) for run in found}
    n_broken = sum(bool(lines) for lines in problems.values())
    if as_json:
        print_json(
            {
                "runs": [
                    {"run_id": path.name, "run_dir": str(path), "ok": not lines, "problems": lines}
                    for path, lines in problems.items()
                ]
            }
        )
    else:
        stdout = make_stdout()
        for path, lines in problems.items():
            for line in lines or ([] if quiet else [f"{path}: ok"]):
                stdout.print(plain(line), soft_wrap=True)
        if not found and not quiet:
            make_stderr().print(plain(f"no runs under {output_dir}/runs"))
    if n_broken:
        raise DataError(f"{n_broken} of {len(found)} runs do not verify")
