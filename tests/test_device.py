"""Where a run computes: `auto` becomes a fact, what is asked for and missing is refused."""

from __future__ import annotations

import shutil

import pytest
import torch

from glu_bench import device as room
from glu_bench.device import find_missing_compiler, make_autocast, resolve_device, resolve_train
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
