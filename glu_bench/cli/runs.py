"""glu-bench runs: run folders."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any

import typer

from glu_bench.cli.options import OUTPUTS, AsJson, OutputDir

app = typer.Typer(help="Run folders.", no_args_is_help=True, rich_markup_mode=None)


@app.command(name="list")
def list_all(*, output_dir: OutputDir = OUTPUTS, as_json: AsJson = False) -> None:
    """List the runs under the output folder.

    Example: glu-bench runs list
    """
    from glu_bench.runs.folder import list_runs
    from glu_bench.show.console import make_stdout, print_json
    from glu_bench.show.numbers import fixed
    from glu_bench.show.tables import render_rows

    found: list[dict[str, Any]] = []
    for run in list_runs(output_dir):
        status = run.status()
        record = run.result() if status == "complete" else {}
        found.append(
            {
                "run_id": run.run_id,
                "run_dir": str(run.path),
                "status": status,
                "test_loss_nats": record.get("test_loss_nats"),
                "tokens": record.get("tokens"),
            }
        )
    if as_json:
        print_json({"runs": found})
        return
    rows = [
        (
            r["run_id"],
            r["status"],
            fixed(r["test_loss_nats"]),
            "-" if r["tokens"] is None else f"{r['tokens']:,}",
        )
        for r in found
    ]
    title = f"{len(rows)} runs under {output_dir}/runs"
    make_stdout().print(render_rows(title, ("run", "status", "test loss", "tokens"), rows, left=2))


@app.command()
def show(
    run: Annotated[str, typer.Argument(metavar="RUN", help="A run id, a prefix of one, or a folder.")],
    *,
    output_dir: OutputDir = OUTPUTS,
    as_json: AsJson = False,
) -> None:
    """Show one run: its status, result, configuration and environment.

    Example: glu-bench runs show swiglu-nano
    """
    from glu_bench.config import render_config
    from glu_bench.runs.folder import find_run
    from glu_bench.show.console import make_stdout, plain, print_json
    from glu_bench.show.tables import render_result, render_rows

    found = find_run(run, output_dir)
    status = found.status()
    record = found.result() if status == "complete" else None
    config = found.config()
    environment = found.environment()
    if as_json:
        print_json(
            {
                "run_id": found.run_id,
                "run_dir": str(found.path),
                "status": status,
                "failure": found.failure(),
                "result": record,
                "config": dataclasses.asdict(config),
                "environment": environment,
            }
        )
        return
    stdout = make_stdout()
    stdout.print(plain(f"{found.path}: {status}"))
    failure = found.failure()
    if failure:
        stdout.print(plain(f"reason: {failure.get('reason')}"))
    if record:
        stdout.print(render_result(record))
    facts = [(key, value) for key, value in environment.items() if not isinstance(value, dict)]
    stdout.print(render_rows("environment", ("", ""), facts, left=2))
    stdout.print(plain("configuration"))
    for line in render_config(config).splitlines():
        stdout.print(plain("  " + line))
