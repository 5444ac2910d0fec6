"""The benchmark of memory: rows that say what was measured, and the two targets."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from glu_bench.cost import memory
from glu_bench.cost.alone import run_alone
from glu_bench.cost.memory import bench_memory, measure_head, measure_step
from tests.conftest import Command


def fake_alone(work: Callable[..., tuple[float, float]], *arguments: object) -> tuple[float, float]:
    """Bytes kept and peak in bytes, made up: the plain path takes twice and four times as much."""
    if work is measure_step:
        seq_len, fast = arguments
        assert isinstance(seq_len, int)
        return (seq_len, seq_len * 1e6) if fast else (2 * seq_len, seq_len * 4e6)
    fast, precision = arguments
    n_bytes = {"bf16": 2.0, "fp32": 4.0}[str(precision)]
    return (n_bytes, n_bytes * 1e6) if fast else (2 * n_bytes, n_bytes * 4e6)


def test_the_rows_set_ours_against_the_plain_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "run_alone", fake_alone)
    rows = {row.name: (row.ours, row.peer, row.ratio, row.unit) for row in bench_memory([512, 256, 512])}
    assert rows == {
        "pico, T=256, kept for backward": (256, 512, 0.5, "B/token"),
        "pico, T=512, kept for backward": (512, 1024, 0.5, "B/token"),
        "pico, T=256, peak of a step": (256, 1024, 0.25, "MB"),
        "pico, T=512, peak of a step": (512, 2048, 0.25, "MB"),
        "head, V=32,768, bf16, kept for backward": (2, 4, 0.5, "B/token"),
        "head, V=32,768, bf16, peak": (2, 8, 0.25, "MB"),
        "head, V=32,768, fp32, kept for backward": (4, 8, 0.5, "B/token"),
        "head, V=32,768, fp32, peak": (4, 16, 0.25, "MB"),
    }
    assert next(iter(rows)) == "pico, T=256, kept for backward"


def test_the_command_prints_the_rows(call_command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "run_alone", fake_alone)
    found = json.loads(call_command("bench", "memory", "64", "--json").out)["rows"]
    assert [row["name"] for row in found][:2] == [
        "pico, T=64, kept for backward",
        "pico, T=64, peak of a step",
    ]
    table = call_command("bench", "memory").out
    assert "T=4096" in table
    assert "plain" in table


def test_a_step_keeps_what_autograd_is_handed() -> None:
    """By hand for the head in fp32: the loss keeps its log-probabilities, 4 V; the rest is D-sized."""
    kept, _ = measure_head(fast=False, precision="fp32", n_tokens=64)
    logits = 4 * memory.LARGE_VOCAB_SIZE
    assert logits < kept < logits + 40 * memory.LARGE_WIDTH
    fast, plain = (measure_step(600, fast, n_tokens=600)[0] for fast in (True, False))
    longer = measure_step(1200, True, n_tokens=1200)[0]
    assert longer == pytest.approx(fast, rel=0.05)
    assert fast < plain / 3


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["bf16", "fp32"])
def test_the_head_of_a_large_vocabulary_peaks_at_two_fifths_of_plain(precision: str) -> None:
    ours, plain = (run_alone(measure_head, fast, precision) for fast in (True, False))
    assert ours[1] <= 0.4 * plain[1]
    assert ours[0] <= 0.4 * plain[0]
    assert plain[1] > 4 * memory.LARGE_VOCAB_SIZE * memory.N_TOKENS  # it did hold all logits in fp32
