"""glu-bench runs diff: where two runs part."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any

import typer

from glu_bench.cli.completion import complete_run
from glu_bench.cli.options import AsJson, OutputDir, Quiet
from glu_bench.files import OUTPUTS


def diff(
    a: Annotated[
        str,
        typer.Argument(
            metavar="A", help="A run id, a prefix of one, or a folder.", autocompletion=complete_run
        ),
    ],
    b: Annotated[str, typer.Argument(metavar="B", help="The other run.", autocompletion=complete_run)],
    *,
    output_dir: OutputDir = OUTPUTS,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Name the first difference of two runs.

    Looked for in settings, machine and text, then in the loss of each step.

    Example: glu-bench runs diff swiglu-nano-stdlib-s0 swiglu-nano-stdlib-s1
    """
    from glu_bench.runs.difference import Difference, diff_runs
    from glu_bench.runs.folder import find_run
    from glu_bench.show.console import make_stdout, plain, print_json
    from glu_bench.show.numbers import cell
    from glu_bench.show.tables import render_rows

    del quiet  # nothing is said beside the result
    runs = [find_run(text, output_dir) for text in (a, b)]
    found = diff_runs(*runs)
    ids = [run.run_id for run in runs]
    first = found.first
    if as_json:

        def listed(differences: list[Difference]) -> list[dict[str, Any]]:
            return [{"key": each.name, "a": each.a, "b": each.b} for each in differences]

        print_json(
            {
                "a": ids[0],
                "b": ids[1],
                "first": dataclasses.asdict(first) if first else None,
                "configuration": listed(found.configuration),
                "environment": listed(found.environment),
                "data": listed(found.data),
                "step": dataclasses.asdict(found.step) if found.step else None,
            }
        )
        return
    stdout = make_stdout()
    if first is None:
        stdout.print(plain(f"{ids[0]} and {ids[1]} agree in everything"))
        return
    stdout.print(
        plain(f"first difference: {first.section}, {first.name}: {cell(first.a)} and {cell(first.b)}")
    )
    for title, differences in (
        ("configuration", found.configuration),
        ("environment", found.environment),
        ("data", found.data),
    ):
        if differences:
            rows = [(each.name, cell(each.a), cell(each.b)) for each in differences]
            stdout.print(render_rows(title, ("", *ids), rows, left=3))
    if found.step is None:
        stdout.print("the losses of all logged steps are equal")
    else:
        stdout.print(plain(f"{found.step.name}: {cell(found.step.a)} and {cell(found.step.b)}"))
