"""glu-bench status: what runs, what is left, what failed."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from glu_bench.cli.completion import complete_sweep
from glu_bench.cli.options import AsJson, OutputDir, Quiet
from glu_bench.files import OUTPUTS


def status(
    sweep: Annotated[
        str | None,
        typer.Argument(
            metavar="SWEEP", help="A sweep's id; without one, all sweeps.", autocompletion=complete_sweep
        ),
    ] = None,
    *,
    output_dir: OutputDir = OUTPUTS,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Say how far sweeps are, from what is on disk.

    A run is planned, running, complete, diverged, interrupted or failed.

    Example: glu-bench status
    """
    from glu_bench.runs.record import read_number
    from glu_bench.show.console import make_stdout, plain, print_json
    from glu_bench.show.numbers import fixed, si
    from glu_bench.show.tables import render_rows
    from glu_bench.study.plan import find_plan, list_plans

    plans = [find_plan(sweep, output_dir)] if sweep else list_plans(output_dir)
    found: list[dict[str, Any]] = []
    for plan in plans:
        runs = []
        for planned in plan.runs:
            run = plan.run(planned)
            rows = run.rows() if run.path.exists() else []
            last = rows[-1] if rows else {}
            runs.append(
                {
                    "run_id": planned.run_id,
                    "status": run.status(),
                    "step": last.get("step", 0),
                    **{
                        name: read_number(last.get(name)) for name in ("n_steps", "loss_nats", "tokens_per_s")
                    },
                    "reason": (run.failure() or {}).get("reason") if run.path.exists() else None,
                }
            )
        found.append({"sweep_id": plan.sweep_id, "planned": len(runs), "runs": runs})
    if as_json:
        print_json({"sweeps": found})
        return
    stdout = make_stdout()
    if not found and not quiet:
        stdout.print(plain(f"no sweeps under {output_dir}/sweeps"))
    for entry in found:
        lines = [
            (
                r["run_id"],
                r["status"] + (f": {r['reason']}" if r["reason"] else ""),
                f"{r['step']}/{r['n_steps'] or '-'}",
                fixed(r["loss_nats"]),
                si(r["tokens_per_s"]),
            )
            for r in entry["runs"]
        ]
        n_complete = sum(r["status"] == "complete" for r in entry["runs"])
        title = f"{entry['sweep_id']}: {n_complete} of {entry['planned']} complete"
        stdout.print(render_rows(title, ("run", "status", "step", "loss", "tokens/s"), lines, left=2))
