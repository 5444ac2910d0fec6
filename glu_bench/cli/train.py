"""glu-bench train: one run."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from glu_bench.cli.options import (
    OUTPUTS,
    AllowUnmatched,
    AsJson,
    ConfigDir,
    OutputDir,
    Plugins,
    Quiet,
    Settings,
)


def train(
    settings: Settings = None,
    *,
    show_config: Annotated[bool, typer.Option("--cfg", help="Print the configuration and stop.")] = False,
    restart: Annotated[
        bool, typer.Option("--restart", help="Delete what the run has and begin anew.")
    ] = False,
    resume_inexact: Annotated[
        bool, typer.Option("--resume-inexact", help="Resume under other threads or instructions.")
    ] = False,
    allow_unmatched: AllowUnmatched = False,
    plugin: Plugins = None,
    config_dir: ConfigDir = None,
    output_dir: OutputDir = OUTPUTS,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Train one run; the same command resumes it or returns the finished one.

    Example: glu-bench train variant=swiglu model=nano data=stdlib seed=1 train.tokens=2_000_000
    """
    from glu_bench.config import load_config, render_config

    config = load_config(settings or [], config_dir)
    if show_config:
        print(render_config(config), end="")
        return

    from glu_bench.allocator import keep_freed_memory
    from glu_bench.ffn.plugins import load_plugins
    from glu_bench.interop.tracking import Tracking, make_tracker
    from glu_bench.show.console import make_stderr, make_stdout, plain, print_json
    from glu_bench.show.progress import TrainScreen
    from glu_bench.show.tables import render_result
    from glu_bench.train.events import Finished
    from glu_bench.train.loop import train_run
    from glu_bench.train.stop import catch_signals

    load_plugins(plugin or [])
    keep_freed_memory()
    stderr = make_stderr()
    tracker = make_tracker(config.tracker, output_dir)

    def warn(line: str) -> None:
        stderr.print(plain(f"warning: {line}"))

    with (
        catch_signals() as stop,
        TrainScreen(stderr, quiet) as screen,
        Tracking(config.tracker.name, tracker, warn) as tracking,
    ):
        finished: Finished | None = None
        for event in train_run(
            config,
            output_dir,
            stop,
            allow_unmatched=allow_unmatched,
            resume_inexact=resume_inexact,
            restart=restart,
            on_prepare=screen.prepare,
        ):
            screen.show(event)
            tracking.hear(event)
            if isinstance(event, Finished):
                finished = event
    assert finished is not None  # train_run ends with it or raises
    record: dict[str, Any] = {**finished.record, "run_dir": str(finished.run.path)}
    if as_json:
        print_json(record)
        return
    stdout = make_stdout()
    if finished.reused and not quiet:
        stderr.print(plain("already complete; nothing was trained"))
    stdout.print(render_result(record))
    if not quiet:
        short = finished.run.path.name
        stderr.print(plain(f"folder: {finished.run.path}"))
        stderr.print(plain(f"read from it: glu-bench sample {short}"))
