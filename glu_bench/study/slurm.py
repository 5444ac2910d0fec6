"""What SLURM still has of a launch, asked of squeue.

squeue needs no accounting, and a job that is queued again never leaves it; submitit learns
states from sacct alone, and gives up on a whole launch at its first killed job.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

SQUEUE_LIMIT_S = 30.0


def list_queued(launch_folder: Path) -> set[int] | None:
    """Numbers of the launch's jobs that wait or run; None if nothing is known at the moment."""
    submitted = (launch_folder / ".submitit").glob("*/*_submitted.pkl")  # ARRAY_NUMBER_…, or JOB_…
    ids = {path.name.split("_")[0] for path in submitted}
    if not ids:
        return None
    # an array's job and its place in it: the last task's own id is that of the array
    command = ["squeue", "--noheader", "--array", "--jobs", ",".join(sorted(ids)), "--format", "%K"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SQUEUE_LIMIT_S, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    if done.returncode:
        return set() if "Invalid job id" in done.stderr else None
    return {int(word) if word.isdigit() else 0 for word in done.stdout.split()}
