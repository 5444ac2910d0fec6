"""The folder for what is made once and used by many runs: prepared tokens, compiled graphs."""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
from collections import defaultdict
from pathlib import Path

GRAPHS = "TORCHINDUCTOR_CACHE_DIR"  # torch reads it when it first compiles
GRAPHS_LIMIT_BYTES = 2 * 2**30  # those of all tests together take 90 MiB
IN_USE = ".in-use"  # locked by each process that keeps graphs, for as long as it lives

_held: dict[Path, int] = {}


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
    Where no other process uses the graphs, those used longest ago go until the rest are within
    GRAPHS_LIMIT_BYTES.
    Call at the start of a process that may compile: torch makes its own choice when parts of it are imported.
    """
    place = find_cache().absolute() / "compiled"
    if GRAPHS not in os.environ:
        folder = place / _describe_cpu()
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError:  # no place to write: torch then takes its own
            return None
        os.environ[GRAPHS] = str(folder)
    found = Path(os.environ[GRAPHS])
    if found.parent == place:  # a parent process of ours may have named it
        _take_up(place, GRAPHS_LIMIT_BYTES)
    return found


def _take_up(place: Path, limit_bytes: int) -> None:
    """Say that this process uses the graphs, until it ends; trim them first if it is the only one."""
    import fcntl

    if place in _held:
        return
    try:
        fd = os.open(place / IN_USE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except OSError:  # nothing can be written there, nor deleted
        return
    _held[place] = fd  # open, and so locked, until the process is gone, however it goes
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # in use; or a disk without locks, where nobody could tell
        pass
    else:
        trim_graphs(place, limit_bytes)
    with contextlib.suppress(OSError):
        fcntl.flock(fd, fcntl.LOCK_SH)


def trim_graphs(place: Path, limit_bytes: int) -> int:
    """The bytes freed by deleting compiled graphs, used longest ago first, until the rest fit.

    Folders that hold files go as a whole: what torch keeps in one belongs together, and it compiles
    again what it does not find. A file was used when it was read, where the disk notes that (Linux
    by default once a day), else when it was made. Nobody else may be using the graphs.
    """
    sizes: dict[str, int] = defaultdict(int)
    used_at: dict[str, float] = defaultdict(float)
    for folder, _, names in os.walk(place):
        for name in names:
            if folder == str(place):
                continue  # the lock
            try:
                info = os.lstat(os.path.join(folder, name))  # noqa: PTH118  (many files)
            except OSError:
                continue
            sizes[folder] += info.st_size
            used_at[folder] = max(used_at[folder], info.st_atime, info.st_mtime)
    total = before = sum(sizes.values())
    for folder in sorted(sizes, key=lambda folder: (used_at[folder], folder)):
        if total <= limit_bytes:
            break
        with contextlib.suppress(OSError):  # somebody else's
            for path in Path(folder).iterdir():
                if not path.is_dir() or path.is_symlink():
                    path.unlink()
            total -= sizes[folder]
            Path(folder).rmdir()  # not if it holds others, which are judged by themselves
    return before - total


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
