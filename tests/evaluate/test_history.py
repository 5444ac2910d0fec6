"""Loss spikes and the gap, from rows made by hand."""

from __future__ import annotations

import math
from typing import Any

import pytest

from glu_bench.evaluate.history import read_history


def make_rows(losses: list[float]) -> list[dict[str, Any]]:
    return [{"step": 10 * (at + 1), "loss_nats": loss} for at, loss in enumerate(losses)]


CALM = [3.0 + 0.01 * math.sin(at) for at in range(60)]  # sd 0.007


def test_a_spike_is_seven_standard_deviations_above_what_came_before() -> None:
    losses = list(CALM)
    losses[40] = 3.06  # 8 sd
    found = read_history(make_rows(losses), None)
    assert found.loss_spike_steps == [410]
    assert found.n_loss_spikes == 1
    assert found.loss_spike_share == pytest.approx(1 / 50)
    losses[40] = 3.04  # 6 sd
    assert read_history(make_rows(losses), None).n_loss_spikes == 0


def test_a_loss_that_falls_is_no_spike() -> None:
    losses = list(CALM)
    losses[40] = 2.0
    assert read_history(make_rows(losses), None).n_loss_spikes == 0
    assert read_history(make_rows([5.5 * 0.98**at for at in range(200)]), None).n_loss_spikes == 0


def test_only_the_fifty_before_are_looked_at() -> None:
    losses = [9.0, 1.0] * 10 + CALM
    assert read_history(make_rows([*losses, 3.06]), None).loss_spike_steps == [810]
    assert read_history(make_rows([9.0, 1.0, *CALM[:40], 3.06]), None).n_loss_spikes == 0


def test_few_rows_and_no_record_say_nothing() -> None:
    found = read_history(make_rows([3.0] * 10), None)
    assert found.n_loss_spikes is found.loss_spike_share is found.train_held_out_gap_nats is None


def test_the_gap_is_held_out_minus_training_loss() -> None:
    found = read_history([], {"val_loss_nats": 1.5, "train_loss_nats": 1.25})
    assert found.train_held_out_gap_nats == 0.25


@pytest.mark.parametrize("value", [None, "x", True, 10**400, math.nan])
def test_what_is_no_number_in_a_record_of_a_stranger_is_left_out(value: Any) -> None:
    rows = [*make_rows(CALM), {"step": 1000, "loss_nats": value}, [1], {"step": "x", "loss_nats": 9.0}]
    found = read_history(rows, {"val_loss_nats": value, "train_loss_nats": 1.0})  # type: ignore[arg-type]
    assert found.train_held_out_gap_nats is None
    assert found.n_loss_spikes == 0


def test_numbers_beyond_all_use_are_left_out() -> None:
    """Of a stranger's record: neither may end in an overflow."""
    rows = make_rows(CALM)
    rows[20]["loss_nats"], rows[30]["loss_nats"] = 1e299, 10**400
    assert read_history(rows, {"val_loss_nats": 10**400, "train_loss_nats": 1.0}).loss_spike_steps == []
