"""glu-bench sweep: every combination of swept values."""

from __future__ import annotations

from typing import Annotated

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


def sweep(
    settings: Settings = None,
    *,
    name: Annotated[
        str | None, typer.Option("--name", help="The sweep's id; by default from its grid.")
    ] = None,
    n_parallel: Annotated[int, typer.Option("-j", min=1, help="Runs at a time; cores are shared out.")] = 1,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan and stop.")] = False,
    allow_unmatched: AllowUnmatched = False,
    plugin: Plugins = None,
    config_dir: ConfigDir = None,
    output_dir: OutputDir = OUTPUTS,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Train every combination; finished runs are skipped, so the same command goes on.

    Example: glu-bench sweep variant=relu,gelu,geglu,swiglu seed=0,1 train=quick
    """
    from glu_bench.errors import ConfigError, SweepIncompleteError
    from glu_bench.ffn.plugins import load_plugins
    from glu_bench.launch import check_launcher, split_words
    from glu_bench.show.console import make_stderr, make_stdout, plain, print_json
    from glu_bench.show.sweep import SweepScreen
    from glu_bench.show.tables import render_rows
    from glu_bench.study.engine import run_on_engine
    from glu_bench.study.plan import make_plan
    from glu_bench.study.sweep import RunEnded, run_plan

    words, launcher_words = split_words(settings or [])
    if launcher_words:
        engine = check_launcher(launcher_words)
        if n_parallel > 1:
            raise ConfigError(f"-j {n_parallel}: for runs on this machine; {engine} has options of its own")
    load_plugins(plugin or [])
    plan = make_plan(
        words,
        output_dir,
        name=name,
        config_dir=config_dir,
        allow_unmatched=allow_unmatched,
        write=not dry_run,
    )
    if dry_run:
        if as_json:
            runs = [{"run_id": planned.run_id, "words": planned.words} for planned in plan.runs]
            print_json({"sweep_id": plan.sweep_id, "planned": len(runs), "runs": runs})
        else:
            rows = [(p.run_id, plan.run(p).status(), " ".join(p.words)) for p in plan.runs]
            make_stdout().print(render_rows(plan.sweep_id, ("run", "status", "settings"), rows, left=3))
        return
    extra = ["--config-dir", str(config_dir)] if config_dir else []
    extra += ["--allow-unmatched"] if allow_unmatched else []
    extra += [word for path in plugin or [] for word in ("--plugin", str(path.resolve()))]
    ended: list[RunEnded] = []
    stderr = make_stderr()
    events = (
        run_on_engine(plan, launcher_words, extra_words=tuple(extra))
        if launcher_words
        else run_plan(plan, n_parallel=n_parallel, extra_words=tuple(extra))
    )
    with SweepScreen(stderr, plan, quiet) as screen:
        for event in events:
            screen.show(event)
            if isinstance(event, RunEnded):
                ended.append(event)
    failed = [event for event in ended if event.status not in ("complete", "skipped")]
    counts = {status: sum(event.status == status for event in ended) for status in ("complete", "skipped")}
    if as_json:
        print_json(
            {
                "sweep_id": plan.sweep_id,
                "planned": len(plan.runs),
                **counts,
                "failed": [
                    {"run_id": e.planned.run_id, "status": e.status, "reason": e.reason} for e in failed
                ],
            }
        )
    elif not quiet:
        stderr.print(
            plain(
                f"{plan.sweep_id}: {len(plan.runs)} planned, {counts['complete']} trained, "
                f"{counts['skipped']} complete already, {len(failed)} failed"
            )
        )
        stderr.print(plain(f"compare them: glu-bench compare {plan.sweep_id}"))
    if failed:
        lines = [f"  {e.planned.run_id}: {e.status}, {e.reason}; log: {e.log}" for e in failed]
        raise SweepIncompleteError(
            "\n".join([f"{len(failed)} of {len(plan.runs)} runs did not finish", *lines])
        )
