"""glu-bench sweep: every combination of swept values."""

from __future__ import annotations

import dataclasses
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from glu_bench.cli.execution import (
    Execution,
    check_ended,
    execute_plan,
    execute_tuning,
    list_options,
    make_limits,
)
from glu_bench.cli.options import (
    AllowUnmatched,
    AsJson,
    ConfigDir,
    Deterministic,
    MaxHours,
    NParallel,
    OutputDir,
    Plugins,
    Quiet,
    RetryFailed,
    Settings,
    Widen,
)
from glu_bench.errors import ConfigError
from glu_bench.files import OUTPUTS

if TYPE_CHECKING:
    from glu_bench.study.plan import Plan
    from glu_bench.study.sweep import RunEnded

TUNE_SEEDS = "100,101"
# a value that so ends is not chosen; one that was not tried to its end could be the best
OUT = ("diverged", "failed", "timeout")


def sweep(
    settings: Settings = None,
    *,
    name: Annotated[
        str | None, typer.Option("--name", help="The sweep's id; by default from its grid.")
    ] = None,
    n_parallel: NParallel = None,
    per_gpu: Annotated[
        int | None, typer.Option("--per-gpu", min=1, help="Runs at a time on each GPU; 1 by default.")
    ] = None,
    retry_failed: RetryFailed = False,
    extend: Annotated[
        bool, typer.Option("--extend", help="Add what is new in the grid to the sweep of that --name.")
    ] = False,
    fail_fast: Annotated[bool, typer.Option("--fail-fast", help="Stop after the first failure.")] = False,
    run_timeout: Annotated[
        float | None, typer.Option("--run-timeout", min=0, help="End a run after so many seconds.")
    ] = None,
    max_hours: MaxHours = None,
    tune: Annotated[
        list[str] | None,
        typer.Option("--tune", help="A key and its values, tried for every arm alike: optim.lr=1e-3,2e-3."),
    ] = None,
    tune_seeds: Annotated[
        str | None,
        typer.Option("--tune-seeds", help=f"Seeds that only tuning uses; {TUNE_SEEDS} by default."),
    ] = None,
    widen: Widen = False,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="Print the plan and what it will cost, after timing a few steps of each shape, and stop.",
        ),
    ] = False,
    deterministic: Deterministic = False,
    allow_unmatched: AllowUnmatched = False,
    plugin: Plugins = None,
    config_dir: ConfigDir = None,
    output_dir: OutputDir = OUTPUTS,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Train every combination of settings; finished ones stay.

    Finished runs are skipped, so the same command goes on where it was stopped.

    Example: glu-bench sweep variant=relu,gelu,geglu,swiglu seed=0,1 train=quick
    """
    from glu_bench.ffn.plugins import load_plugins
    from glu_bench.grid import load_grid
    from glu_bench.launch import check_launcher, split_words
    from glu_bench.show.console import make_stderr, plain
    from glu_bench.study.plan import make_plan
    from glu_bench.study.tuning import Tuning, make_request

    _check_tuning(bool(tune), tune_seeds, widen, extend)
    words, launcher_words = split_words(settings or [])
    if launcher_words:
        engine = check_launcher(launcher_words)
        if n_parallel is not None or per_gpu is not None or fail_fast or max_hours is not None:
            raise ConfigError(
                f"-j, --per-gpu, --fail-fast, --max-hours: for this machine; {engine} has options of its own"
            )
    load_plugins(plugin or [])
    options = list_options(plugin, allow_unmatched=allow_unmatched, deterministic=deterministic)
    how = Execution(
        limits=make_limits(
            retry_failed=retry_failed, max_hours=max_hours, fail_fast=fail_fast, run_timeout_s=run_timeout
        ),
        n_parallel=n_parallel,
        per_gpu=1 if per_gpu is None else per_gpu,
        launcher_words=launcher_words,
        extra_words=(*options, *list_options(config_dir=config_dir)),
        quiet=quiet,
    )
    if tune:
        request = make_request(
            words, tune, _read_seeds(TUNE_SEEDS if tune_seeds is None else tune_seeds), config_dir
        )
        tuning = Tuning(
            request=request,
            output_dir=output_dir,
            name=name or request.name,
            config_dir=config_dir,
            allow_unmatched=allow_unmatched,
        )
        if dry_run:
            _show_plan(tuning.plan(write=False), config_dir, options, as_json, quiet)
            if not quiet:
                n_runs = sum(1 for _ in load_grid(words, config_dir))
                make_stderr().print(plain(f"then {n_runs} runs at the chosen values, not in this list"))
            return
        execute = partial(execute_plan, how=how)
        plan = execute_tuning(tuning, execute, widen=widen, accepted=OUT, quiet=quiet)
    else:
        plan = make_plan(
            words,
            output_dir,
            name=name,
            config_dir=config_dir,
            allow_unmatched=allow_unmatched,
            extend=extend,
            write=not dry_run,
        )
    if dry_run:
        _show_plan(plan, config_dir, options, as_json, quiet)
        return
    _report(plan, execute_plan(plan, how), as_json, quiet)


def _check_tuning(is_tuned: bool, tune_seeds: str | None, widen: bool, extend: bool) -> None:
    """Refuse an option that would do nothing. Raises: ConfigError."""
    if is_tuned and extend:
        raise ConfigError(
            "--extend: with --tune a sweep of that --name takes in what is new anyway; leave it out"
        )
    if not is_tuned and tune_seeds is not None:
        raise ConfigError(f"--tune-seeds {tune_seeds}: goes with --tune, such as --tune optim.lr=1e-3,2e-3")
    if not is_tuned and widen:
        raise ConfigError("--widen: goes with --tune, such as --tune optim.lr=1e-3,2e-3")


def _read_seeds(text: str) -> list[int]:
    try:
        return [int(seed) for seed in text.split(",")]
    except ValueError:
        raise ConfigError(f"--tune-seeds {text}: whole numbers, such as 100,101") from None


def _show_plan(plan: Plan, config_dir: Path | None, options: list[str], as_json: bool, quiet: bool) -> None:
    """The plan and what is left of it will cost; with --json a command a run for any scheduler.

    Each sets every key, so it makes the planned run whatever configs/ says by then.
    """
    from glu_bench.cost.estimate import Estimate, estimate_runs, sum_stage
    from glu_bench.grid import with_words
    from glu_bench.show.console import make_stderr, make_stdout, plain, print_json
    from glu_bench.show.numbers import binary_size, duration, si
    from glu_bench.show.tables import render_rows
    from glu_bench.study.plan import resolve_run
    from glu_bench.study.slots import Slot
    from glu_bench.study.sweep import list_words
    from glu_bench.words import spell_config

    configs = {planned: resolve_run(plan, planned, config_dir) for planned in plan.runs}
    pending = [planned for planned in plan.runs if plan.run(planned).outcome() != "complete"]
    if not quiet:
        make_stderr().print(plain("timing a few steps of each shape …"))
    shapes = [configs[planned] for planned in pending]
    estimates = dict(zip(pending, estimate_runs(shapes, calibrate=not quiet), strict=True))
    output_dir = str(plan.output_dir.resolve())
    done = Estimate(flops=0, elapsed_s=0.0, disk_bytes=0)
    listed, rows = [], []
    for planned in plan.runs:
        run, found = plan.run(planned), estimates.get(planned)
        status = run.status()
        threads = list_words(run, planned, Slot())[len(planned.words) :]
        settings = spell_config(with_words(configs[planned], threads))
        command = ["glu-bench", "train", *settings, *options, "--output-dir", output_dir, "--quiet"]
        entry = {"run_id": planned.run_id, "status": status, "words": planned.words, "command": command}
        listed.append(entry | dataclasses.asdict(found or done))
        cells = (
            (si(found.flops), duration(found.elapsed_s), binary_size(found.disk_bytes))
            if found
            else ("", "", "")
        )
        rows.append((planned.run_id, status, " ".join(planned.words), *cells))
    total = sum_stage(plan.sweep_id, len(plan.runs), list(estimates.values()), calibrate=not quiet)
    if as_json:
        told = dataclasses.asdict(total)
        print_json({"sweep_id": told.pop("stage"), **told, "runs": listed})
        return
    columns = ("run", "status", "settings", "FLOPs", "time", "disk")
    make_stdout().print(render_rows(plan.sweep_id, columns, rows, left=3))
    left = f"{total.pending} of {total.planned} runs left: {si(total.flops)} FLOPs"
    rest = f"{duration(total.elapsed_s)} one by one on this machine, {binary_size(total.disk_bytes)}"
    make_stdout().print(plain(f"{left}, {rest} of checkpoints"))


def _report(plan: Plan, ended: list[RunEnded], as_json: bool, quiet: bool) -> None:
    """What became of every run. Raises: SweepIncompleteError naming those that did not finish."""
    from glu_bench.runs.command import join_words
    from glu_bench.show.console import make_stderr, plain, print_json

    failed = [event for event in ended if event.status not in ("complete", "skipped")]
    counts = {status: sum(event.status == status for event in ended) for status in ("complete", "skipped")}
    n_not_begun = len(plan.runs) - len(ended)
    if as_json:
        listed = [{"run_id": e.planned.run_id, "status": e.status, "reason": e.reason} for e in failed]
        totals = {"sweep_id": plan.sweep_id, "planned": len(plan.runs), **counts}
        print_json({**totals, "failed": listed, "not_begun": n_not_begun})
    elif not quiet:
        stderr = make_stderr()
        stderr.print(
            plain(
                f"{plan.sweep_id}: {len(plan.runs)} planned, {counts['complete']} trained, "
                f"{counts['skipped']} complete already, {len(failed)} failed"
                + (f", {n_not_begun} not begun" if n_not_begun else "")
            )
        )
        stderr.print(
            plain(f"compare them: {join_words('compare', [plan.sweep_id], plan.output_dir)}"), soft_wrap=True
        )
    check_ended(plan, ended)
