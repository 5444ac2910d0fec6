"""What noting costs: the arithmetic of the benchmark."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from glu_bench.cost import gates, step
from glu_bench.cost.gates import bench_gates

TINY = "pico model.n_layers=1 model.seq_len=16"


def test_noting_is_shared_out_over_the_steps_between(monkeypatch: pytest.MonkeyPatch) -> None:
    """2 s a step; 0.1 s every 10 steps and 4 s every 200 are 0.01 and 0.02 s, so 1.5 %."""
    called: list[object] = []

    def race(parts: dict[str, Callable[[], object]], rounds: int, n: int) -> dict[str, list[float]]:
        called.extend(part() for part in parts.values())
        return {"step": [2.0] * rounds, "gradients": [0.1] * rounds, "units": [4.0] * rounds}

    monkeypatch.setattr(gates, "race", race)
    monkeypatch.setattr(gates, "keep_compiled_graphs", lambda: None)
    monkeypatch.setattr(step, "compile_decoder", lambda model: model.nats)
    (row,) = bench_gates([TINY], batch_size=2, rounds=3)
    assert (row.name, row.peer, row.unit) == (TINY, 2.0, "s")
    assert row.ratio == pytest.approx(1.015)
    assert row.ours == pytest.approx(2.03)
    _, gradients, units = called
    assert isinstance(gradients, dict)
    assert isinstance(units, dict)
    assert "up_gradient_norm_per_layer" in gradients
    assert "dead_share_per_layer" in units
