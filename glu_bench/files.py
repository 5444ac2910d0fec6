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
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from glu_bench.errors import BusyError, ConfigError, DataError, ResourceError
from glu_bench.faults import reach

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
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
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


def remove_strays(folder: Path) -> None:
    """Delete what a process was writing in a folder when it was killed: files, and folders of them."""
    for stray in folder.glob(".*.tmp"):
        pid = stray.name.split(".")[-2]
        if not pid.isdecimal() or _is_alive(int(pid)):
            continue
        if stray.is_dir() and not stray.is_symlink():
            shutil.rmtree(stray, ignore_errors=True)
        else:
            stray.unlink(missing_ok=True)


def _is_alive(pid: int) -> bool:
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
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise ResourceError(_disk_message(path, n_bytes)) from None
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST):
            raise ConfigError(f"{path}: cannot write there ({error.strerror})") from None
        if error.errno in (errno.ENAMETOOLONG, errno.EISDIR):
            raise ConfigError(f"{path}: not a usable name ({error.strerror})") from None
        raise
    except Exception as error:
        words = str(error).lower()
        if "no space left" in words or "file too large" in words or "quota exceeded" in words:
            raise ResourceError(_disk_message(path, n_bytes)) from None
        raise


def _disk_message(path: Path, n_bytes: int | None) -> str:
    needed = f", {n_bytes:,} bytes needed" if n_bytes is not None else ""
    existing = next(folder for folder in (path, *path.parents) if folder.exists())
    return f"{path}: the disk is full{needed}, {shutil.disk_usage(existing).free:,} bytes free"


def read_umask() -> int:
    """The permission bits that new files of this process do not get."""
    mask = os.umask(0)  # the only way to read it is to set it
    os.umask(mask)
    return mask


def make_folder(folder: Path) -> None:
    """Make a folder and its parents, and see that files can be made in it.

    Raises: ConfigError if something else stands there or writing is forbidden.
    """
    with explain_disk(folder):
        folder.mkdir(parents=True, exist_ok=True)
    if not os.access(folder, os.W_OK | os.X_OK):
        raise ConfigError(f"{folder}: cannot write there (permission denied)")


@contextmanager
def hold_lock(folder: Path, *, timeout_s: float = 1.0) -> Iterator[None]:
    """Hold the folder's lock; it is released even if this process is killed.

    Raises: BusyError naming the holder if it cannot be had within `timeout_s` (-1: wait for ever).
    """
    from filelock import FileLock, Timeout

    lock = FileLock(folder / ".lock", timeout=timeout_s)
    holder = folder / ".lock.pid"
    try:
        lock.acquire()
    except Timeout:
        pid = _read_pid(holder)
        raise BusyError(f"{folder}: another process works on it (pid {pid}); wait for it or end it") from None
    try:
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
