"""glu-bench reproduce: a published table, ours beside it."""

from __future__ import annotations

import dataclasses
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from glu_bench.cli.completion import complete_card, complete_run_or_sweep
from glu_bench.cli.execution import (
    Execution,
    check_ended,
    execute_rest,
    execute_tuning,
    list_options,
    make_limits,
)
from glu_bench.cli.options import (
    AsJson,
    ConfigDir,
    MaxHours,
    NParallel,
    OutputDir,
    Plugins,
    Quiet,
    RetryFailed,
    Settings,
    Widen,
)
from glu_bench.errors import ConfigError, SweepIncompleteError
from glu_bench.files import OUTPUTS

if TYPE_CHECKING:
    from glu_bench.study.plan import Plan
    from glu_bench.study.reproduce import Reproduction, ScaledSweep
    from glu_bench.study.sweep import RunEnded
    from glu_bench.study.tuning import Tuning


def reproduce(
    card: Annotated[
        str | None,
        typer.Argument(
            metavar="CARD", help="A card's name, or a YAML file of your own.", autocompletion=complete_card
        ),
    ] = None,
    settings: Settings = None,
    *,
    scale: Annotated[
        str | None, typer.Option("--scale", help="The size to try it at; by default the card's first.")
    ] = None,
    column: Annotated[
        str | None, typer.Option("--column", help="The table's column; by default the card's first.")
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="The middle of each grid for all arms, in place of tuning.")
    ] = False,
    list_all: Annotated[bool, typer.Option("--list", help="Print the cards, and stop.")] = False,
    from_sweep: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="SWEEP",
            help="Train nothing: a sweep that is there, by its id or folder, published ones too.",
            autocompletion=complete_run_or_sweep,
        ),
    ] = None,
    name: Annotated[
        str | None, typer.Option("--name", help="The sweep's id; by default card and scale.")
    ] = None,
    n_parallel: NParallel = None,
    retry_failed: RetryFailed = False,
    max_hours: MaxHours = None,
    widen: Widen = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what it will cost, and stop.")] = False,
    plugin: Plugins = None,
    config_dir: ConfigDir = None,
    output_dir: OutputDir = OUTPUTS,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Train a published table's arms and set ours beside it.

    A card names the table; its arms are tuned alike, at a scale that this machine can do. Finished runs are
    skipped, so the same command goes on, and in the end only prints. Settings replace the card's.

    Example: glu-bench reproduce shazeer2020 --scale pico --quick

    Example: glu-bench reproduce shazeer2020 --from shazeer2020-nano
    """
    from glu_bench.ffn.plugins import load_plugins
    from glu_bench.show.console import make_stdout, print_json
    from glu_bench.show.reproduce import render_cards
    from glu_bench.study.card import find_column, find_scale, list_cards, load_card
    from glu_bench.study.plan import find_plan
    from glu_bench.study.reproduce import judge_reproduction, make_protocol, read_finished

    if list_all:
        cards = [load_card(each, config_dir) for each in list_cards(config_dir)]
        if as_json:
            print_json({"cards": [dataclasses.asdict(each) for each in cards]})
        else:
            make_stdout().print(render_cards(cards))
        return
    if card is None:
        raise ConfigError(f"which card? there: {', '.join(list_cards(config_dir))}; or a YAML file")
    load_plugins(plugin or [])
    found = load_card(card, config_dir)
    find_column(found, column)  # a mistake is said before anything is trained
    if from_sweep is not None:
        executes = n_parallel is not None or retry_failed or max_hours is not None or widen
        if settings or scale or quick or dry_run or name or executes:
            raise ConfigError(
                f"--from {from_sweep}: trains nothing, so no settings, --scale, --quick, --name, --dry-run, "
                "-j, --retry-failed, --max-hours or --widen"
            )
        plan = find_plan(from_sweep, output_dir)
        result = judge_reproduction(found, column, read_finished(plan), config_dir)
        _print(result, plan, None, from_sweep, as_json, quiet)
        return
    scale_name, chosen = find_scale(found, scale)
    protocol = make_protocol(found, scale_name, chosen, given=settings or [], quick=quick)
    if widen and not protocol.tune:
        why = "--quick" if quick else "these settings"
        raise ConfigError(f"--widen: nothing is tuned with {why}; leave --widen out")
    if name is not None:
        protocol = dataclasses.replace(protocol, name=name)
    if dry_run:
        _show_cost(protocol, output_dir, config_dir, as_json, quiet)
        return
    how = Execution(
        limits=make_limits(retry_failed=retry_failed, max_hours=max_hours),
        n_parallel=n_parallel,
        extra_words=tuple(list_options(plugin, config_dir)),
        quiet=quiet,
    )
    plan, ended = _execute(protocol, how, widen, output_dir, config_dir)
    try:
        result = judge_reproduction(found, column, read_finished(plan), config_dir)
    except ConfigError:
        check_ended(plan, ended)  # why there is nothing to show
        raise
    _print(result, plan, scale_name, plan.sweep_id, as_json, quiet)
    check_ended(plan, ended)


def _print(
    result: Reproduction, plan: Plan, scale: str | None, sweep: str, as_json: bool, quiet: bool
) -> None:
    """Prints it all; `sweep` is what a person may call its runs by."""
    from glu_bench.runs.command import join_words
    from glu_bench.show.console import make_stderr, make_stdout, plain, print_json
    from glu_bench.show.reproduce import print_reproduction

    if as_json:
        print_json({**dataclasses.asdict(result), "scale": scale, "sweep_id": plan.sweep_id})
    else:
        print_reproduction(make_stdout(), result)
        if not quiet:
            stderr = make_stderr()
            for warning in result.warnings:
                stderr.print(plain(f"note: {warning}"))
            place = plan.output_dir if sweep == plan.sweep_id else OUTPUTS
            stderr.print(plain(f"the runs: {join_words('compare', [sweep], place)}"), soft_wrap=True)


def _execute(
    protocol: ScaledSweep, how: Execution, widen: bool, output_dir: Path, config_dir: Path | None
) -> tuple[Plan, list[RunEnded]]:
    """The plan whose runs are compared, and how they ended.

    Raises: SweepIncompleteError if tuning did not come to its end, for nothing is chosen before.
    """
    from glu_bench.study.reproduce import check_protocol

    execute = partial(execute_rest, how=how)
    tuning = _make_tuning(protocol, output_dir, config_dir)
    check_protocol(protocol, output_dir, config_dir)
    if tuning is None:
        plan = _plan(protocol, None, output_dir, config_dir, write=True)
    else:
        try:
            # a value that diverges is a finding of the tuning; one that was not tried is none
            plan = execute_tuning(tuning, execute, widen=widen, accepted=("diverged",), quiet=how.quiet)
        except SweepIncompleteError as error:
            raise SweepIncompleteError(f"tuning: {error}") from None
    return plan, execute(plan)


def _make_tuning(protocol: ScaledSweep, output_dir: Path, config_dir: Path | None) -> Tuning | None:
    from glu_bench.study.tuning import Tuning, make_request

    if not protocol.tune:
        return None
    request = make_request(protocol.words, protocol.tune, protocol.tune_seeds, config_dir)
    return Tuning(request=request, output_dir=output_dir, name=protocol.name, config_dir=config_dir)


def _plan(
    protocol: ScaledSweep, tuning: Tuning | None, output_dir: Path, config_dir: Path | None, write: bool
) -> Plan:
    """The tuning's plan, or without one that of the runs themselves."""
    from glu_bench.study.plan import has_plan, make_plan

    if tuning is not None:
        return tuning.plan(write=write)
    return make_plan(
        protocol.words,
        output_dir,
        name=protocol.name,
        config_dir=config_dir,
        extend=has_plan(output_dir, protocol.name),
        write=write,
    )


