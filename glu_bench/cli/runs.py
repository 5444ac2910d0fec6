"""glu-bench runs: run folders."""

from __future__ import annotations

import dataclasses
from typing import Annotated

import typer

from glu_bench.cli.diagnose import diagnose
from glu_bench.cli.diff import diff
from glu_bench.cli.import_runs import import_runs
from glu_bench.cli.options import AsJson, OneRun, OutputDir, Quiet
from glu_bench.cli.prune import prune
from glu_bench.cli.publish import publish
from glu_bench.cli.verify import verify
from glu_bench.files import OUTPUTS

app = typer.Typer(
    help="""List, check, move, publish and delete runs.

Example: glu-bench runs list --sort test_loss_nats
""",
    no_args_is_help=True,
    rich_markup_mode=None,
)
app.command()(diff)
app.command()(verify)
app.command(name="doctor")(diagnose)
app.command(name="import")(import_runs)
app.command()(prune)
app.command()(publish)


@app.command(name="list")
def list_all(
    *,
    where: Annotated[
        list[str] | None,
        typer.Option("--where", metavar="KEY=VALUE", help="Only runs where it holds; = != < >; repeatable."),
    ] = None,
    sort: Annotated[
        str | None, typer.Option("--sort", metavar="KEY", help="Order by a setting or result.")
    ] = None,
    reverse: Annotated[bool, typer.Option("--reverse", help="The other way round.")] = False,
    output_dir: OutputDir = OUTPUTS,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """List the runs under the output folder.

    A run is planned, running, complete, diverged, interrupted or failed, which
    --where status=complete and the like ask for.

    Example: glu-bench runs list --where variant=swiglu --where 'optim.lr>1e-3' --sort test_loss_nats
    """
    from glu_bench.runs.folder import list_runs
    from glu_bench.runs.selection import parse_condition, select_runs
    from glu_bench.show.console import make_stderr, make_stdout, plain, print_json
    from glu_bench.show.numbers import cell, fixed
    from glu_bench.show.tables import render_rows

    conditions = [parse_condition(text) for text in where or []]
    selected = select_runs(list_runs(output_dir), conditions, sort, reverse)
    stderr = make_stderr()
    for line in selected.unread if not quiet else ():
        stderr.print(plain(f"note: {line}"))
    columns = ["run_id", "run_dir", "status", "variant", "seed", "test_loss_nats", "tokens"]
    extra = [name for name in dict.fromkeys(selected.names) if name not in columns]
    if as_json:
        keys = [*columns, *extra]
        print_json({"runs": [{name: facts.get(name) for name in keys} for facts in selected.found]})
        return
    rows = [
        (
            facts["run_id"],
            facts["status"],
            fixed(facts.get("test_loss_nats")),
            cell(facts.get("tokens")),
            *(cell(facts.get(name)) for name in extra),
        )
        for facts in selected.found
    ]
    title = f"{len(rows)} runs under {output_dir}/runs"
    make_stdout().print(render_rows(title, ("run", "status", "test loss", "tokens", *extra), rows, left=2))


@app.command()
def show(
    run: OneRun,
    *,
    output_dir: OutputDir = OUTPUTS,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Show one run: status, result, configuration, environment.

    Example: glu-bench runs show swiglu-nano
    """
    from glu_bench.config_file import render_config
    from glu_bench.runs.fields import SHOWN
    from glu_bench.runs.folder import find_run
    from glu_bench.show.console import make_stdout, plain, print_json
    from glu_bench.show.tables import render_result, render_rows

    del quiet  # nothing is said beside the result
    found = find_run(run, output_dir)
    status = found.status()
    record = found.result(SHOWN) if status == "complete" else None
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
