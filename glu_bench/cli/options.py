"""Options that commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from glu_bench.cli.completion import complete_run, complete_run_or_sweep, complete_setting

AsJson = Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress, no remarks.")]
OutputDir = Annotated[
    Path, typer.Option("--output-dir", envvar="GLU_BENCH_OUTPUTS", help="Where runs and sweeps lie.")
]
ConfigDir = Annotated[
    Path | None, typer.Option("--config-dir", help="A folder with configuration groups of your own.")
]
Settings = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="KEY=VALUE",
        help="Settings, such as variant=swiglu seed=1.",
        autocompletion=complete_setting,
    ),
]
OneRun = Annotated[
    str,
    typer.Argument(
        metavar="RUN", help="A run id, a prefix of one, or a folder.", autocompletion=complete_run
    ),
]
FinishedRuns = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="RUN/SWEEP/FOLDER",
        help="Ids of runs or sweeps, or folders; nothing: all finished runs.",
        autocompletion=complete_run_or_sweep,
    ),
]
Baseline = Annotated[str | None, typer.Option("--baseline", help="The arm that differences refer to.")]
Arms = Annotated[str, typer.Option("--arms", help="Keys that make an arm, such as variant,match.")]
AllowMixed = Annotated[bool, typer.Option("--allow-mixed", help="One table whatever differs.")]
NParallel = Annotated[
    int | None,
    typer.Option("-j", min=1, help="Runs at a time; by default what a short measurement says."),
]
RetryFailed = Annotated[bool, typer.Option("--retry-failed", help="Try again what failed before.")]
MaxHours = Annotated[
    float | None, typer.Option("--max-hours", min=0, help="Stop after so many hours; go on later.")
]
Widen = Annotated[
    bool,
    typer.Option("--widen", help="Where an arm's best value ends the grid, add one beyond, for all."),
]
AllowUnmatched = Annotated[
    bool, typer.Option("--allow-unmatched", help="Accept an arm over 0.5 % off the baseline's parameters.")
]
Deterministic = Annotated[
    bool,
    typer.Option(
        "--deterministic",
        help="Only algorithms that give the same bits each time; refuse what has none. Slower on a GPU.",
    ),
]
Plugins = Annotated[
    list[Path] | None,
    typer.Option("--plugin", help="A Python file with activation functions of your own; may be repeated."),
]
AllowPlugins = Annotated[
    list[Path] | None,
    typer.Option(
        "--allow-plugin", help="Run this Python file, or installed package, which the run's variant needs."
    ),
]
