"""What the operating system says of this process: cores that it may use, memory that it held.

Without torch, so that what never computes can ask too.
"""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import resource


def count_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def read_peak_rss_bytes() -> int:
    """The most memory that this process has held at once, its resident set, in bytes.

    Linux's ru_maxrss would begin at what the parent held; VmHWM begins at 0 with a program.
    """
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024  # "VmHWM:    642688 kB"
    import resource

    return find_max_rss_bytes(resource.getrusage(resource.RUSAGE_SELF))


def find_max_rss_bytes(usage: resource.struct_rusage) -> int:
    """The most memory that a process held at once, or on Linux its parent as it began, in bytes."""
    return usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)  # Linux counts in KiB
