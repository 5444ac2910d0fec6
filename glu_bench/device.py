"""Where a run computes and in which precision: `auto` becomes a fact before anything is hashed."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import os
import shutil
from collections.abc import Iterator
from contextlib import AbstractContextManager

import torch

from glu_bench import schema
from glu_bench.errors import ConfigError, DeviceError
from glu_bench.rules import DEVICE

# dense bf16 FLOP/s, of tensor cores without sparsity and summing in fp32, by the name that the driver
# gives. Sources: NVIDIA's data sheets of A100 (2021), H100, H200, A30, A10, L4, L40S; white papers of
# Ampere GA102 and Ada. Where a sheet gives the sparse figure it is halved. A slice of a GPU (MIG), a
# laptop's or another market's version has a name and a peak of its own, so no part of a name counts.
PEAKS_BF16 = {
    "NVIDIA A100-SXM4-40GB": 312e12,
    "NVIDIA A100-SXM4-80GB": 312e12,
    "NVIDIA A100-PCIE-40GB": 312e12,
    "NVIDIA A100 80GB PCIe": 312e12,
    "NVIDIA H100 80GB HBM3": 989.5e12,  # 1979 sparse
    "NVIDIA H100 PCIe": 756.5e12,  # 1513 sparse
    "NVIDIA H100 NVL": 835.5e12,  # 1671 sparse
    "NVIDIA H200": 989.5e12,
    "NVIDIA H200 NVL": 835.5e12,
    "NVIDIA A30": 165e12,
    "NVIDIA A10": 125e12,
    "NVIDIA L4": 121e12,  # 242 sparse
    "NVIDIA L40S": 362e12,
    "NVIDIA RTX A6000": 154.8e12,
    "NVIDIA GeForce RTX 3090": 71e12,
    "NVIDIA GeForce RTX 4090": 165.2e12,
}


def find_peak(device: str, precision: str) -> float | None:
    """FLOP/s of matrix multiplies that a device can reach at most; None where no source is at hand."""
    if not device.startswith("cuda") or precision != "bf16":
        return None
    return PEAKS_BF16.get(torch.cuda.get_device_name(device))


def keep_fp32_exact() -> None:
    """Make fp32 mean fp32: no matrix multiply of fp32 tensors goes through tf32 or bf16 in this process.

    That is torch's default, but the environment and earlier code may have changed it. What is to be
    fast is trained in bf16, which says so in its settings and its run id.
    """
    torch.set_float32_matmul_precision("highest")


def repeat_bits() -> None:
    """Have torch choose algorithms that give the same bits each time, in this process from now on.

    What has no such algorithm raises, see `explain_unrepeatable`. A CPU takes the algorithms that it
    takes anyway. Call before the first computation on a GPU.
    Source: torch's notes on reproducibility, for both variables.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    os.environ.setdefault("TORCHINDUCTOR_DETERMINISTIC", "1")  # no kernel chosen by a stopwatch
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False


@contextlib.contextmanager
def explain_unrepeatable() -> Iterator[None]:
    """Turn torch's refusal of an operation under `repeat_bits` into DeviceError."""
    try:
        yield
    except RuntimeError as error:
        operation, found, _ = str(error).partition(" does not have a deterministic implementation")
        if not found:
            raise
        raise DeviceError(
            f"--deterministic: torch has no algorithm for {operation} here that gives the same bits each time"
        ) from None


def resolve_train(train: schema.Train) -> tuple[schema.Train, list[str]]:
    """The same settings with device, precision and compile decided, and remarks for a person.

    Raises: DeviceError for a device, precision or compiler that was asked for and is not there.
    """
    remarks = []
    device = resolve_device(train.device)
    precision = train.precision
    if precision == "auto":
        precision = "bf16" if has_bf16(device) else "fp32"
    elif precision == "bf16" and not has_bf16(device):
        raise DeviceError(f"train.precision=bf16: {device} has no fast bf16 here; use fp32 or auto")
    compiled = train.compile
    missing = find_missing_compiler(device)
    if compiled == "auto":
        compiled = "false" if missing else "true"
        if missing:
            remarks.append(f"running eagerly: {missing}")
    elif compiled == "true" and missing:
        raise DeviceError(f"train.compile=true: {missing}")
    return dataclasses.replace(train, device=device, precision=precision, compile=compiled), remarks


def resolve_device(wanted: str) -> str:
    """cpu, mps, or cuda:N.

    Raises: ConfigError for a word that is no device; DeviceError if it is not there (nothing else
    is taken in its place).
    """
    if not DEVICE.fullmatch(wanted):
        raise ConfigError(f"{wanted}: no device; one of auto, cpu, cuda, cuda:N, mps")
    if wanted == "auto":
        if torch.cuda.is_available():
            return "cuda:0"
        return "mps" if torch.backends.mps.is_available() else "cpu"
    if wanted.startswith("cuda"):
        n_devices = torch.cuda.device_count() if torch.cuda.is_available() else 0
        index = int(wanted.partition(":")[2] or 0)
        if index >= n_devices:
            raise DeviceError(
                f"train.device={wanted}: not there, this machine shows {n_devices} CUDA devices"
            )
        return f"cuda:{index}"
    if wanted == "mps" and not torch.backends.mps.is_available():
        raise DeviceError("train.device=mps: not there")
    return wanted


def has_bf16(device: str) -> bool:
    """Whether matrix products in bf16 are done by the hardware."""
    if device.startswith("cuda"):
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device == "cpu":
        # without these instructions bf16 is emulated and slower than fp32
        return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
    return False


def find_missing_compiler(device: str) -> str | None:
    """Why torch.compile cannot work on this device, or None if it can."""
    if device == "mps":
        return "torch.compile is not used on mps"
    if device.startswith("cuda"):
        return (
            None
            if importlib.util.find_spec("triton")
            else "torch.compile needs triton, which is not installed"
        )
    if find_cxx() is not None:
        return None
    return "torch.compile needs a C++ compiler, and there is no g++ or clang++ on the PATH"


def find_cxx() -> str | None:
    """The C++ compiler that torch.compile builds kernels with on a CPU: CXX, else the first of the usual."""
    named = os.environ.get("CXX")
    names = [named] if named else ["g++", "clang++", "c++"]
    return next((found for name in names if (found := shutil.which(name))), None)


def make_autocast(device: str, precision: str) -> AbstractContextManager[object]:
    """The context in which the forward pass runs; weights stay fp32 in either precision."""
    if precision == "fp32":
        return contextlib.nullcontext()
    return torch.autocast(torch.device(device).type, torch.bfloat16)