def _show_cost(
    protocol: ScaledSweep, output_dir: Path, config_dir: Path | None, as_json: bool, quiet: bool
) -> None:
    """What is left to do, a stage a row."""
    from glu_bench.cost.estimate import estimate_stages
    from glu_bench.show.console import make_stderr, make_stdout, plain, print_json
    from glu_bench.show.reproduce import render_stages
    from glu_bench.study.plan import plan_cells
    from glu_bench.study.reproduce import check_protocol, list_stand_ins
    from glu_bench.study.tuning import choose_values, list_confirmations, take_in

    tuning = _make_tuning(protocol, output_dir, config_dir)
    check_protocol(protocol, output_dir, config_dir)
    plan = _plan(protocol, tuning, output_dir, config_dir, write=False)
    plans = {"confirm" if tuning is None else "tune": plan}
    if tuning is not None:
        is_tuned = all(plan.run(planned).outcome() in ("complete", "diverged") for planned in plan.runs)
        request = take_in(tuning.request, plan)
        choices = choose_values(plan, request) if is_tuned else list_stand_ins(request, plan)
        cells = list_confirmations(request, choices, config_dir)
        plans["confirm"] = plan_cells(cells, output_dir, write=False)
    if not quiet:
        make_stderr().print(plain("timing a few steps of each shape …"))
    stages = estimate_stages(plans, config_dir, calibrate=not quiet)
    if as_json:
        listed = [dataclasses.asdict(stage) for stage in stages]
        print_json({"sweep_id": protocol.name, "settings": protocol.words, "stages": listed})
        return
    make_stdout().print(render_stages(protocol.name, stages))
    words = [*protocol.words, *(f"tune {word}" for word in protocol.tune)]
    make_stdout().print(plain(f"settings: {' '.join(words)}"))
