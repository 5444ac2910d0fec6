"""Speedups in a table: the baseline's other budgets are found, and nothing else is mixed in."""

from __future__ import annotations

import math
import random
from typing import Any

import pytest

from glu_bench.runs.folder import Run
from glu_bench.stats.speedup import Speedup
from glu_bench.study.compare import Comparison, compare_runs
from tests.study.conftest import MakeRun

STEPS = (100, 300, 1000, 3000)
JITTER = (-1e-5, 0.0, 1e-5)
FLOPS, RATE = 1000, 500.0


def law(steps: float) -> float:
    return 2.0 + 5.0 * steps**-0.3


def make_arm(
    make_run: MakeRun, variant: str, steps: int, times: float, *words: str, n: int = 3, **changes: Any
) -> list[Run]:
    """Runs of an arm that is where the baseline is after `times` their steps, of 64 tokens each."""
    record: dict[str, Any] = {"tokens": 64 * steps, "flops_per_token": FLOPS, "tokens_per_s": RATE}
    return [
        make_run(
            variant,
            seed,
            law(times * steps) + JITTER[seed],
            f"train.steps={steps}",
            *words,
            **{**record, **changes},
        )
        for seed in range(n)
    ]


def make_baseline(make_run: MakeRun, *words: str, steps: tuple[int, ...] = STEPS) -> list[Run]:
    return [run for each in steps for run in make_arm(make_run, "gelu", each, 1.0, *words)]


def speedup_of(tables: list[Comparison], arm: str) -> Speedup | None:
    (table,) = tables
    return next(row.speedup for row in table.arms if row.arm == arm)


def test_the_speedup_of_a_table_is_read_from_the_baselines_other_budgets(make_run: MakeRun) -> None:
    runs = make_baseline(make_run) + make_arm(make_run, "swiglu", 1000, 1.37, tokens_per_s=0.8 * RATE)
    tables = compare_runs(runs)
    assert tables[0].baseline == "gelu"
    speedup = speedup_of(tables, "swiglu")
    assert speedup is not None
    assert speedup.method == "law"
    assert speedup.compute == pytest.approx(1.37, rel=1e-3)
    assert speedup.wall == pytest.approx(1.37 * 0.8, rel=1e-3)
    assert speedup.compute_ci95 is not None
    assert speedup_of(tables, "gelu") is None


def test_a_dearer_arm_is_slower_in_compute(make_run: MakeRun) -> None:
    runs = make_baseline(make_run) + make_arm(make_run, "swiglu", 300, 1.37, flops_per_token=2 * FLOPS)
    speedup = speedup_of(compare_runs(runs), "swiglu")
    assert speedup is not None
    assert speedup.tokens == pytest.approx(1.37, rel=1e-3)
    assert speedup.compute == pytest.approx(1.37 / 2, rel=1e-3)
    assert speedup.wall == pytest.approx(1.37, rel=1e-3)


@pytest.mark.parametrize("words", [("optim.lr=1e-3",), ("model.dropout=0.1",), ("model.d_model=64",)])
def test_runs_that_differ_in_more_than_the_budget_are_no_part_of_the_curve(
    words: tuple[str, ...], make_run: MakeRun
) -> None:
    runs = make_baseline(make_run, steps=(1000,)) + make_arm(make_run, "swiglu", 1000, 1.37)
    runs += make_baseline(make_run, *words, steps=(100, 300, 3000))
    speedup = speedup_of(compare_runs(runs), "swiglu")
    assert speedup is not None
    assert speedup.compute is None
    assert speedup.compute_bounds == (1.0, None)
    assert "1 budget" in speedup.note


def test_another_arms_budgets_are_no_part_of_the_curve(make_run: MakeRun) -> None:
    runs = [run for steps in STEPS for run in make_arm(make_run, "swiglu", steps, 1.37)]
    runs += make_arm(make_run, "gelu", 1000, 1.0)
    speedup = speedup_of(compare_runs(runs), "swiglu")
    assert speedup is not None
    assert speedup.compute_bounds == (1.0, None)


def test_the_order_of_the_runs_changes_nothing(make_run: MakeRun) -> None:
    runs = make_baseline(make_run) + make_arm(make_run, "swiglu", 1000, 1.37)
    found = []
    for seed in range(3):
        random.Random(seed).shuffle(runs)
        found.append(speedup_of(compare_runs(runs), "swiglu"))
    assert found[0] == found[1] == found[2]


def test_a_baseline_that_diverged_somewhere_is_said(make_run: MakeRun) -> None:
    runs = make_baseline(make_run) + make_arm(make_run, "swiglu", 1000, 1.37)
    runs.append(make_run("gelu", 3, None, "train.steps=300", diverged=True))
    runs.append(make_run("gelu", 4, None, "train.steps=300"))
    speedup = speedup_of(compare_runs(runs), "swiglu")
    assert speedup is not None
    assert speedup.compute == pytest.approx(1.37, rel=1e-3)
    assert "1 diverged, 1 interrupted" in speedup.note


def test_a_budget_said_in_two_ways_is_one_run(make_run: MakeRun) -> None:
    runs = make_baseline(make_run) + make_arm(make_run, "swiglu", 1000, 1.37)
    # the same training under train.epochs: no second seed
    again = make_arm(make_run, "gelu", 300, 1.0, "train.steps=null", "train.epochs=1.0")
    one, other = (speedup_of(compare_runs(given), "swiglu") for given in (runs, runs + again))
    assert one is not None
    assert other is not None
    assert one.compute_ci95 == other.compute_ci95


def test_an_arm_without_a_finished_run_has_no_speedup(make_run: MakeRun) -> None:
    runs = make_baseline(make_run) + make_arm(make_run, "swiglu", 1000, 1.37)
    runs.append(make_run("relu", 0, None, "train.steps=1000", diverged=True))
    assert speedup_of(compare_runs(runs, baseline="gelu"), "relu") is None


def test_mixed_settings_have_no_speedup(make_run: MakeRun) -> None:
    runs = make_baseline(make_run) + make_arm(make_run, "swiglu", 1000, 1.37, "optim.lr=1e-3")
    assert speedup_of(compare_runs(runs, allow_mixed=True), "swiglu") is None


def test_the_split_is_the_tables(make_run: MakeRun) -> None:
    runs = make_baseline(make_run) + make_arm(make_run, "swiglu", 1000, 1.37)
    speedup = speedup_of(compare_runs(runs, split="val"), "swiglu")  # one nat higher, all of them
    assert speedup is not None
    assert speedup.compute == pytest.approx(1.37, rel=1e-3)


def test_each_table_reads_the_curve_at_its_own_budget(make_run: MakeRun) -> None:
    runs = make_baseline(make_run) + make_arm(make_run, "swiglu", 1000, 1.37)
    runs += make_arm(make_run, "swiglu", 300, 1.2)
    tables = compare_runs(runs)
    found = sorted(row.speedup.compute or math.nan for t in tables for row in t.arms if row.speedup)
    assert found == pytest.approx([1.2, 1.37], rel=1e-3)
