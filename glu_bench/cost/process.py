"""What one command costs, run as a person runs it: in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from glu_bench.host import find_max_rss_bytes


@dataclass(frozen=True, kw_only=True)
class Spent:
    """What a process took from its start to its end."""

    elapsed_s: float
    busy_s: float  # of the processor, which other work on the machine stretches less
    peak_bytes: int  # at least what its parent held when it began


def time_command(command: Sequence[str], changes: Mapping[str, str] | None = None) -> Spent:
    """What a command takes, its output thrown away; `changes` go into its environment.

    Raises: CalledProcessError if it fails.
    """
    package = str(Path(__file__).resolve().parents[2])
    paths = [package, *filter(None, [os.environ.get("PYTHONPATH")])]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), **(changes or {})}
    began = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, env=env)
    _, status, usage = os.wait4(process.pid, 0)
    elapsed_s = time.perf_counter() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return Spent(
        elapsed_s=elapsed_s,
        busy_s=usage.ru_utime + usage.ru_stime,
        peak_bytes=find_max_rss_bytes(usage),
    )


def glu_bench_command(*words: str) -> list[str]:
    """`glu-bench WORDS` by this interpreter and from this folder of the package."""
    return [sys.executable, "-m", "glu_bench", *words]
