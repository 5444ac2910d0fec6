"""Options that commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from glu_bench.cli.completion import complete_setting

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
