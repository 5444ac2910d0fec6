"""Learning curves collected from logs."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping

import pytest
from scipy import stats

from glu_bench.errors import DataError
from glu_bench.runs.folder import Run
from glu_bench.study.compare import Comparison, compare_runs
from glu_bench.study.curves import ArmCurve, collect_curves
from tests.study.conftest import MakeRun


def log(run: Run, losses: Mapping[int, float | None], seconds_a_step: float = 0.5) -> Run:
    """Writes held-out losses by step, and a row without one after each."""
    with run.metrics_path.open("w", encoding="utf-8") as file:
        for step, loss in losses.items():
            row = {"step": step, "tokens": 64 * step, "elapsed_s": seconds_a_step * step, "loss_nats": 9.0}
            file.write(json.dumps(row if loss is None else {**row, "val_loss_nats": loss}) + "\n")
    return run


def only_table(runs: list[Run]) -> Comparison:
    (table,) = compare_runs(runs)
    return table


def curve_of(curves: list[ArmCurve], arm: str) -> ArmCurve:
    return next(curve for curve in curves if curve.arm == arm)


def test_a_point_is_the_mean_over_seeds_with_their_range(make_run: MakeRun) -> None:
    runs = [log(make_run("gelu", seed, 2.0 + seed), {3: 5.0 + seed, 6: 4.0 - seed}) for seed in range(3)]
    runs += [log(make_run("swiglu", 0, 1.5), {3: 4.5, 4: None, 6: 3.5}, 0.25)]
    curves = collect_curves(only_table(runs))
    gelu, swiglu = curve_of(curves, "gelu"), curve_of(curves, "swiglu")
    assert [(p.step, p.tokens) for p in gelu.points] == [(3, 192), (6, 384)]
    assert [(p.mean_loss_nats, p.low_nats, p.high_nats) for p in gelu.points] == [(6, 5, 7), (3, 2, 4)]
    assert [(p.step, p.mean_loss_nats) for p in swiglu.points] == [(3, 4.5), (6, 3.5)]
    # at the median rate, 1,001 and 1,000 tokens/s; what the log says of time has compilation in it
    assert [p.elapsed_s for p in gelu.points] == [192 / 1001, 384 / 1001]
    assert [p.elapsed_s for p in swiglu.points] == [0.192, 0.384]
    assert gelu.points[0].flops == 192 * 424_224
    assert (gelu.n_seeds, swiglu.n_seeds) == (3, 1)
    assert [curve.arm for curve in curves] == ["swiglu", "gelu"]


def test_the_distance_to_the_baseline_is_paired_by_seed(make_run: MakeRun) -> None:
    gelu, swiglu = {1: 5.0, 2: 5.5, 3: 4.0}, {1: 4.8, 2: 5.45, 3: 3.7, 7: 100.0}
    runs = [log(make_run("gelu", seed, 2.0), {3: loss}) for seed, loss in gelu.items()]
    runs += [log(make_run("swiglu", seed, 1.0), {3: loss}) for seed, loss in swiglu.items()]
    curves = collect_curves(only_table(runs))
    (point,) = curve_of(curves, "swiglu").points
    differences = [swiglu[seed] - gelu[seed] for seed in gelu]
    assert point.difference_nats == pytest.approx(statistics.mean(differences))
    low, high = stats.t.interval(0.95, 2, statistics.mean(differences), stats.sem(differences))
    assert point.difference_ci95 == pytest.approx((low, high))
    assert [p.difference_nats for p in curve_of(curves, "gelu").points] == [None]


def test_one_shared_seed_has_a_distance_and_no_interval(make_run: MakeRun) -> None:
    runs = [log(make_run("gelu", 0, 2.0), {3: 5.0}), log(make_run("swiglu", 0, 1.0), {3: 4.0})]
    runs += [log(make_run("relu", 5, 1.0), {3: 4.0})]
    curves = collect_curves(only_table(runs))
    (point,) = curve_of(curves, "swiglu").points
    assert (point.difference_nats, point.difference_ci95) == (-1.0, None)
    assert curve_of(curves, "relu").points[0].difference_nats is None


def test_only_places_that_all_seeds_have_count(make_run: MakeRun) -> None:
    runs = [
        log(make_run("gelu", 0, 2.0), {2: 5.0, 4: 4.0, 6: 3.0}),
        log(make_run("gelu", 1, 2.0), {3: 5.0, 6: 4.0}),
    ]
    runs += [log(make_run("swiglu", 0, 1.0), {6: None})]  # no number, as of a loss that was NaN
    curves = collect_curves(only_table(runs))
    assert [p.step for p in curve_of(curves, "gelu").points] == [6]
    assert [curve.arm for curve in curves] == ["gelu"]


def test_runs_without_a_log_have_no_curve_and_a_torn_one_is_named(make_run: MakeRun) -> None:
    runs = [make_run("gelu", 0, 2.0), make_run("swiglu", 0, 1.0)]
    table = only_table(runs)
    assert collect_curves(table) == []
    runs[0].metrics_path.write_text('{"step": 1\n{"step": 2}\n')
    with pytest.raises(DataError, match=r"metrics\.jsonl:1"):
        collect_curves(table)
