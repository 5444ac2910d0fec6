"""Where and with what a run was made: versions, hardware, threads, the commit of the code."""

from __future__ import annotations

import functools
import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

import torch

from glu_bench.device import find_cxx

PACKAGES = ("glu-bench", "torch", "numpy", "datasets", "hydra-core", "omegaconf", "safetensors", "scipy")


def read_environment(device: str, compiled: bool = False) -> dict[str, Any]:
    """Facts about this process and machine that may explain a difference in results.

    `deterministic` says whether torch was held to algorithms that give the same bits each time,
    `bits_depend_on` which of these facts may change the last bits elsewhere all the same.
    """
    facts: dict[str, Any] = {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "versions": {name: _find_version(name) for name in PACKAGES},
        "cpu": _read_cpu_name(),
        "n_cores": os.cpu_count(),
        "n_threads": torch.get_num_threads(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "device": device,
        "fp32_matmul": torch.backends.cuda.matmul.fp32_precision,  # ieee: no tf32
        **_read_commit(),
    }
    depends = ["cpu", "cpu_capability", "n_threads", "versions.torch", "versions.numpy"]
    if device.startswith("cuda"):
        facts |= _read_gpu(device)
        depends += ["gpu", "cuda", "cudnn"]
    elif compiled:
        facts["compiler"] = _read_compiler()
        depends.append("compiler")
    facts["deterministic"] = torch.are_deterministic_algorithms_enabled()
    facts["bits_depend_on"] = depends
    return facts


def read_numerics(device: str = "cpu", compiled: bool = False) -> dict[str, Any]:
    """What changes the last bits of a sum in this process: a resume under other values is not exact."""
    numerics: dict[str, Any] = {
        "device": device.partition(":")[0],
        "n_threads": torch.get_num_threads(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "torch": torch.__version__,
    }
    if device.startswith("cuda"):
        numerics |= _read_gpu(device) if torch.cuda.is_available() else {}
    else:
        numerics["cpu"] = _read_cpu_name()
        if compiled:
            numerics["compiler"] = _read_compiler()
    used_gpu = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    if used_gpu and torch.are_deterministic_algorithms_enabled():
        numerics["deterministic"] = True  # other algorithms there, the same ones on a CPU
    return numerics


def _read_gpu(device: str) -> dict[str, Any]:
    return {
        "gpu": torch.cuda.get_device_name(device),
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),  # type: ignore[no-untyped-call]
    }


@functools.cache  # asked at every checkpoint
def _read_compiler() -> str | None:
    """The first line of what the C++ compiler says of itself."""
    program = find_cxx()
    if program is None:
        return None
    try:
        done = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.split("\n")[0].strip() or None


def _find_version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


@functools.cache
def _read_cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def _read_commit() -> dict[str, Any]:
    """Commit and dirty flag of the code if it runs from a checkout, else nulls."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return {"git_commit": None, "git_dirty": None}
    try:
        commit = subprocess.run(
            ["git", "-C", str(root), "rev-parse", "HEAD"],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        ).stdout.strip()
        changes = subprocess.run(
            ["git", "-C", str(root), "status", "--porcelain", "glu_bench", "configs"],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return {"git_commit": None, "git_dirty": None}
    return {"git_commit": commit, "git_dirty": bool(changes.strip())}
