"""Everything that must be safe on disk: atomic writes, checksums, strict JSON, locks.

A reader sees the old file or the new one, never half of either, even when the process is
killed or the machine loses power: write under a temporary name, fsync, rename, fsync the
folder.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from glu_bench.errors import DISK_FULL, BusyError, ConfigError, DataError, ResourceError
from glu_bench.faults import reach

OUTPUTS = Path("outputs")  # where runs and sweeps lie unless somebody says
JSON_LIMIT_BYTES = 64 * 2**20  # a larger record is not one of ours
MAX_DEPTH = 32  # ours are six deep
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


def fsync_dir(folder: Path) -> None:
    """Make the names inside `folder` durable."""
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def fsync_file(path: Path) -> None:
    """Make the content of `path` durable."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def write_bytes(path: Path, content: bytes) -> None:
    """Write a whole file atomically and durably.

    Raises: ResourceError if the disk is full, ConfigError if the folder takes no files.
    """
    temporary = _hide(path)
    with explain_disk(path, len(content)):
        try:
            with temporary.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            reach(f"{path.stem}.before_rename")
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        fsync_dir(path.parent)


@contextmanager
def write_folder(
    final: Path, n_bytes: int | None = None, *, merge: bool = False, point: str = "folder"
) -> Iterator[Path]:
    """A folder to fill, whose content appears as `final` at the end of the block; nothing stays if it breaks.

    The block makes the files in it durable. With `merge` a `final` that exists keeps its other
    files, and each new one replaces its namesake. `point` begins the names of its fail points.
    Raises: as `write_bytes`.
    """
    merge = merge and final.exists()
    work = final / f".work.{os.getpid()}.tmp" if merge else _hide(final)
    try:
        with explain_disk(final, n_bytes):
            work.mkdir()
        yield work
        with explain_disk(final, n_bytes):
            for inner in [path for path in work.rglob("*") if path.is_dir()]:
                fsync_dir(inner)
            fsync_dir(work)
            reach(f"{point}.before_rename")
            if merge:
                for path in list(work.iterdir()):
                    path.replace(final / path.name)
                work.rmdir()
                fsync_dir(final)
            else:
                work.rename(final)
                reach(f"{point}.after_rename")
            fsync_dir(final.parent)
    except BaseException:
        shutil.rmtree(work, ignore_errors=True)
        raise


def hide_folder(folder: Path) -> Path:
    """The folder under another name, gone for readers at once; deleting it may then be cut short."""
    hidden = folder.with_name(f".{folder.name}.old.{os.getpid()}.tmp")  # beside what replaces it
    with explain_disk(folder):
        folder.rename(hidden)
        fsync_dir(folder.parent)
    return hidden


def _hide(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}.tmp")


def remove_strays(folder: Path, *, alone: bool = False) -> None:
    """Delete what was being written or deleted in a folder when its process was killed.

    `alone`: nobody else can be at it, so what bears the number of a living process goes too.
    """
    for stray in folder.glob(".*.tmp"):
        pid = stray.name.split(".")[-2]
        if not pid.isdecimal() or (is_alive(int(pid)) and not alone):
            continue
        if stray.is_dir() and not stray.is_symlink():
            shutil.rmtree(stray, ignore_errors=True)
        else:
            stray.unlink(missing_ok=True)


def is_alive(pid: int) -> bool:
    """Whether a process of that number runs on this machine."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True  # somebody else's
    return True


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 file atomically and durably."""
    write_bytes(path, text.encode("utf-8"))


