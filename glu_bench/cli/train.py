"""glu-bench train: one run."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from glu_bench.cli.options import (
    AllowUnmatched,
    AsJson,
    ConfigDir,
    Deterministic,
    OutputDir,
    Plugins,
    Quiet,
    Settings,
)
from glu_bench.files import OUTPUTS

if TYPE_CHECKING:
    from glu_bench.schema import Config
    from glu_bench.train.events import Finished


def train(
    settings: Settings = None,
    *,
    show_config: Annotated[
        bool, typer.Option("--cfg", help="Print every key, its value and meaning, and stop.")
    ] = False,
    restart: Annotated[
        bool, typer.Option("--restart", help="Delete what the run has and begin anew.")
    ] = False,
    profile: Annotated[
        bool, typer.Option("--profile", help="Say where the time of a few steps goes, and keep their trace.")
    ] = False,
    resume_inexact: Annotated[
        bool, typer.Option("--resume-inexact", help="Resume under other threads, instructions or processes.")
    ] = False,
    deterministic: Deterministic = False,
    allow_unmatched: AllowUnmatched = False,
    plugin: Plugins = None,
    config_dir: ConfigDir = None,
    output_dir: OutputDir = OUTPUTS,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Train one run, resume it, or return the finished one.

    All three by the same command. `glu-bench train --cfg` prints every key there is to set.

    Example: glu-bench train variant=swiglu model=nano data=stdlib seed=1 train.tokens=2_000_000
    """
    from glu_bench.config import load_config

    words = settings or []
    config = load_config(words, config_dir)
    if show_config:
        from glu_bench.show.configuration import write_meanings

        print(write_meanings(config), end="")
        return

    from glu_bench.ranks import count_ranks, is_rank
    from glu_bench.train.launch import launch_ranks
    from glu_bench.train.reports import end_as_rank

    n_ranks = count_ranks(config.parallel)
    if n_ranks > 1 and not is_rank():
        launch_ranks([sys.executable, "-m", "glu_bench", *sys.argv[1:]], n_ranks, output_dir)
        return
    with end_as_rank(output_dir):
        if n_ranks > 1 and config.parallel.mode == "single":  # under torchrun
            config = load_config(["parallel=ddp", *words], config_dir)
        finished = _run(
            config,
            output_dir,
            plugin or [],
            quiet,
            allow_unmatched=allow_unmatched,
            resume_inexact=resume_inexact,
            restart=restart,
            profile=profile,
            deterministic=deterministic,
        )
        if finished is not None:
            _show(finished, as_json, quiet)


def _run(
    config: Config,
    output_dir: Path,
    plugins: list[Path],
    quiet: bool,
    *,
    allow_unmatched: bool,
    resume_inexact: bool,
    restart: bool,
    profile: bool,
    deterministic: bool,
) -> Finished | None:
    """The run's end; None on a rank that only helps."""
    from glu_bench.allocator import keep_freed_memory
    from glu_bench.cache import keep_compiled_graphs
    from glu_bench.ffn.plugins import load_plugins
    from glu_bench.interop.tracking import Tracking, make_tracker
    from glu_bench.ranks import is_rank, join_ranks
    from glu_bench.show.console import make_stderr, plain
    from glu_bench.show.progress import TrainScreen
    from glu_bench.train.events import Finished
    from glu_bench.train.run import train_run
    from glu_bench.train.stop import catch_signals

    load_plugins(plugins)
    keep_freed_memory()
    keep_compiled_graphs()
    stderr = make_stderr()

    def warn(line: str) -> None:
        stderr.print(plain(f"warning: {line}"))

    with catch_signals(launched=is_rank()) as stop, join_ranks(config.parallel) as ranks:
        name = config.tracker.name if ranks.writes else "none"
        tracker = make_tracker(dataclasses.replace(config.tracker, name=name), output_dir)
        with (
            TrainScreen(stderr, quiet or not ranks.writes) as screen,
            Tracking(name, tracker, warn) as tracking,
        ):
            finished: Finished | None = None
            for event in train_run(
                config,
                output_dir,
                stop,
                allow_unmatched=allow_unmatched,
                resume_inexact=resume_inexact,
                restart=restart,
                profile=profile,
                deterministic=deterministic,
                on_prepare=screen.prepare,
                ranks=ranks,
            ):
                screen.show(event)
                tracking.hear(event)
                if isinstance(event, Finished):
                    finished = event
    return finished


def _show(finished: Finished, as_json: bool, quiet: bool) -> None:
    from glu_bench.runs.command import join_words
    from glu_bench.show.console import make_stderr, make_stdout, plain, print_json
    from glu_bench.show.profile import render_profile
    from glu_bench.show.tables import render_result

    record: dict[str, Any] = {**finished.record, "run_dir": str(finished.run.path)}
    if finished.profile is not None:
        record["profile"] = dataclasses.asdict(finished.profile)
    if as_json:
        print_json(record)
        return
    stdout, stderr = make_stdout(), make_stderr()
    if finished.reused and not quiet:
        stderr.print(plain("already complete; nothing was trained"))
    stdout.print(render_result(record))
    for part in render_profile(finished.profile) if finished.profile else ():
        stdout.print(part)
    if not quiet:
        run = finished.run
        words = [run.path.name]
        for plugin in run.environment().get("plugins", []):
            words += ["--allow-plugin", plugin["name"]]
        stderr.print(plain(f"folder: {run.path}"), soft_wrap=True)
        stderr.print(
            plain(f"read from it: {join_words('sample', words, run.path.parents[1])}"), soft_wrap=True
        )
