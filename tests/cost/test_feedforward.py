"""The feed-forward benchmark: its arithmetic, memory and parity, and what it could not run."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

import glu_bench.ffn.feedforward as blocks
from glu_bench.config import load_config
from glu_bench.cost import feedforward, peak
from glu_bench.cost.feedforward import (
    LIGER,
    LLAMA,
    FeedForwardBenchmark,
    FeedForwardRow,
    bench_feedforward,
)
from glu_bench.errors import ConfigError
from glu_bench.ffn import lean
from tests.conftest import Command

TINY = "pico model.seq_len=16"  # D=48; F=128 gated, 192 ungated; 32 tokens in two sequences
D, GATED, UNGATED, N = 48, 128, 192, 32
Steps = dict[str, Callable[[], None]]


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """No compiler, no GPU, bf16 whatever the CPU, small products, and the allocator left alone."""
    monkeypatch.setattr(feedforward, "compile_call", lambda block: block)
    monkeypatch.setattr(feedforward, "find_missing_compiler", lambda device: None)
    monkeypatch.setattr(feedforward, "has_bf16", lambda device: True)
    monkeypatch.setattr(feedforward, "keep_freed_memory", lambda: False)
    monkeypatch.setattr(peak, "PEAK_SHAPES", ((64, 64, 64), (128, 64, 32)))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


def bench(*words: str, peers: bool = False, preset: str = TINY) -> FeedForwardBenchmark:
    return bench_feedforward(words, preset, batch_size=2, rounds=2, passes_a_round=1, peers=peers)


def by_setting(found: FeedForwardBenchmark) -> dict[tuple[str, str], FeedForwardRow]:
    return {(row.block, row.setting): row for row in found.rows}


def mean_of(steps: Steps, seconds: dict[str, float], rounds: int) -> dict[str, list[float]]:
    """Made-up times: of a contestant whose name ends so, else a millisecond."""
    ends = {name: next((s for end, s in seconds.items() if name.endswith(end)), 1e-3) for name in steps}
    return {name: [s] * rounds for name, s in ends.items()}


@pytest.mark.usefixtures("quick")
def test_three_rows_a_variant_swiglu_first() -> None:
    found = bench("relu", "geg*")
    assert [row.name for row in found.rows] == [
        f"{TINY} / {name}, {setting}"
        for name in ("swiglu", "relu", "geglu", "geglu_tanh")
        for setting in ("plain", "lean", "compiled")
    ]
    assert (found.d_model, found.n_tokens, found.dtype) == (D, N, "bf16")
    for row in found.rows:
        assert row.d_ff == (UNGATED if row.block == "relu" else GATED)
        assert row.ours is not None
        assert row.ours > 0
        assert (row.peer, row.ratio, row.note) == (None, None, "")
        assert row.peak_bytes is not None
        assert row.peak_bytes > N * 2 * row.d_ff


@pytest.mark.usefixtures("quick")
def test_share_counts_six_flops_a_weight_and_token(monkeypatch: pytest.MonkeyPatch) -> None:
    times = {"swiglu, compiled": 0.5, "relu, compiled": 0.4, "relu, plain": 2.0, "LlamaMLP, eager": 0.75}
    monkeypatch.setattr(feedforward, "race", lambda steps, rounds, n: mean_of(steps, times, rounds))
    pytest.importorskip("transformers")
    found = bench("relu", peers=True)
    limit = 2 * 64**3 / 1e-3  # both products of the fixture have as many FLOPs
    assert found.peak_flops_per_s == pytest.approx(limit)
    rows = by_setting(found)
    swiglu, relu = 6 * 3 * D * GATED * N, 6 * 2 * D * UNGATED * N
    assert rows["swiglu", "compiled"].share_of_peak == pytest.approx(swiglu / 0.5 / limit)
    assert rows["relu", "compiled"].share_of_peak == pytest.approx(relu / 0.4 / limit)
    assert rows["relu", "plain"].share_of_peak == pytest.approx(relu / 2.0 / limit)
    assert rows["relu", "compiled"].time_to_swiglu == pytest.approx(0.8)
    assert rows["relu", "plain"].time_to_swiglu == pytest.approx(4.0)
    assert rows["relu", "plain"].ours == pytest.approx(N / 2.0)
    assert rows["relu", "plain"].elapsed_ms == pytest.approx(2000)
    llama = rows[LLAMA, "eager"]
    assert llama.share_of_peak == pytest.approx(swiglu / 0.75 / limit)
    assert (llama.ours, llama.peer) == (pytest.approx(N / 0.5), pytest.approx(N / 0.75))
    assert llama.ratio == pytest.approx(1.5)


@pytest.mark.usefixtures("quick")
def test_every_group_has_its_own_turn_of_swiglu(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine half as fast from the second group on moves swiglu as much, and so no ratio."""
    groups: list[list[str]] = []

    def slowing(steps: Steps, rounds: int, n: int) -> dict[str, list[float]]:
        groups.append([name.removeprefix(f"{TINY} / ") for name in steps if "product" not in name])
        times = {"swiglu, compiled": 1.0, "relu, compiled": 0.9, "gelu, compiled": 0.8, "glu, compiled": 1.2}
        return mean_of(steps, {end: s * len(groups) for end, s in times.items()}, rounds)

    monkeypatch.setattr(feedforward, "race", slowing)
    monkeypatch.setattr(feedforward, "GROUP_SIZE", 1)
    rows = by_setting(bench("relu", "gelu", "glu"))
    assert [len(group) for group in groups] == [6, 4, 4]
    assert all("swiglu, compiled" in group for group in groups)
    expected = {"swiglu": 1.0, "relu": 0.9, "gelu": 0.8}
    assert {name: rows[name, "compiled"].time_to_swiglu for name in expected} == pytest.approx(expected)


