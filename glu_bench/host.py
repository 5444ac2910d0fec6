"""What the operating system says of this process: cores that it may use, memory that it held.

Without torch, so that what never computes can ask too.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import resource


def count_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def find_max_rss_bytes(usage: resource.struct_rusage) -> int:
    """The most memory that a process held at once, its resident set, in bytes."""
    return usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)  # Linux counts in KiB
