"""A sweep's results as small text: its runs and those of its tuning, with the plans of both."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from glu_bench.runs.folder import Run
from glu_bench.runs.publish import is_published, publish_run
from glu_bench.study.plan import Plan
from glu_bench.study.tuning import copy_plan, list_parts

# n_tokens and summary of a run's last checkpoint; None if nothing is to be said of it
Inspect = Callable[[Run], Mapping[str, Any] | None]


@dataclass(frozen=True, kw_only=True)
class Published:
    """What was done, and what waits."""

    folder: Path
    done: list[str]  # ids of the runs published now
    left: list[str]  # ids of those that have not come to an end


def publish_sweep(plan: Plan, to: Path, inspect: Inspect, evaluations_only: bool = False) -> Published:
    """What was published to a folder named after the sweep; runs that are there already stay as they are.

    `inspect` is asked about the sweep's own runs; of a tuning's the log keeps what the tuning looks at.
    With `evaluations_only` the sweep's own are treated as those of a tuning.
    Raises: DataError for a run that does not agree with its own checksums.
    """
    folder = to / plan.sweep_id
    done: list[str] = []
    left: list[str] = []
    for part in list_parts(plan):
        in_full = part is plan and not evaluations_only
        for planned in part.runs:
            run = part.run(planned)
            if is_published(folder / "runs" / planned.run_id):
                continue
            if not (run.path / "config.yaml").is_file() or run.outcome() not in ("complete", "diverged"):
                left.append(planned.run_id)
                continue
            publish_run(run, folder, inspect(run) if in_full else None, every_row=in_full)
            done.append(planned.run_id)
        copy_plan(part, folder)
    return Published(folder=folder, done=done, left=left)
