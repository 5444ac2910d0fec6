"""Speedups in a table: the baseline's other budgets are found, and nothing else is mixed in."""

from __future__ import annotations

import dataclasses
import math
import random
from collections.abc import Sequence
from typing import Any

import pytest

from glu_bench.runs.folder import Run
from glu_bench.stats.speedup import Speedup
from glu_bench.study.arms import Entry
from glu_bench.study.compare import Arm, Comparison, compare_runs
from glu_bench.study.speedup import add_speedups
from tests.study.conftest import MakeEntry, MakeRun

STEPS = (100, 300, 1000, 3000)
JITTER = (-1e-5, 0.0, 1e-5)
NO_NUMBERS = {
    field.name: None
    for field in dataclasses.fields(Arm)
    if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
}


def law(steps: float) -> float:
    return 2.0 + 5.0 * steps**-0.3


def make_arm(
    make_entry: MakeEntry,
    variant: str,
    steps: int,
    times: float,
    keys: dict[str, Any] | None = None,
    **changes: Any,
) -> list[Entry]:
    """Runs of an arm that is where the baseline is after `times` their steps, of 64 tokens each."""
    settings = {"train.steps": steps, **(keys or {})}
    return [
        make_entry(variant, seed, law(times * steps) + jitter, settings, **{"tokens": 64 * steps, **changes})
        for seed, jitter in enumerate(JITTER)
    ]


def make_baseline(
    make_entry: MakeEntry, keys: dict[str, Any] | None = None, steps: Sequence[int] = STEPS
) -> list[Entry]:
    return [entry for each in steps for entry in make_arm(make_entry, "gelu", each, 1.0, keys)]


def tabulate(members: Sequence[Entry], baseline: str = "gelu", split: str = "test") -> Comparison:
    """A table of these entries, as far as speedups look at it."""
    arms = []
    for name in sorted({entry.arm for entry in members}):
        one = next((e.result for e in members if e.arm == name and e.result), {})
        numbers = {"flops_per_token": one.get("flops_per_token"), "tokens_per_s": one.get("tokens_per_s")}
        arms.append(Arm(**{**NO_NUMBERS, **numbers, "arm": name}))
    return Comparison(
        setting="", baseline=baseline, split=split, arms=arms, left_out=[], warnings=[], verdict=""
    )


def speedup_of(
    members: Sequence[Entry], others: Sequence[Entry], arm: str = "swiglu", split: str = "test"
) -> Speedup | None:
    """The speedup of an arm in a table of `members`, the others found beside them."""
    (table,) = add_speedups([(tabulate(members, split=split), members)], [*members, *others], ["variant"])
    return next(row.speedup for row in table.arms if row.arm == arm)


def at_1000(make_entry: MakeEntry, **changes: Any) -> list[Entry]:
    """The members of the table: baseline and an arm 1.37 times as fast."""
    arm = make_arm(make_entry, "swiglu", 1000, 1.37, **changes)
    return make_baseline(make_entry, steps=(1000,)) + arm


OTHERS = (100, 300, 3000)


def test_the_speedup_of_a_table_is_read_from_the_baselines_other_budgets(make_entry: MakeEntry) -> None:
    members, others = at_1000(make_entry, tokens_per_s=400.0), make_baseline(make_entry, steps=OTHERS)
    speedup = speedup_of(members, others)
    assert speedup is not None
    assert speedup.method == "law"
    assert speedup.compute == pytest.approx(1.37, rel=1e-3)
    assert speedup.wall == pytest.approx(1.37 * 0.8, rel=1e-3)
    assert speedup.compute_ci95 is not None
    assert speedup_of(members, others, "gelu") is None


def test_a_dearer_arm_is_slower_in_compute(make_entry: MakeEntry) -> None:
    members = at_1000(make_entry, flops_per_token=2000)
    speedup = speedup_of(members, make_baseline(make_entry, steps=OTHERS))
    assert speedup is not None
    assert speedup.tokens == pytest.approx(1.37, rel=1e-3)
    assert speedup.compute == pytest.approx(1.37 / 2, rel=1e-3)
    assert speedup.wall == pytest.approx(1.37, rel=1e-3)


@pytest.mark.parametrize(
    "keys", [{"optim.lr": 1e-3}, {"model.dropout": 0.1}, {"model.d_model": 64}, {"data_fingerprint": "e"}]
)
def test_runs_that_differ_in_more_than_the_budget_are_no_part_of_the_curve(
    keys: dict[str, Any], make_entry: MakeEntry
) -> None:
    speedup = speedup_of(at_1000(make_entry), make_baseline(make_entry, keys, OTHERS))
    assert speedup is not None
    assert speedup.compute is None
    assert speedup.compute_bounds == (1.0, None)
    assert "1 budget" in speedup.note


def test_runs_at_a_tuned_rate_are_no_part_of_an_untuned_curve(make_entry: MakeEntry) -> None:
    tuned = [dataclasses.replace(e, tuned=("optim.lr",)) for e in make_baseline(make_entry, steps=OTHERS)]
    speedup = speedup_of(at_1000(make_entry), tuned)
    assert speedup is not None
    assert speedup.compute is None


