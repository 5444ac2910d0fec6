"""glu-bench scaling: the law of loss against budget or size."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from glu_bench.cli.options import Arms, AsJson, FinishedRuns, OutputDir, Quiet
from glu_bench.files import OUTPUTS
from glu_bench.words import split_keys

if TYPE_CHECKING:
    from glu_bench.study.scaling import Scaling


def scaling(
    runs: FinishedRuns = None,
    *,
    over: Annotated[
        str,
        typer.Option(
            "--over", help="tokens (budgets), params (sizes) or flops (either, of the whole training)."
        ),
    ] = "tokens",
    arms: Arms = "variant",
    baseline: Annotated[
        str | None, typer.Option("--baseline", help="The arm whose law speedups are read from.")
    ] = None,
    split: Annotated[str, typer.Option("--split", help="test or val.")] = "test",
    predict: Annotated[
        list[float] | None,
        typer.Option("--predict", metavar="C", help="Say the loss there, with its band; may be repeated."),
    ] = None,
    figure: Annotated[
        Path | None, typer.Option("--figure", help="Draw it into a file: .svg, .png or .pdf.")
    ] = None,
    output_dir: OutputDir = OUTPUTS,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Fit a law of loss against budget or size, and extrapolate.

    The law is loss = L_inf + A C^-alpha, one an arm. An arm needs runs of four budgets or sizes
    at the least, such as those of train.tokens=1_000_000,2_000_000,4_000_000,8_000_000 in a sweep.

    Example: glu-bench scaling gates --over tokens --predict 1e9 --figure scaling.svg
    """
    from glu_bench.errors import ConfigError
    from glu_bench.show.console import make_stderr, make_stdout, plain, print_json
    from glu_bench.show.figure import check_figure
    from glu_bench.show.scaling import describe_speedup, render_laws, render_points, write_scaling_figure
    from glu_bench.study.arms import find_runs
    from glu_bench.study.scaling import AXES, fit_scaling, list_beyond

    if split not in ("val", "test"):
        raise ConfigError(f"--split {split}: val or test")
    if over not in AXES:
        raise ConfigError(f"--over {over}: {', '.join(AXES)}")
    for c in predict or []:
        if not (math.isfinite(c) and c > 0):
            raise ConfigError(f"--predict {c:g}: a number above zero, such as 1e9")
    if figure is not None:
        check_figure(figure)
    found, _ = find_runs(runs or [], output_dir)
    scalings = fit_scaling(
        found,
        over=over,
        baseline=baseline,
        split=split,
        arm_keys=split_keys(arms),
        predict=predict or [],
    )
    if figure is not None:
        write_scaling_figure(figure, scalings)
    if as_json:
        listed = [_to_json(each) for each in scalings]
        print_json({"scalings": listed, "figure": None if figure is None else str(figure)})
        return
    stdout, stderr = make_stdout(), make_stderr()
    for each in scalings:
        stdout.print(render_points(each))
        stdout.print(render_laws(each))
        for curve in each.curves:
            if curve.speedup is not None:
                words = f"{curve.arm} over {each.baseline}: {describe_speedup(curve.speedup)}"
                stdout.print(plain(words))
        if not quiet:
            notes = [f"{curve.arm}: {curve.why}" for curve in each.curves if curve.why]
            for note in (*each.warnings, *notes, *list_beyond(each)):
                stderr.print(plain(f"note: {note}"))
    if scalings[0].left_out and not quiet:
        stderr.print(plain(f"left out, too few budgets or sizes: {len(scalings[0].left_out)} runs"))


def _to_json(scaling: Scaling) -> dict[str, Any]:
    """The dataclass, its laws without what only drawing needs."""
    record = dataclasses.asdict(scaling)
    for curve in record["curves"]:
        if curve["law"] is not None:
            for name in ("points", "limit", "alphas", "notes"):
                del curve["law"][name]
    return record
