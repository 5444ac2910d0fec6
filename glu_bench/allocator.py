"""Memory that a training step frees stays with the process.

glibc gives large blocks back to the system at once, so every step takes the same pages anew,
each with a fault and a page of zeros: about a fifth of a small training step on CPU.
"""

from __future__ import annotations

import ctypes
import sys

# parameters of mallopt, from glibc's malloc.h
M_TRIM_THRESHOLD = -1
M_MMAP_THRESHOLD = -3

NEVER = 2**31 - 1  # bytes free at the top of the heap before it shrinks; the largest int
# blocks below come from the heap, not from mmap: 1 GiB, or the most that older versions take
MMAP_THRESHOLDS = (2**30, 2**25)


def keep_freed_memory() -> bool:
    """Whether glibc now keeps freed memory; False on other systems, where nothing is changed.

    Call once at the start of a process that trains. Its memory then stays at the peak.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:  # musl has none
        return False
    kept = any(mallopt(M_MMAP_THRESHOLD, n_bytes) == 1 for n_bytes in MMAP_THRESHOLDS)
    return mallopt(M_TRIM_THRESHOLD, NEVER) == 1 and kept
