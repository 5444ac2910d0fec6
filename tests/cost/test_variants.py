"""Training steps of variants beside swiglu's: paired ratios, groups, what counts as pointwise."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from glu_bench.cost import step, variants
from glu_bench.cost.variants import VariantBenchmark, bench_variants
from glu_bench.errors import ConfigError
from tests.conftest import Command

TINY = "pico model.n_layers=1 model.seq_len=16"
Steps = dict[str, Callable[[], None]]


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """No compiler, and the allocator left alone."""
    monkeypatch.setattr(step, "compile_decoder", lambda model: model.nats)
    monkeypatch.setattr(variants, "keep_freed_memory", lambda: False)


def bench(*words: str) -> VariantBenchmark:
    return bench_variants([TINY], words, batch_size=2, rounds=2, steps_a_round=1)


@pytest.mark.usefixtures("quick")
def test_a_row_for_each_variant_that_was_asked_for() -> None:
    found = bench("relu", "solu", "swiglu_b*")
    assert [(row.variant, row.pointwise) for row in found.rows] == [
        ("relu", True),
        ("solu", False),  # softmax over the width
        ("swiglu_beta", True),
    ]
    for row in found.rows:
        assert row.name == f"{TINY} / {row.variant}"
        assert abs(row.match_residual) < 0.005
        assert min(row.ours, row.peer, row.ratio, row.tokens_per_s) > 0
        assert row.unit == "ms/step"


@pytest.mark.usefixtures("quick")
def test_each_group_is_measured_by_its_own_swiglu(monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine slows down from round to round and group to group; the ratios stay."""
    groups: list[list[str]] = []
    factors = {"swiglu": 1.0, "relu": 0.9, "gelu": 1.05, "reglu2_norm": 1.3, "glu": 1.2}

    def race(steps: Steps, rounds: int, n: int) -> dict[str, list[float]]:
        groups.append(list(steps))
        slow = len(groups)
        return {name: [factors[name] * slow * (i + 1) for i in range(rounds)] for name in steps}

    monkeypatch.setattr(variants, "race", race)
    monkeypatch.setattr(variants, "GROUP_SIZE", 2)
    found = bench("relu", "swiglu", "gelu", "reglu2_norm", "glu")
    assert groups == [["swiglu", "relu", "gelu"], ["swiglu", "reglu2_norm", "glu"]]
    assert {row.variant: row.ratio for row in found.rows} == pytest.approx(factors)
    assert len(found.rows) == 5
    (glu,) = [row for row in found.rows if row.variant == "glu"]
    assert (glu.ours, glu.peer) == (pytest.approx(1e3 * 1.2 * 2 * 1.5), pytest.approx(1e3 * 2 * 1.5))
    assert glu.tokens_per_s == pytest.approx(2 * 16 / (1.2 * 2 * 1.5))
    assert [row.variant for row in found.list_beyond()] == ["glu"]  # reglu2_norm is not pointwise


@pytest.mark.usefixtures("quick")
def test_models_are_at_matched_parameters() -> None:
    widths = {row.variant: row.d_ff for row in bench("relu", "geglu").rows}
    assert widths == {"relu": 4 * 48, "geglu": 8 * 48 // 3}


@pytest.mark.usefixtures("quick")
def test_unknown_variants_and_presets_are_refused_before_anything_runs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(variants, "make_our_step", None)
    with pytest.raises(ConfigError, match="did you mean 'geglu'"):
        bench("gegluu")
    with pytest.raises(ConfigError, match="picoo"):
        bench_variants([TINY, "picoo"], ["relu"])


@pytest.mark.usefixtures("quick")
def test_the_command_says_which_are_beyond(call_command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    def race(steps: Steps, rounds: int, n: int) -> dict[str, list[float]]:
        return {name: [1.2 if name == "glu" else 1.0] * rounds for name in steps}

    monkeypatch.setattr(variants, "race", race)
    words = ("bench", "step", TINY, "--variants", "relu,gl?", "--batch-size", "1", "--rounds", "1")
    ended = call_command(*words)
    assert ended.code == 0, ended.err
    assert f"of 2 pointwise variants above 1.1 times swiglu: {TINY} / glu\n" in ended.out
    quiet = call_command(*words, "--quiet")
    assert quiet.code == 0
    assert "pointwise variants" not in quiet.out
    found = json.loads(call_command(*words, "--json").out)
    assert [(row["variant"], row["ratio"]) for row in found["rows"]] == [("relu", 1.0), ("glu", 1.2)]
    assert all({"name", "ours", "peer", "ratio", "unit"} <= set(row) for row in found["rows"])
    assert found["peak"] is None
