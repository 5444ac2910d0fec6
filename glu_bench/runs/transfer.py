"""Finished runs from another machine, taken in without trusting them.

Nothing is followed, executed or kept that does not belong to a run: the tree may hold regular
files of known names and bounded sizes alone. It is verified where it lies, copied under a
hidden name, verified again there and renamed, so what appears under runs/ is whole.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from glu_bench.errors import ConfigError, DataError
from glu_bench.files import (
    JSON_LIMIT_BYTES,
    explain_disk,
    fsync_file,
    hold_lock,
    make_folder,
    remove_strays,
    sha256_file,
    write_folder,
)
from glu_bench.runs.checkpoint import FILES, NAME
from glu_bench.runs.folder import Run
from glu_bench.runs.integrity import verify_run

# a larger file is refused before it is read; tensors: 16 G parameters in fp32
SIZE_LIMITS = {
    "config.yaml": 2**20,
    "environment.json": JSON_LIMIT_BYTES,
    "tokenizer.json": 2**28,
    "metrics.jsonl": 2**30,
    "result.json": JSON_LIMIT_BYTES,
    "blocks.safetensors": 2**34,
    "manifest.json": JSON_LIMIT_BYTES,
    "state.json": JSON_LIMIT_BYTES,
    "model.safetensors": 2**36,
    "optimizer.safetensors": 2**37,
}
NEEDED = ("config.yaml", "environment.json", "metrics.jsonl", "result.json", "blocks.safetensors")
OPTIONAL = ("tokenizer.json",)  # the byte tokenizer needs none
LEFT_BEHIND = (".lock", ".lock.pid", "failure.json", "trace.json.gz")  # of the other machine's process
MAX_CHECKPOINTS = 1000
READ_BYTES = 2**20


@dataclass(frozen=True)
class Transfer:
    """What became of one foreign run folder: imported, present, unfinished or refused, and why."""

    source: Path
    run_id: str | None
    status: str
    reason: str | None


def find_foreign(folder: Path) -> list[Path]:
    """Run folders at or below a folder: itself, its children, or those of its runs/.

    Raises: ConfigError if there is no run folder.
    """
    if (folder / "config.yaml").is_file():
        return [folder]
    for parent in (folder / "runs", folder):
        if parent.is_dir():
            inner = sorted(path for path in parent.iterdir() if not path.name.startswith("."))
            found = [path for path in inner if (path / "config.yaml").is_file() or path.is_symlink()]
            if found:
                return found
    raise ConfigError(f"{folder}: no run folder there, nor in it, nor in its runs/")


def import_runs(folders: list[Path], output_dir: Path) -> Iterator[Transfer]:
    """Take in each run that verifies; one that does not keeps no other out.

    Raises: ConfigError if nothing can be written; ResourceError if the disk is full.
    """
    runs = output_dir / "runs"
    make_folder(runs)
    with hold_lock(runs):
        remove_strays(runs)  # of an import that was killed
        for folder in folders:
            yield _import_run(folder, runs)


def list_run_files(folder: Path) -> list[Path]:
    """Every file of a run, relative to its folder; a look at names, kinds and sizes, not at content.

    Raises: DataError for a link, anything but a regular file, an unknown name or an absurd size.
    """
    _check_folder(folder)
    found = []
    for path in sorted(folder.iterdir()):
        if path.name == "checkpoints":
            _check_folder(path)
            found += [inner.relative_to(folder) for inner in _list_checkpoint_files(path)]
        elif not _stays_behind(path):
            _check_file(path, (*NEEDED, *OPTIONAL))
            found.append(path.relative_to(folder))
    for name in NEEDED:
        if Path(name) not in found:
            raise DataError(f"{folder}: has no {name}")
    return found


def _list_checkpoint_files(folder: Path) -> Iterator[Path]:
    steps = sorted(folder.iterdir())
    if len(steps) > MAX_CHECKPOINTS:
        raise DataError(f"{folder}: {len(steps)} entries, at most {MAX_CHECKPOINTS} are taken")
    for step in steps:
        if _stays_behind(step):
            continue
        if not NAME.fullmatch(step.name):
            raise DataError(f"{step}: does not belong to a run")
        _check_folder(step)
        for path in sorted(step.iterdir()):
            _check_file(path, (*FILES, "manifest.json"))
            yield path


def _stays_behind(path: Path) -> bool:
    """Whether it may lie in a run folder without being part of the result: it is never opened."""
    torn = path.name.startswith(".") and path.name.endswith(".tmp")
    return torn or path.name in LEFT_BEHIND or path.name.startswith("corrupt-step-")


def _check_folder(path: Path) -> None:
    if path.is_symlink() or not path.is_dir():
        raise DataError(f"{path}: a link, or not a folder")


def _check_file(path: Path, allowed: tuple[str, ...]) -> None:
    if path.name not in allowed:
        raise DataError(f"{path}: does not belong to a run")
    info = path.lstat()
    if not stat.S_ISREG(info.st_mode):
        raise DataError(f"{path}: not a regular file")
    if info.st_size > SIZE_LIMITS[path.name]:
        raise DataError(f"{path}: {info.st_size:,} bytes, at most {SIZE_LIMITS[path.name]:,} are taken")


def _import_run(source: Path, runs: Path) -> Transfer:
    try:
        if not source.is_symlink() and not (source / "result.json").exists():
            return Transfer(source, None, "unfinished", "there is no result.json")
        files = list_run_files(source)
        run_id = _verify(source)
        final = runs / run_id
        if final.is_symlink() or final.exists():
            difference = _find_difference(source, final, files)
            if difference:
                raise DataError(f"{final}: is there already and differs in {difference}")
            return Transfer(source, run_id, "present", None)
        _copy_run(source, final, files)
    except DataError as error:
        return Transfer(source, None, "refused", str(error))
    except OSError as error:  # explain_disk has turned what is wrong on our side into other classes
        return Transfer(source, None, "refused", f"{error.filename or source}: {error.strerror}")
    return Transfer(source, run_id, "imported", None)


def _verify(folder: Path) -> str:
    """The run's id once everything agrees.

    Raises: DataError with the first thing that does not.
    """
    run = Run(folder)
    problems = verify_run(run)
    if problems:
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise DataError(problems[0] + more)
    return run.run_id


def _find_difference(source: Path, final: Path, files: list[Path]) -> str | None:
    """The first file that both have with another content, or that a finished run must have."""
    _check_folder(final)
    for file in files:
        here = final / file
        if here.is_symlink() or (not here.exists() and str(file) in NEEDED):
            return f"{file}"
        if here.is_file() and sha256_file(here) != sha256_file(source / file):
            return f"{file}"
    return None


def _copy_run(source: Path, final: Path, files: list[Path]) -> None:
    n_bytes = sum((source / file).lstat().st_size for file in files)
    with write_folder(final, n_bytes) as work:
        with explain_disk(work):
            for file in files:
                (work / file).parent.mkdir(parents=True, exist_ok=True)
        for file in files:
            _copy_file(source / file, work / file)
        _verify(work)  # the source may have changed since


def _copy_file(source: Path, target: Path) -> None:
    """Copy at most the size limit of a file, following no link."""
    fd = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    with os.fdopen(fd, "rb") as reader:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise DataError(f"{source}: not a regular file")
        left = SIZE_LIMITS[source.name]
        with explain_disk(target), target.open("wb") as writer:
            while piece := reader.read(READ_BYTES):
                left -= len(piece)
                if left < 0:
                    raise DataError(f"{source}: grew while it was copied")
                writer.write(piece)
        with explain_disk(target):
            fsync_file(target)