@pytest.mark.usefixtures("quick")
def test_bytes_kept_are_those_of_the_arithmetic() -> None:
    """Plain swiglu keeps x, the fused projection (2F), swish(gate) and the product; relu x and itself."""
    rows = by_setting(bench("relu", peers=True))
    for name, kept, bound in (("swiglu", D + 4 * GATED, D + 2 * GATED), ("relu", D + UNGATED, D + UNGATED)):
        assert rows[name, "plain"].saved_bytes_per_token == 2 * kept
        assert rows[name, "lean"].saved_bytes_per_token == 2 * bound
        assert rows[name, "lean"].bound_bytes_per_token == 2 * bound
    assert rows[LLAMA, "eager"].saved_bytes_per_token == 2 * (D + 4 * GATED)  # gate and up are two there


@pytest.mark.usefixtures("quick")
def test_as_many_tokens_as_a_width_leave_the_bytes_open() -> None:
    row = bench(preset="pico model.seq_len=24").rows[0]  # two sequences: 48 tokens
    assert row.saved_bytes_per_token is None
    assert "48 tokens" in row.note
    assert row.ours is not None


@pytest.mark.usefixtures("quick")
def test_lean_is_as_good_as_plain() -> None:
    for row in bench("swiglu_beta", "polynorm").rows:
        if row.setting == "plain":
            assert (row.parity_fp32, row.parity_bf16) == (None, None)
        else:
            assert row.parity_fp32 is not None
            assert row.parity_fp32 < 1e-5
            assert row.parity_bf16 is not None
            assert row.bf16_rounding is not None
            assert row.parity_bf16 < 2 * row.bf16_rounding < 0.2


