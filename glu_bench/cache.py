"""The folder for what is made once and used by many runs: prepared tokens, compiled graphs."""

from __future__ import annotations

import hashlib
import os
import platform
from pathlib import Path

GRAPHS = "TORCHINDUCTOR_CACHE_DIR"  # torch reads it when it first compiles


def find_cache() -> Path:
    """GLU_BENCH_CACHE, else the user's cache folder."""
    import platformdirs

    given = os.environ.get("GLU_BENCH_CACHE")
    return Path(given) if given else Path(platformdirs.user_cache_dir("glu-bench"))


def keep_compiled_graphs() -> Path | None:
    """Where torch keeps compiled graphs from now on, in this process and its children; None: its own choice.

    A folder that the environment already names is left as it is. torch's own choice lies in the
    folder for temporary files, where a restart of the machine may clear it. Kernels are built for
    one kind of processor, and a cache may be seen by machines of several: each kind has its own.
    Call at the start of a process that may compile: torch makes its own choice when parts of it are imported.
    """
    if GRAPHS not in os.environ:
        folder = find_cache().absolute() / "compiled" / _describe_cpu()
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError:  # no place to write: torch then takes its own
            return None
        os.environ[GRAPHS] = str(folder)
    return Path(os.environ[GRAPHS])


def _describe_cpu() -> str:
    """Twelve digits that differ where compiled kernels may not run: model and instructions."""
    facts = [platform.system(), platform.machine()]
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    for name in ("model name", "flags", "Features"):
        facts += [line for line in lines if line.split(":")[0].strip() == name][:1]
    return hashlib.sha256("\n".join(facts).encode()).hexdigest()[:12]
