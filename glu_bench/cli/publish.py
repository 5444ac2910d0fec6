"""glu-bench runs publish: what runs found, without their checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from glu_bench.cli.claims import N_TOKENS
from glu_bench.cli.completion import complete_run_or_sweep
from glu_bench.cli.options import AllowPlugins, AsJson, OutputDir, Quiet
from glu_bench.files import OUTPUTS

if TYPE_CHECKING:
    from glu_bench.runs.folder import Run


def publish(
    sweep: Annotated[
        str,
        typer.Argument(
            metavar="SWEEP",
            help="The sweep; its tuning goes with it.",
            autocompletion=complete_run_or_sweep,
        ),
    ],
    *,
    to: Annotated[
        Path,
        typer.Option("--to", help="A folder named after the sweep is made, or brought up to date, here."),
    ],
    tokens: Annotated[
        int, typer.Option("--tokens", min=1, help="Inspect checkpoints on so many validation tokens.")
    ] = N_TOKENS,
    evaluations_only: Annotated[
        bool,
        typer.Option("--evaluations-only", help="Keep evaluations alone of each log; inspect nothing."),
    ] = False,
    device: Annotated[
        str | None, typer.Option("--device", help="Where to inspect; each run's own by default.")
    ] = None,
    allow_plugin: AllowPlugins = None,
    output_dir: OutputDir = OUTPUTS,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Copy a sweep's results as small text files, no checkpoints.

    Settings, records and logs of its finished runs, that is. What was published before is left
    alone, so it can be called again as runs end. compare, claims and report read the folder like any other.

    Example: glu-bench runs publish shazeer2020-nano --to outputs/reference
    """
    from glu_bench.errors import GluBenchError
    from glu_bench.evaluate.inspection import inspect_run
    from glu_bench.ffn.plugins import load_plugins
    from glu_bench.show.console import make_stderr, make_stdout, plain, print_json
    from glu_bench.study.plan import find_plan
    from glu_bench.study.publish import publish_sweep

    load_plugins(allow_plugin or [], packages=False)
    stderr = make_stderr()

    def inspect(run: Run) -> dict[str, object] | None:
        if run.outcome() != "complete":
            return None
        if not quiet:
            stderr.print(plain(f"inspecting {run.path.name}"))
        try:
            return {"n_tokens": tokens, "summary": inspect_run(run, n_tokens=tokens, device=device).summary}
        except GluBenchError as error:  # its text, its checkpoints or its device are gone, say
            stderr.print(plain(f"note: published without an inspection: {error}"))
            return None

    found = publish_sweep(find_plan(sweep, output_dir), to, inspect, evaluations_only)
    if as_json:
        print_json({"folder": str(found.folder), "published": found.done, "not_finished": found.left})
    elif not quiet:
        waiting = f", {len(found.left)} not finished" if found.left else ""
        line = f"{found.folder}: {len(found.done)} runs published{waiting}"
        make_stdout().print(plain(line), soft_wrap=True)
