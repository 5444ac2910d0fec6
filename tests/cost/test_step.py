"""The step benchmark: its rows, its arithmetic, and a machine without transformers."""

from __future__ import annotations

import sys
from collections.abc import Callable

import pytest
import torch

from glu_bench.cost import peak, step
from glu_bench.cost.step import StepBenchmark, StepRow, bench_step
from glu_bench.errors import ConfigError

TINY = "pico model.n_layers=1 model.seq_len=16"


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """No compiler, small products, and the allocator left alone."""
    monkeypatch.setattr(step, "compile_decoder", lambda model: model.nats)
    monkeypatch.setattr(step, "PEERS", (("eager", False), ("sdpa", False)))
    monkeypatch.setattr(peak, "PEAK_SHAPES", ((64, 64, 64), (128, 64, 32)))
    monkeypatch.setattr(step, "keep_freed_memory", lambda: False)
    monkeypatch.setattr(
        step, "measure_step_parity", lambda preset, config: []
    )  # tests/cost/test_step_parity.py


def bench(**options: bool) -> StepBenchmark:
    return bench_step([TINY], batch_size=2, rounds=2, steps_a_round=1, **options)


@pytest.mark.usefixtures("quick")
def test_a_row_for_each_setting_of_the_peer() -> None:
    pytest.importorskip("transformers")
    benchmark = bench()
    assert [row.name for row in benchmark.rows] == [
        f"{TINY} / transformers, eager attention, not compiled",
        f"{TINY} / transformers, sdpa attention, not compiled",
    ]
    for row in benchmark.rows:
        assert row.note == ""
        assert row.peer is not None
        assert row.ratio is not None
        assert row.ratio > 0
        assert row.unit == "tokens/s"
        assert row.ours_share_of_peak > 0
    assert benchmark.best_peers()[0].peer == max(row.peer or 0 for row in benchmark.rows)
    assert set(benchmark.environment) >= {"torch", "transformers", "threads", "cpu_capability"}


@pytest.mark.usefixtures("quick")
def test_without_transformers_the_rows_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    benchmark = bench()
    assert len(benchmark.rows) == 2
    for row in benchmark.rows:
        assert row.ours > 0
        assert (row.peer, row.peer_spread, row.ratio) == (None, None, None)
        assert row.note == "transformers is not installed"
    assert benchmark.environment["transformers"] == "not installed"


@pytest.mark.usefixtures("quick")
def test_without_peers_one_row_a_preset() -> None:
    (row,) = bench(peers=False).rows
    assert (row.name, row.peer, row.note) == (TINY, None, "")


@pytest.mark.usefixtures("quick")
def test_share_counts_the_flops_of_every_product(monkeypatch: pytest.MonkeyPatch) -> None:
    """One layer, D=48, F=128, T=16: six FLOPs a weight and attention in full, forward times 3."""

    def race(steps: dict[str, Callable[[], None]], rounds: int, n: int) -> dict[str, list[float]]:
        return {name: [2.0] * rounds if name == step.OURS else [1e-3] * rounds for name in steps}

    monkeypatch.setattr(step, "race", race)
    benchmark = bench(peers=False)
    weights = 48 * 3 * 48 + 48 * 48 + 3 * 48 * 128 + 48 * 257
    flops_per_token = 3 * (2 * weights + 4 * 16 * 48)
    tokens_per_s = 2 * 16 / 2.0
    limit = 2 * 64**3 / 1e-3  # both products of the fixture have as many FLOPs
    assert benchmark.peak_flops_per_s == pytest.approx(limit)
    assert benchmark.rows[0].ours == pytest.approx(tokens_per_s)
    assert benchmark.rows[0].ours_share_of_peak == pytest.approx(tokens_per_s * flops_per_token / limit)


def test_best_peer_is_the_fastest_that_ran() -> None:
    def row(peer: float | None) -> StepRow:
        return StepRow(
            name=f"nano / {peer}",
            preset="nano",
            ours=10.0,
            ours_spread=0.0,
            ours_share_of_peak=0.5,
            peer=peer,
            peer_spread=None,
            ratio=None,
        )

    rows = (row(None), row(3.0), row(7.0), row(5.0))
    assert StepBenchmark(rows=rows, peak_flops_per_s=1.0, parity=(), environment={}).best_peers() == (
        rows[2],
    )


@pytest.mark.usefixtures("quick")
def test_unknown_preset_is_refused_before_anything_runs() -> None:
    with pytest.raises(ConfigError, match="nanoo"):
        bench_step(["nano", "nanoo"])


@pytest.mark.usefixtures("quick")
def test_a_step_trains() -> None:
    config = step.load_config(["model=pico", "model.n_layers=1", "model.seq_len=16", "optim.lr=0.01"])
    model = step.make_decoder(config, step.VOCAB_SIZE)
    step.init_weights(model, seed=0)
    losses = []

    def loss(inputs_BT: torch.Tensor, targets_BT: torch.Tensor) -> torch.Tensor:
        value = model.nats(inputs_BT, targets_BT).mean()
        losses.append(value.item())
        return value

    train = step.make_step(model, loss, config, batch_size=2)
    for _ in range(20):
        train()
    assert losses[-1] < losses[0] - 0.5
