"""Measures of runs against numbers worked out by hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from glu_bench.study import measures
from glu_bench.study.arms import Entry
from glu_bench.study.measures import Sources, find_crossing
from tests.study.conftest import MakeEntry

Rows = Sequence[Mapping[str, Any]]


def sources_of(rows: Mapping[str, Rows]) -> Sources:
    def read(entry: Entry) -> Rows:
        return rows.get(entry.arm, [])

    return Sources(rows=read, every_row=read, summary=lambda entry: {})


def curve(*points: tuple[int, float], trained: Sequence[float] = ()) -> list[dict[str, Any]]:
    """Rows with held-out losses; `trained` stands in the row before each."""
    rows: list[dict[str, Any]] = []
    for at, (tokens, loss) in enumerate(points):
        if trained:
            rows.append({"step": at, "tokens": tokens, "loss_nats": trained[at]})
        rows.append({"step": at, "tokens": tokens, "val_loss_nats": loss})
    return rows


@pytest.fixture
def two(make_entry: MakeEntry) -> list[Entry]:
    return [make_entry("gelu", 0, 2.0), make_entry("swiglu", 0, 1.8)]


def test_a_record_gives_its_number_and_unfinished_runs_none(make_entry: MakeEntry) -> None:
    entries = [make_entry("gelu", 0, 2.0), make_entry("gelu", 1, None), make_entry("relu", 1, 3.0)]
    found = measures.of_record("test_loss_nats")(entries, sources_of({}))
    assert found == {"gelu": {0: 2.0}, "relu": {1: 3.0}}
    assert measures.of_record("no_such")(entries, sources_of({})) == {}
    assert measures.measure_step_time(entries, sources_of({})) == {"gelu": {0: 1 / 500}, "relu": {1: 1 / 500}}


def test_the_area_is_the_mean_height(two: list[Entry]) -> None:
    """From 10 to 20 between 4 and 2, to 40 between 2 and 1: (30 + 30) / 30."""
    rows = {"gelu": curve((10, 4.0), (20, 2.0), (40, 1.0)), "swiglu": curve((10, 4.0))}
    assert measures.measure_area(two, sources_of(rows)) == {"gelu": {0: 2.0}}


def test_tokens_to_the_loss_of_the_last(two: list[Entry]) -> None:
    """gelu ends at 2, where swiglu is half way from 3 to 1."""
    rows = {"gelu": curve((10, 4.0), (20, 3.0), (40, 2.0)), "swiglu": curve((10, 4.0), (20, 3.0), (40, 1.0))}
    assert measures.measure_tokens_to_level(two, sources_of(rows)) == {"gelu": {0: 40.0}, "swiglu": {0: 30.0}}
    rows["swiglu"] = []
    one_less = [*two, *two]
    assert measures.measure_tokens_to_level(one_less, sources_of(rows)) == {"gelu": {0: 40.0}}


def test_a_seed_that_an_arm_lacks_sets_no_level(make_entry: MakeEntry) -> None:
    entries = [make_entry("gelu", seed, 2.0) for seed in (0, 1)] + [make_entry("swiglu", 0, 2.0)]
    rows = {"gelu": curve((10, 4.0), (40, 2.0)), "swiglu": curve((10, 4.0), (40, 1.0))}
    found = measures.measure_tokens_to_level(entries, sources_of(rows))
    assert {arm: set(by_seed) for arm, by_seed in found.items()} == {"gelu": {0}, "swiglu": {0}}


@pytest.mark.parametrize(("level", "at"), [(5.0, 10.0), (3.0, 15.0), (1.0, 40.0)])
def test_a_curve_is_straight_between_its_points(level: float, at: float) -> None:
    assert find_crossing([(10.0, 4.0), (20.0, 2.0), (40.0, 1.0)], level) == at


def test_a_level_that_is_not_reached_is_refused() -> None:
    with pytest.raises(ValueError, match="ends above"):
        find_crossing([(10.0, 4.0), (20.0, 2.0)], 1.0)


def test_the_gap_is_taken_where_training_losses_are_equal(two: list[Entry]) -> None:
    """gelu trains to 2, held-out 3; swiglu passes 2 half way from 3 to 1, held-out between 3.5 and 2.5."""
    rows = {
        "gelu": curve((10, 4.0), (20, 3.0), trained=(3.0, 2.0)),
        "swiglu": curve((10, 3.5), (20, 2.5), trained=(3.0, 1.0)),
    }
    assert measures.measure_gap_at_level(two, sources_of(rows)) == {"gelu": {0: 1.0}, "swiglu": {0: 1.0}}


def test_the_tail_of_gradient_norms_is_numpys_quantile(two: list[Entry]) -> None:
    norms = np.random.default_rng(0).lognormal(size=60)
    rows = {"gelu": [{"grad_norm": float(norm)} for norm in norms], "swiglu": [{"grad_norm": 1.0}] * 9}
    found = measures.measure_gradient_tail(two, sources_of(rows))
    assert found == {"gelu": {0: pytest.approx(np.quantile(norms, 0.99) / np.median(norms))}}


def test_spikes_are_counted_where_enough_is_logged(two: list[Entry]) -> None:
    losses = [3.0, 3.1] * 10 + [9.0] + [3.0, 3.1] * 5
    rows = {"gelu": [{"step": at, "loss_nats": loss} for at, loss in enumerate(losses)], "swiglu": []}
    assert measures.count_spikes(two, sources_of(rows)) == {"gelu": {0: 1.0}}


def test_diagnostics_are_read_at_a_share_of_the_steps_straight_between_those_noted(two: list[Entry]) -> None:
    rows = {
        "gelu": [
            {"step": 1, "dead_share_per_layer": [0.0, 0.2]},
            {"step": 40, "dead_share_per_layer": [0.2, 0.4]},
            {"step": 70, "dead_share_per_layer": [0.5, 0.7]},
            {"step": 100, "loss_nats": 1.0},
        ],
        "swiglu": [{"step": 1, "dead_share_per_layer": [None, 0.2]}],
    }
    start, mid, end = (measures.of_diagnostics("dead_share", share) for share in (0.0, 0.5, 1.0))
    assert start(two, sources_of(rows)) == {"gelu": {0: pytest.approx(0.1)}}
    # step 50 is a third of the way from step 40, where it is 0.3, to step 70, where it is 0.6
    assert mid(two, sources_of(rows)) == {"gelu": {0: pytest.approx(0.4)}}
    assert end(two, sources_of(rows)) == {"gelu": {0: pytest.approx(0.6)}}
    rows["swiglu"] = [{"step": 1, "dead_share_per_layer": 0.2}]  # a stranger's record: no list
    assert start(two, sources_of(rows)) == {"gelu": {0: pytest.approx(0.1)}}


def test_the_highest_stable_rate_lies_below_the_least_that_diverged(make_entry: MakeEntry) -> None:
    def at(variant: str, lr: float, loss: float | None, **changes: Any) -> Entry:
        return make_entry(variant, 0, loss, {"optim.lr": lr}, **changes)

    entries = [
        *(at("gelu", lr, 2.0) for lr in (0.1, 0.2, 0.8)),
        *(at("gelu", lr, None) for lr in (0.4, 1.6)),
        *(at("relu", lr, 2.0) for lr in (0.1, 0.2)),
        at("swiglu", 0.1, 2.0),
        at("swiglu", 0.2, 2.0, unstable=True),
        at("geglu", 0.1, None),
    ]
    found = measures.find_highest_stable_lr(entries, sources_of({}))
    assert found == {"gelu": {0: 0.2}, "swiglu": {0: 0.1}}