def dump_json(value: Any) -> str:
    """Canonical JSON of a value: sorted keys, no NaN, one spelling a value.

    Raises: ValueError for NaN and infinities; callers turn those into null first.
    """
    return json.dumps(value, sort_keys=True, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Write an object as readable strict JSON, atomically."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file.

    Raises: DataError if it is missing, no regular file, too large, torn, not strict JSON or not an
    object.
    """
    try:
        info = path.stat()
        if not stat.S_ISREG(info.st_mode):
            raise DataError(f"{path}: not a regular file")
        if info.st_size > JSON_LIMIT_BYTES:
            raise DataError(f"{path}: larger than {JSON_LIMIT_BYTES // 2**20} MiB, not a record of glu-bench")
        return parse_object(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"{path}: not there") from None
    except (ValueError, RecursionError, OSError) as error:
        raise DataError(f"{path}: not readable as JSON ({error})") from None


def parse_object(text: str) -> dict[str, Any]:
    """The object that a text is, in strict JSON.

    Raises: ValueError for anything else, or what is nested deeper than MAX_DEPTH; RecursionError.
    """
    value = json.loads(text, parse_constant=_refuse_constant)
    if not isinstance(value, dict):
        raise ValueError(f"it holds a {type(value).__name__}, an object was expected")
    if _SURROGATE.search(text):  # half a character, which no file and no screen takes
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    if text.count("{") + text.count("[") > MAX_DEPTH and _is_deep(value):
        raise ValueError(f"nested more than {MAX_DEPTH} deep")
    return value


def _refuse_constant(word: str) -> None:
    raise ValueError(f"{word} is not strict JSON")


def _is_deep(value: Any) -> bool:
    level = [value]
    for _ in range(MAX_DEPTH):
        parts = [each.values() if isinstance(each, dict) else each for each in level]
        level = [inner for part in parts for inner in part if isinstance(inner, dict | list)]
        if not level:
            return False
    return True


def sha256_bytes(content: bytes) -> str:
    """Hex digest of a byte string."""
    return hashlib.sha256(content).hexdigest()


def sha256_file(path: Path) -> str:
    """Hex digest of a file's content, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def explain_disk(path: Path, n_bytes: int | None = None) -> Iterator[None]:
    """Turn a full or forbidden disk into one line that names the path.

    torch and safetensors report a full disk as their own exception types, so the free
    space is asked for as well.
    """
    try:
        yield
    except OSError as error:
        if error.errno in DISK_FULL:
            raise ResourceError(_say_full(path, n_bytes, str(error))) from None
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST):
            raise ConfigError(f"{path}: cannot write there ({error.strerror})") from None
        if error.errno in (errno.ENAMETOOLONG, errno.EISDIR):
            raise ConfigError(f"{path}: not a usable name ({error.strerror})") from None
        raise
    except Exception as error:
        words = str(error).lower()
        if "no space left" in words or "file too large" in words or "quota exceeded" in words:
            raise ResourceError(_say_full(path, n_bytes, words)) from None
        raise


def _say_full(path: Path, n_bytes: int | None, words: str) -> str:
    needed = f", {n_bytes:,} bytes needed" if n_bytes is not None else ""
    limit = "; or this process may write no file so large (ulimit -f)" if "too large" in words.lower() else ""
    existing = next(folder for folder in (path, *path.parents) if folder.exists())
    return f"{path}: the disk is full{needed}, {shutil.disk_usage(existing).free:,} bytes free{limit}"


def apply_umask(file: Path) -> None:
    """Give a file the mode that files of this process have; safetensors writes 0600.

    The mode is that of its folder, which this process has just made: the umask itself can be
    read only by setting it, for all threads.
    """
    file.chmod(file.parent.stat().st_mode & 0o666)


def make_folder(folder: Path) -> None:
    """Make a folder and its parents, and see that files can be made in it.

    Raises: ConfigError if something else stands there or writing is forbidden.
    """
    with explain_disk(folder):
        new = [path for path in (folder, *folder.parents) if not path.exists()]
        folder.mkdir(parents=True, exist_ok=True)
        for path in new:
            with suppress(PermissionError):  # a parent that may be written and not read
                fsync_dir(path.parent)
    if not os.access(folder, os.W_OK | os.X_OK):
        raise ConfigError(f"{folder}: cannot write there (permission denied)")


@contextmanager
def hold_lock(folder: Path, *, timeout_s: float = 1.0) -> Iterator[None]:
    """Hold the folder's lock; it is released even if this process is killed.

    Raises: BusyError naming the holder if it cannot be had within `timeout_s` (-1: wait for ever).
    """
    from filelock import FileLock, Timeout

    lock_path = folder / ".lock"
    lock = FileLock(lock_path, timeout=timeout_s)
    holder = folder / ".lock.pid"
    try:
        with explain_disk(lock_path):
            lock.acquire()
    except Timeout:
        pid = _read_pid(holder)
        raise BusyError(f"{folder}: another process works on it (pid {pid}); wait for it or end it") from None
    try:
        with explain_disk(holder, len(str(os.getpid())) + 1):
            holder.unlink(missing_ok=True)  # of a killed process; or a link, which would lead elsewhere
            holder.write_text(f"{os.getpid()}\n")
        yield
    finally:
        holder.unlink(missing_ok=True)
        lock.release()


def _read_pid(holder: Path) -> str:
    try:
        fd = os.open(holder, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return "unknown"
    with os.fdopen(fd, "rb") as file:
        return file.read(20).decode("ascii", errors="replace").strip() or "unknown"


def is_locked(folder: Path) -> bool:
    """Whether another process holds the folder's lock at this moment; a link or a pipe there is no lock."""
    import fcntl

    try:
        fd = os.open(folder / ".lock", os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(fd)
    return False