def test_a_tuned_table_reads_a_tuned_curve_whatever_the_rates(make_entry: MakeEntry) -> None:
    def tuned(entries: Sequence[Entry]) -> list[Entry]:
        return [dataclasses.replace(entry, tuned=("optim.lr",)) for entry in entries]

    others = [
        e
        for at, steps in enumerate(OTHERS)
        for e in make_baseline(make_entry, {"optim.lr": at + 1}, (steps,))
    ]
    speedup = speedup_of(tuned(at_1000(make_entry)), tuned(others))
    assert speedup is not None
    assert speedup.compute == pytest.approx(1.37, rel=1e-3)


def test_another_arms_budgets_are_no_part_of_the_curve(make_entry: MakeEntry) -> None:
    others = [entry for steps in OTHERS for entry in make_arm(make_entry, "swiglu", steps, 1.37)]
    speedup = speedup_of(at_1000(make_entry), others)
    assert speedup is not None
    assert speedup.compute_bounds == (1.0, None)


def test_the_order_of_the_runs_changes_nothing(make_entry: MakeEntry) -> None:
    members, others = at_1000(make_entry), make_baseline(make_entry, steps=OTHERS)
    found = []
    for seed in range(3):
        random.Random(seed).shuffle(members)
        random.Random(seed).shuffle(others)
        found.append(speedup_of(members, others))
    assert found[0] == found[1] == found[2]


def test_what_is_left_out_of_the_curve_is_said(make_entry: MakeEntry) -> None:
    others = make_baseline(make_entry, steps=OTHERS)
    others.append(make_entry("gelu", 3, None, {"train.steps": 300}))
    others.append(make_entry("gelu", 4, math.nan, {"train.steps": 300}, tokens=64 * 300))
    others.append(make_entry("gelu", 5, 3.0, {"train.steps": 300}, tokens=64 * 300, test_loss_nats=None))
    speedup = speedup_of(at_1000(make_entry), others)
    assert speedup is not None
    assert speedup.compute == pytest.approx(1.37, rel=1e-3)
    assert "1 diverged, 2 without a finite loss" in speedup.note


def test_a_budget_said_in_two_ways_is_one_run(make_entry: MakeEntry) -> None:
    members, others = at_1000(make_entry), make_baseline(make_entry, steps=OTHERS)
    in_tokens = {"train.steps": None, "train.tokens": 64 * 300}
    again = make_arm(make_entry, "gelu", 300, 1.0, in_tokens)
    assert speedup_of(members, others) == speedup_of(members, others + again)


def test_an_arm_without_a_finished_run_has_no_speedup(make_entry: MakeEntry) -> None:
    members = [*at_1000(make_entry), make_entry("relu", 0, None, {"train.steps": 1000})]
    others = make_baseline(make_entry, steps=OTHERS)
    assert speedup_of(members, others, "relu") is None
    assert speedup_of(members, others) is not None


def test_without_a_finished_baseline_there_is_no_speedup(make_entry: MakeEntry) -> None:
    arm = make_arm(make_entry, "swiglu", 1000, 1.37)
    assert speedup_of([*arm, make_entry("gelu", 0, None, {"train.steps": 1000})], []) is None


def test_mixed_settings_have_no_speedup(make_entry: MakeEntry) -> None:
    other = {"optim.lr": 1e-3}
    members = make_baseline(make_entry) + make_baseline(make_entry, other)
    members += make_arm(make_entry, "swiglu", 1000, 1.37, other)
    assert speedup_of(members, []) is None


def test_an_arm_of_several_budgets_has_no_speedup(make_entry: MakeEntry) -> None:
    members = at_1000(make_entry) + make_arm(make_entry, "swiglu", 300, 1.37)
    assert speedup_of(members, make_baseline(make_entry, steps=OTHERS)) is None


def test_the_split_is_the_tables(make_entry: MakeEntry) -> None:
    members = [
        dataclasses.replace(e, result={**e.result, "test_loss_nats": 1.0}) if e.result else e
        for e in at_1000(make_entry)
    ]
    speedup = speedup_of(members, make_baseline(make_entry, steps=OTHERS), split="val")
    assert speedup is not None
    assert speedup.compute == pytest.approx(1.37, rel=1e-3)


def test_compare_finds_the_other_budgets_among_run_folders(make_run: MakeRun) -> None:
    def make(variant: str, steps: int, times: float) -> list[Run]:
        losses = (law(times * steps) + jitter for jitter in JITTER[::2])
        return [
            make_run(variant, seed, loss, f"train.steps={steps}", tokens=64 * steps)
            for seed, loss in enumerate(losses)
        ]

    runs = [run for steps in STEPS for run in make("gelu", steps, 1.0)]
    runs += make("swiglu", 1000, 1.37) + make("swiglu", 300, 1.2)
    tables = compare_runs(runs)
    found = sorted(row.speedup.compute or 0.0 for t in tables for row in t.arms if row.speedup)
    assert found == pytest.approx([1.2, 1.37], rel=2e-3)
    (mixed,) = compare_runs(runs, allow_mixed=True)
    assert [row.speedup for row in mixed.arms] == [None, None]
