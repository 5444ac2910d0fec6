"""Fail points: places where a test makes a process break, and nobody else can.

    GLU_BENCH_TESTING=1 GLU_BENCH_FAULT=step.after_backward:kill9:12 GLU_BENCH_FAULT_RANK=1

breaks the process of rank 1 when it is at that point for the 12th time. Without
GLU_BENCH_TESTING=1 every point is passed in silence.
"""

from __future__ import annotations

import errno
import os
import signal
import time
from collections import Counter

POINTS = ("step.after_backward", "ckpt.begin", "ckpt.tmp_half", "ckpt.before_rename")
ACTIONS = ("kill9", "term", "stop", "raise", "enospc", "exit0", "sleep", "nan")
SIGNALS = {"kill9": signal.SIGKILL, "term": signal.SIGTERM, "stop": signal.SIGSTOP}

_passed: Counter[str] = Counter()


def reach(point: str) -> bool:
    """Break here if a test asked for it; True if the caller is to spoil its number instead (nan).

    Raises: RuntimeError or OSError, whichever was asked for.
    """
    if os.environ.get("GLU_BENCH_TESTING") != "1" or "GLU_BENCH_FAULT" not in os.environ:
        return False
    where, action, nth = (os.environ["GLU_BENCH_FAULT"] + ":1").split(":")[:3]
    assert where in POINTS, where
    assert action in ACTIONS, action
    rank = os.environ.get("GLU_BENCH_FAULT_RANK")
    if where != point or (rank is not None and rank != os.environ.get("RANK", "0")):
        return False
    _passed[point] += 1
    if _passed[point] != int(nth):
        return False
    if action in SIGNALS:
        os.kill(os.getpid(), SIGNALS[action])
    elif action == "raise":
        raise RuntimeError(f"asked to fail at {point}")
    elif action == "enospc":
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    elif action == "exit0":
        os._exit(0)
    elif action == "sleep":
        time.sleep(3600)
    return action == "nan"
