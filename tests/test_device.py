"""Where a run computes: `auto` becomes a fact, what is asked for and missing is refused."""

from __future__ import annotations

import shutil

import pytest
import torch

from glu_bench import device as room
from glu_bench.device import (
    PEAKS_BF16,
    find_missing_compiler,
    find_peak,
    keep_fp32_exact,
    make_autocast,
    resolve_device,
    resolve_train,
)
from glu_bench.errors import DeviceError
from tests.conftest import TinyConfig


def test_the_processor_is_taken_as_named() -> None:
    assert resolve_device("cpu") == "cpu"


@pytest.mark.parametrize("wanted", ["cuda", "cuda:7", "mps"])
def test_a_device_that_is_not_there_is_refused_not_replaced(
    wanted: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(DeviceError, match=wanted) as caught:
        resolve_device(wanted)
    assert caught.value.exit_code == 7


@pytest.mark.parametrize(
    ("cuda", "mps", "expected"), [(True, True, "cuda:0"), (False, True, "mps"), (False, False, "cpu")]
)
def test_auto_prefers_cuda_then_mps(
    cuda: bool, mps: bool, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    assert resolve_device("auto") == expected


def test_a_cuda_device_has_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert resolve_device("cuda") == "cuda:0"
    assert resolve_device("cuda:1") == "cuda:1"
    with pytest.raises(DeviceError, match="shows 2 CUDA devices"):
        resolve_device("cuda:2")


@pytest.mark.parametrize(("fast", "expected"), [(True, "bf16"), (False, "fp32")])
def test_auto_precision_is_bf16_where_it_is_fast(
    fast: bool, expected: str, tiny_config: TinyConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "has_bf16", lambda device: fast)
    train, _ = resolve_train(tiny_config("train.precision=auto").train)
    assert train.precision == expected


def test_bf16_that_is_slow_is_refused(tiny_config: TinyConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "has_bf16", lambda device: False)
    with pytest.raises(DeviceError, match="no fast bf16"):
        resolve_train(tiny_config("train.precision=bf16").train)


def test_without_a_compiler_auto_runs_eagerly_and_says_so(
    tiny_config: TinyConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setattr(shutil, "which", lambda name: None)
    train, remarks = resolve_train(tiny_config("train.compile=auto").train)
    assert train.compile == "false"
    assert "compiler" in remarks[0]
    with pytest.raises(DeviceError, match="compiler"):
        resolve_train(tiny_config("train.compile=true").train)


def test_a_compiler_named_by_cxx_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: "/bin/x" if name == "my-c++" else None)
    monkeypatch.setenv("CXX", "my-c++")
    assert find_missing_compiler("cpu") is None
    monkeypatch.setenv("CXX", "nosuch")
    assert find_missing_compiler("cpu") is not None


def test_resolving_changes_nothing_else_and_not_the_argument(tiny_config: TinyConfig) -> None:
    before = tiny_config("train.precision=auto", "train.compile=auto", "train.device=auto").train
    resolved, _ = resolve_train(before)
    assert (before.precision, before.compile, before.device) == ("auto", "auto", "auto")
    assert "auto" not in (resolved.precision, resolved.compile, resolved.device)
    assert resolved.batch_size == before.batch_size


def test_autocast_is_on_only_for_bf16() -> None:
    x = torch.ones(2, 2)
    with make_autocast("cpu", "fp32"):
        assert (x @ x).dtype == torch.float32
    with make_autocast("cpu", "bf16"):
        assert (x @ x).dtype == torch.bfloat16


# multiprocessors, boost clock in MHz, and dense bf16 FLOPs that a multiprocessor's tensor cores do in
# a cycle summing in fp32 (half on GeForce), from the white papers of Ampere, Hopper and Ada
HARDWARE = {
    "NVIDIA A100-SXM4-80GB": (108, 1410, 2048),
    "NVIDIA H100 80GB HBM3": (132, 1830, 4096),
    "NVIDIA H100 PCIe": (114, 1620, 4096),
    "NVIDIA A30": (56, 1440, 2048),
    "NVIDIA A10": (72, 1695, 1024),
    "NVIDIA L4": (58, 2040, 1024),
    "NVIDIA L40S": (142, 2490, 1024),
    "NVIDIA RTX A6000": (84, 1800, 1024),
    "NVIDIA GeForce RTX 3090": (82, 1695, 512),
    "NVIDIA GeForce RTX 4090": (128, 2520, 512),
}


@pytest.mark.parametrize("name", HARDWARE)
def test_peaks_are_units_times_clock_times_work(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: name)
    n_units, mhz, flops = HARDWARE[name]
    assert find_peak("cuda:0", "bf16") == pytest.approx(n_units * mhz * 1e6 * flops, rel=0.003)


def test_boards_of_one_chip_have_one_peak() -> None:
    assert len({peak for name, peak in PEAKS_BF16.items() if "A100" in name}) == 1
    assert PEAKS_BF16["NVIDIA H200"] == PEAKS_BF16["NVIDIA H100 80GB HBM3"]


@pytest.mark.parametrize(
    ("device", "precision", "name"),
    [
        ("cpu", "bf16", "NVIDIA L4"),
        ("cuda:0", "fp32", "NVIDIA L4"),
        ("cuda:0", "bf16", "NVIDIA A100-SXM4-40GB MIG 1g.5gb"),
        ("cuda:0", "bf16", "NVIDIA GeForce RTX 4090 Laptop GPU"),
    ],
)
def test_no_peak_is_made_up(device: str, precision: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: name)
    assert find_peak(device, precision) is None


def test_fp32_is_made_to_mean_fp32() -> None:
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("medium")
        assert torch.backends.cuda.matmul.fp32_precision == "tf32"
        keep_fp32_exact()
        assert torch.get_float32_matmul_precision() == "highest"
        assert torch.backends.cuda.matmul.fp32_precision == "ieee"
        assert not torch.backends.cuda.matmul.allow_tf32
    finally:
        torch.set_float32_matmul_precision(before)