@pytest.mark.usefixtures("quick")
def test_an_output_that_is_off_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a percent too large in the output; the gradients, of a factor 1.005, are as far off."""
    right = lean.lean_feedforward
    monkeypatch.setattr(blocks, "lean_feedforward", lambda *given: 1.005 * right(*given))
    row = by_setting(bench())["swiglu", "lean"]
    assert row.parity_fp32 == pytest.approx(0.005, rel=1e-3)


@pytest.mark.usefixtures("quick")
def test_a_gradient_that_is_off_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    """The forward pass is right, one of the gradients a quarter too large."""
    right = lean._LeanFeedForward.backward

    def wrong(ctx: Any, d_y: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        *before, d_w_down, d_b_down = right(ctx, d_y)  # nothing is learned
        assert d_w_down is not None
        return *before, 1.25 * d_w_down, d_b_down

    monkeypatch.setattr(lean._LeanFeedForward, "backward", staticmethod(wrong))
    row = by_setting(bench())["swiglu", "lean"]
    assert row.parity_fp32 == pytest.approx(0.25, rel=1e-3)
    assert row.parity_bf16 == pytest.approx(0.25, rel=0.02)


@pytest.mark.usefixtures("quick")
def test_a_compiled_block_that_is_off_shows_in_its_own_row(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feedforward, "compile_call", lambda block: lambda x: 1.5 * block(x))
    rows = by_setting(bench())
    assert rows["swiglu", "compiled"].parity_fp32 == pytest.approx(0.5, rel=1e-3)
    assert rows["swiglu", "compiled"].parity_bf16 == pytest.approx(0.5, rel=0.02)
    lean_parity = rows["swiglu", "lean"].parity_fp32
    assert lean_parity is not None
    assert lean_parity < 1e-5


@pytest.mark.usefixtures("quick")
def test_a_machine_without_bf16_measures_fp32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feedforward, "has_bf16", lambda device: False)
    found = bench()
    row = by_setting(found)["swiglu", "lean"]
    assert found.dtype == "fp32"
    assert row.bound_bytes_per_token == 4 * (D + 2 * GATED)
    assert row.saved_bytes_per_token == 4 * (D + 2 * GATED)
    assert (row.parity_bf16, row.bf16_rounding) == (None, None)


@pytest.mark.usefixtures("quick")
def test_without_a_compiler_lean_is_what_others_are_measured_by(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feedforward, "find_missing_compiler", lambda device: "no compiler here")
    pytest.importorskip("transformers")
    rows = by_setting(bench("relu", peers=True))
    for name in ("swiglu", "relu", LLAMA):
        row = rows[name, "compiled"]
        assert row.note == "no compiler here"
        assert (row.elapsed_ms, row.time_to_swiglu, row.parity_fp32) == (None, None, None)
    assert rows["swiglu", "lean"].time_to_swiglu == 1.0
    assert rows[LLAMA, "eager"].ratio is not None


@pytest.mark.usefixtures("quick")
def test_a_peer_that_cannot_run_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    found = bench(peers=True)
    notes = {(row.block, row.setting): row.note for row in found.rows[-3:]}
    assert notes == {
        (LLAMA, "eager"): "transformers is not installed",
        (LLAMA, "compiled"): "transformers is not installed",
        (LIGER, "eager"): "needs a CUDA device",
    }
    for row in found.rows[-3:]:
        assert row.ours is not None  # swiglu's, which was measured
        assert (row.peer, row.ratio, row.elapsed_ms, row.saved_bytes_per_token) == (None,) * 4
    assert found.environment["transformers"] == "not installed"


@pytest.mark.usefixtures("quick")
def test_liger_on_a_gpu_needs_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "liger_kernel", None)
    shared = feedforward._make_bench(TINY, load_config(["model=pico"]), 1)
    assert feedforward._find_obstacle(replace(shared, device="cuda:0"), LIGER, "eager") == (
        "liger_kernel is not installed"
    )


@pytest.mark.usefixtures("quick")
def test_the_peer_does_the_same_work() -> None:
    pytest.importorskip("transformers")
    shared = feedforward._make_bench(TINY, load_config(["model=pico"]), 1)
    peer = feedforward._make_peer(shared, LLAMA, GATED)
    ours = blocks.make_feedforward("swiglu", d_model=D)
    gate, up = ours.hidden.in_proj.weight.chunk(2)
    peer.load_state_dict(
        {"gate_proj.weight": gate, "up_proj.weight": up, "down_proj.weight": ours.down.weight}
    )
    x = torch.randn(5, D)
    torch.testing.assert_close(peer(x), ours(x))


@pytest.mark.usefixtures("quick")
def test_unknown_names_are_refused_before_anything_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feedforward, "_make_bench", None)
    with pytest.raises(ConfigError, match="did you mean 'geglu'"):
        bench("swiglu", "gegluu")
    with pytest.raises(ConfigError, match="microo"):
        bench("swiglu", preset="microo")


@pytest.mark.usefixtures("quick")
def test_the_command_prints_the_keys_of_the_interface(call_command: Command) -> None:
    words = ("bench", "ffn", "reglu", "--preset", TINY, "--batch-size", "2", "--rounds", "1")
    ended = call_command(*words, "--json")
    assert ended.code == 0, ended.err
    found = json.loads(ended.out)
    assert {row["block"] for row in found["rows"]} == {"swiglu", "reglu", LLAMA, LIGER}
    assert all({"name", "ours", "peer", "ratio", "unit", "parity_fp32"} <= set(row) for row in found["rows"])
    assert found["peak"]["dtype"] == "bf16"
    assert found["peak"]["flops_per_s"] > 0
    assert found["environment"]["device"] == "cpu"
    table = call_command(*words)
    assert "reglu, compiled" in table.out
    assert "needs a CUDA device" in table.out


def test_the_command_takes_the_core_unless_told(
    call_command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[object] = []

    def record(words: list[str], preset: str, **options: object) -> FeedForwardBenchmark:
        asked.append((words, preset))
        return FeedForwardBenchmark(
            rows=(), peak_flops_per_s=1.0, dtype="bf16", d_model=1, n_tokens=1, environment={}
        )

    monkeypatch.setattr(feedforward, "bench_feedforward", record)
    assert call_command("bench", "ffn").code == 0
    assert asked == [(["core"], "micro")]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's compiler uses what torch deprecates
def test_compiled_is_as_good_as_plain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feedforward, "has_bf16", lambda device: True)
    monkeypatch.setattr(peak, "PEAK_SHAPES", ((64, 64, 64),))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for row in bench("relu", "swiglu_beta", "reglu2_norm").rows:
        if row.setting == "compiled":
            assert row.parity_fp32 is not None
            assert row.parity_fp32 < 1e-4, row.name
            assert row.parity_bf16 is not None
            assert row.bf16_rounding is not None
            assert row.parity_bf16 < 3 * row.bf16_rounding, row.name
