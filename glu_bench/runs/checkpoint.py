"""Checkpoints: tensors in safetensors, the rest in JSON, a manifest with the sha256 of each.

A checkpoint is written under another name and renamed when it is whole and durable, so a
folder named step-… is never half of one. What a checksum does not confirm is set aside.
"""

from __future__ import annotations

import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from glu_bench.errors import DataError
from glu_bench.faults import reach
from glu_bench.files import (
    explain_disk,
    fsync_dir,
    fsync_file,
    make_folder,
    read_json,
    read_umask,
    sha256_file,
    write_json,
)
from glu_bench.runs.tensor_file import check_header

NAME = re.compile(r"step-(\d{8})")
FILES = ("model.safetensors", "optimizer.safetensors", "state.json")
FORMAT_VERSION = 1


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint whose files were verified, and what they hold."""

    path: Path
    step: int
    model: dict[str, Tensor]
    optimizer: dict[str, Tensor]
    state: dict[str, Any]


def save_checkpoint(
    folder: Path,
    run_id: str,
    step: int,
    model: dict[str, Tensor],
    optimizer: dict[str, Tensor],
    state: dict[str, Any],
    keep: int,
) -> Path:
    """Write checkpoints/step-NNNNNNNN and delete all but the last `keep` of this run.

    Raises: ResourceError if the disk is full; the earlier checkpoints are then untouched.
    """
    from safetensors.torch import save_file

    make_folder(folder)
    final = folder / f"step-{step:08d}"
    work = folder / f".{final.name}.{os.getpid()}.tmp"
    n_bytes = sum(t.numel() * t.element_size() for group in (model, optimizer) for t in group.values())
    for stray in folder.glob(".step-*.tmp"):  # of a process that was killed; this one holds the lock
        shutil.rmtree(stray, ignore_errors=True)
    try:
        with explain_disk(work, n_bytes):
            work.mkdir()
            save_file(model, work / "model.safetensors")
            reach("ckpt.tmp_half")
            save_file(optimizer, work / "optimizer.safetensors")
            write_json(work / "state.json", state)
            mask = read_umask()
            for name in FILES:
                (work / name).chmod(0o666 & ~mask)  # safetensors writes 0600
                fsync_file(work / name)
            entries = {name: sha256_file(work / name) for name in FILES}
            manifest = {"format_version": FORMAT_VERSION, "run_id": run_id, "step": step, "sha256": entries}
            reach("ckpt.before_manifest")
            write_json(work / "manifest.json", manifest)
            fsync_dir(work)
            if final.exists():  # the same step again, after resuming before it
                shutil.rmtree(final)
            reach("ckpt.before_rename")
            work.rename(final)
            reach("ckpt.after_rename")
            fsync_dir(folder)
    except BaseException:
        shutil.rmtree(work, ignore_errors=True)
        raise
    reach("ckpt.before_purge")
    own = [path for path in list_checkpoints(folder) if _read_run_id(path) == run_id]
    for old in own[:-keep]:
        shutil.rmtree(old)
    return final


def list_checkpoints(folder: Path) -> list[Path]:
    """Checkpoint folders, lowest step first; the step is in the name, times on disk do not matter.

    Raises: DataError if the folder is a link.
    """
    if folder.is_symlink():
        raise DataError(f"{folder}: a link, not a folder of checkpoints")
    if not folder.is_dir():
        return []
    found = [path for path in folder.iterdir() if NAME.fullmatch(path.name) and path.is_dir()]
    return sorted(found, key=lambda path: path.name)


def check_checkpoint(path: Path, run_id: str | None = None) -> int:
    """The step of a checkpoint, every file of which agrees with the manifest; no tensor is read.

    Raises: DataError if a file is missing, altered, a link, or of another run or format.
    """
    if path.is_symlink() or (path / "manifest.json").is_symlink():
        raise DataError(f"{path}: a link, not a checkpoint")
    manifest = read_json(path / "manifest.json")
    step = manifest.get("step")
    named = NAME.fullmatch(path.name)
    if not isinstance(step, int) or (named is not None and int(named[1]) != step):
        raise DataError(f"{path}: the manifest says step {step!r}")
    if manifest.get("format_version") != FORMAT_VERSION:
        raise DataError(
            f"{path}: format version {manifest.get('format_version')}, this glu-bench reads {FORMAT_VERSION}"
        )
    if run_id is not None and manifest.get("run_id") != run_id:
        raise DataError(f"{path}: belongs to run {manifest.get('run_id')}, not to {run_id}")
    checksums = manifest.get("sha256")
    if not isinstance(checksums, dict) or set(checksums) != set(FILES):
        raise DataError(f"{path}: the manifest does not name {', '.join(FILES)}")
    for name in FILES:
        file = path / name
        if file.is_symlink() or not file.is_file():
            raise DataError(f"{file}: missing, or a link")
        if sha256_file(file) != checksums[name]:
            raise DataError(f"{file}: content does not match the manifest")
    return step


def load_checkpoint(path: Path, run_id: str | None = None) -> Checkpoint:
    """Read a checkpoint after verifying every file against the manifest.

    Raises: DataError if a file is missing, altered, a link, or of another run or format.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    step = check_checkpoint(path, run_id)
    for name in ("model.safetensors", "optimizer.safetensors"):
        check_header(path / name)
    try:
        model = load_file(path / "model.safetensors")
        optimizer = load_file(path / "optimizer.safetensors")
    except SafetensorError as error:
        raise DataError(f"{path}: not readable ({error})") from None
    return Checkpoint(path, step, model, optimizer, read_json(path / "state.json"))


def load_latest(folder: Path, run_id: str) -> tuple[Checkpoint | None, list[str]]:
    """The newest checkpoint that verifies, or None if there is none; and why newer ones do not.

    Checkpoints that do not verify are renamed corrupt-…, never deleted.
    Raises: DataError if there are checkpoints and none verifies.
    """
    reasons: list[str] = []
    for path in reversed(list_checkpoints(folder)):
        try:
            return load_checkpoint(path, run_id), reasons
        except DataError as error:
            reasons.append(str(error))
            path.rename(_free_name(folder, f"corrupt-{path.name}"))
    set_aside = sorted(folder.glob("corrupt-*")) if folder.is_dir() else []
    if set_aside and not reasons:
        reasons = [f"{path}: set aside earlier" for path in set_aside]
    if reasons:
        raise DataError("no checkpoint verifies; --restart begins anew:\n  " + "\n  ".join(reasons))
    return None, []


def _read_run_id(path: Path) -> str | None:
    try:
        return str(read_json(path / "manifest.json").get("run_id"))
    except DataError:
        return None


def _free_name(folder: Path, name: str) -> Path:
    candidates = (folder / f"{name}{suffix}" for suffix in ("", *(f"-{i}" for i in range(1, 1000))))
    return next(path for path in candidates if not path.exists())
