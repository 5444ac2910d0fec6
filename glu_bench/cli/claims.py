"""glu-bench claims: what the literature says of gates, beside what was measured."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Annotated

import typer

from glu_bench.cli.options import AllowPlugins, AsJson, FinishedRuns, OutputDir, Quiet
from glu_bench.files import OUTPUTS

if TYPE_CHECKING:
    from glu_bench.runs.folder import Run
    from glu_bench.study.claims import Summary

N_TOKENS = 16_384  # that a run is inspected on: four times fewer than by `inspect`, for there are many runs


def claims(
    runs: FinishedRuns = None,
    *,
    tokens: Annotated[
        int, typer.Option("--tokens", min=1, help="The first so many validation tokens to inspect runs on.")
    ] = N_TOKENS,
    device: Annotated[
        str | None, typer.Option("--device", help="Where to inspect; each run's own by default.")
    ] = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="The table as Markdown.")] = False,
    allow_plugin: AllowPlugins = None,
    output_dir: OutputDir = OUTPUTS,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Judge each claim that is made of gates by what was measured.

    A claim is supported, not supported, not separable, or not measured.

    Example: glu-bench claims gates

    Example: glu-bench claims --markdown > claims.md
    """
    from glu_bench.errors import ConfigError
    from glu_bench.evaluate.inspection import inspect_run
    from glu_bench.ffn.plugins import load_plugins
    from glu_bench.runs.publish import read_published_summary
    from glu_bench.show.claims import list_notes, list_settings, render_claims, write_claims
    from glu_bench.show.console import make_stderr, make_stdout, plain, print_json, print_text
    from glu_bench.study.arms import find_runs
    from glu_bench.study.claims import judge_claims

    if as_json and markdown:
        raise ConfigError("--json and --markdown: one of them")
    load_plugins(allow_plugin or [], packages=False)
    stderr = make_stderr()

    def inspect(run: Run) -> Summary:
        kept = read_published_summary(run, tokens)
        if kept is not None:
            return dict(kept)
        if not quiet:
            stderr.print(plain(f"inspecting {run.path.name}"))
        return inspect_run(run, n_tokens=tokens, device=device).summary

    found, _ = find_runs(runs or [], output_dir)
    judgement = judge_claims(found, inspect=inspect)
    if as_json:
        print_json(dataclasses.asdict(judgement))
    elif markdown:
        print_text(write_claims(judgement))
    else:
        stdout = make_stdout()
        stdout.print(render_claims(judgement))
        stdout.print(plain(judgement.rule))
        for setting in list_settings(judgement.claims):
            stdout.print(plain(f"setting: {setting}"))
    if not quiet:
        notes = [] if as_json else list_notes(judgement.claims)
        for line in [] if markdown else [*judgement.warnings, *notes]:
            stderr.print(plain(f"note: {line}"))
