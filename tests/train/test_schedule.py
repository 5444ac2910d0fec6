"""Learning rate over the steps of a run."""

from __future__ import annotations

import dataclasses
import itertools
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glu_bench import schema
from glu_bench.config import load_config
from glu_bench.train.schedule import learning_rate

SCHEDULES = ("cosine", "linear", "wsd", "constant")
PLAIN = load_config().optim


def optim(**changes: Any) -> schema.Optim:
    given_values = {"lr": 1.0, "warmup_share": 0.1, "decay_share": 0.2, "floor_share": 0.1, **changes}
    return dataclasses.replace(PLAIN, **given_values)


def rates(n_steps: int, spec: schema.Optim) -> list[float]:
    return [learning_rate(step, n_steps, spec) for step in range(n_steps)]


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_the_rate_rises_in_a_line_and_is_full_at_the_end_of_the_warm_up(schedule: str) -> None:
    found = rates(100, optim(schedule=schedule))
    assert found[:10] == pytest.approx([(i + 1) / 10 for i in range(10)])
    assert max(found) == 1.0


@pytest.mark.parametrize(
    ("schedule", "last"), [("cosine", 0.1), ("linear", 0.1), ("wsd", 0.1), ("constant", 1)]
)
def test_the_last_step_has_the_floor(schedule: str, last: float) -> None:
    assert rates(100, optim(schedule=schedule))[-1] == pytest.approx(last)


def test_the_cosine_is_half_way_at_half_time() -> None:
    assert rates(110, optim(schedule="cosine", warmup_share=10 / 110))[59] == pytest.approx((1 + 0.1) / 2)


def test_the_cosine_follows_its_formula() -> None:
    spec = optim(schedule="cosine", warmup_share=0.0, floor_share=0.0)
    assert rates(8, spec) == pytest.approx([0.5 * (1 + math.cos(math.pi * (i + 1) / 8)) for i in range(8)])


def test_the_line_falls_by_equal_steps() -> None:
    found = rates(50, optim(schedule="linear"))[5:]
    assert {round(a - b, 12) for a, b in itertools.pairwise(found)} == {0.02}


def test_wsd_is_flat_until_its_decay_begins() -> None:
    found = rates(100, optim(schedule="wsd"))
    assert found[10:80] == [1.0] * 70
    assert found[80] == pytest.approx(1 - 0.9 / 20)
    assert found[80:] == sorted(found[80:], reverse=True)


@given(
    st.sampled_from(SCHEDULES),
    st.integers(1, 60),
    st.floats(0, 0.999),
    st.floats(0.001, 1),
    st.floats(0, 1),
)
def test_no_rate_leaves_its_bounds(
    schedule: str, n_steps: int, warmup_share: float, decay_share: float, floor_share: float
) -> None:
    shares = {"warmup_share": warmup_share, "decay_share": decay_share, "floor_share": floor_share}
    found = rates(n_steps, optim(schedule=schedule, **shares))
    assert all(math.isfinite(rate) and 0 <= rate <= 1 + 1e-12 for rate in found)
    after_warm_up = found[round(warmup_share * n_steps) :]
    assert all(a >= b - 1e-12 for a, b in itertools.pairwise(after_warm_up))


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_run_of_one_step_has_a_rate(schedule: str) -> None:
    assert math.isfinite(learning_rate(0, 1, optim(schedule=schedule)))
