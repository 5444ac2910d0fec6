"""Fail points: places where a test makes a process break, and nobody else can.

    GLU_BENCH_TESTING=1 GLU_BENCH_FAULT=step.after_backward:kill9:12 GLU_BENCH_FAULT_RANK=1

breaks the process of rank 1 when it is at that point for the 12th time. Several are separated
by commas, those of one point follow one another; with @swiglu-pico behind it, only a run whose
id begins so. Without GLU_BENCH_TESTING=1 every point is passed in silence.
"""

from __future__ import annotations

import ctypes
import errno
import os
import signal
import time
from collections import Counter

POINTS = (
    "run.begin",
    "rank.end",
    "step.after_backward",
    "eval.after_val",
    "log.half_line",
    "ckpt.begin",
    "ckpt.tmp_half",
    "ckpt.before_manifest",
    "ckpt.before_rename",
    "ckpt.after_rename",
    "ckpt.before_purge",
    "ckpt.purge_half",
    "result.before_rename",
)
ACTIONS = (
    *("kill9", "term", "int", "hup", "stop", "fork", "pause", "sleep"),
    *("raise", "enospc", "exit0", "exit3", "exit9", "leave0", "leave3", "segv", "nan"),
)
PAUSE_S = 10.0  # longer than a test's parallel.timeout_s
SIGNALS = {
    "kill9": signal.SIGKILL,
    "term": signal.SIGTERM,
    "int": signal.SIGINT,
    "hup": signal.SIGHUP,
    "stop": signal.SIGSTOP,
}

_passed: Counter[str] = Counter()
_run_id = ""


def name_run(run_id: str) -> None:
    """Say whose points this process passes from now on."""
    global _run_id  # a process trains one run at a time
    _run_id = run_id


def reach(point: str) -> bool:
    """Break here if a test asked for it; True if the caller is to spoil its number instead (nan).

    Raises: RuntimeError, OSError or SystemExit, whichever was asked for.
    """
    if os.environ.get("GLU_BENCH_TESTING") != "1" or "GLU_BENCH_FAULT" not in os.environ:
        return False
    rank = os.environ.get("GLU_BENCH_FAULT_RANK")
    if rank is not None and rank != os.environ.get("RANK", "0"):
        return False
    _passed[point] += 1
    spoil = False
    for fault in os.environ["GLU_BENCH_FAULT"].split(","):
        what, _, whose = fault.partition("@")
        where, action, nth = (what + ":1").split(":")[:3]
        assert where in POINTS, where
        assert action in ACTIONS, action
        if where == point and _passed[point] == int(nth) and _run_id.startswith(whose):
            spoil |= _break(point, action)
    return spoil


def _break(point: str, action: str) -> bool:
    if action in SIGNALS:
        os.kill(os.getpid(), SIGNALS[action])
    elif action == "raise":
        raise RuntimeError(f"asked to fail at {point}")
    elif action == "enospc":
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    elif action.startswith("exit"):
        os._exit(int(action[-1]))
    elif action.startswith("leave"):  # as sys.exit does, through every `finally`
        raise SystemExit(int(action[-1]))
    elif action == "segv":
        ctypes.string_at(0)
    elif action == "pause":
        time.sleep(PAUSE_S)
    elif action == "sleep" or (action == "fork" and os.fork() == 0):
        time.sleep(3600)
    return action == "nan"
