"""Parity of a step: fast paths close to plain, and a figure that grows when one is wrong."""

from __future__ import annotations

import pytest
import torch

from glu_bench.cost import step_parity
from glu_bench.cost.step import load_preset
from glu_bench.cost.step_parity import StepParity, measure_step_parity
from glu_bench.ffn import lean
from glu_bench.lm import attention, head

PRESET = "pico model.n_layers=1 model.seq_len=16"


@pytest.fixture(autouse=True)
def no_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(step_parity, "find_missing_compiler", lambda device: "not here")
    monkeypatch.setattr(step_parity, "N_TOKENS", 64)
    monkeypatch.setattr(step_parity, "LARGE_VOCAB_SIZE", 1000)
    monkeypatch.setattr(head, "CHUNK_BYTES", 2**14)  # of 64 x 1000 x 4 bytes


def measure() -> dict[str, StepParity]:
    rows = measure_step_parity(PRESET, load_preset(PRESET))
    return {row.name.removeprefix(f"{PRESET} / "): row for row in rows}


def test_every_path_is_as_close_as_rounding() -> None:
    found = measure()
    assert list(found) == ["eager", "torch's attention, T=1024", "loss in chunks, V=1,000"]
    for row in found.values():
        assert row.fp32 is not None
        assert row.bf16 is not None
        assert row.bf16_rounding is not None
        assert 0 < row.fp32 < 1e-4
        assert 1e-4 < row.bf16 < 2 * row.bf16_rounding


@pytest.mark.parametrize(
    ("module", "name", "path"),
    [
        (lean, "_project", "eager"),
        (attention.F, "scaled_dot_product_attention", "torch's attention, T=1024"),
        (head, "score_chunk", "loss in chunks, V=1,000"),
    ],
)
def test_what_is_wrong_is_seen(module: object, name: str, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    right = getattr(module, name)

    def wrong(*arguments: object, **options: object) -> object:
        result = right(*arguments, **options)
        if isinstance(result, torch.Tensor):
            return result * 1.01
        return tuple(part * 1.01 for part in result)

    monkeypatch.setattr(module, name, wrong)
    if module is head:
        monkeypatch.setattr(step_parity.Decoder.nats_from, "__defaults__", (wrong,))
    row = measure()[path]
    assert row.fp32 is not None
    assert row.fp32 > 1e-3
