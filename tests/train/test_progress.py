"""How far a run has come."""

from __future__ import annotations

import math

import pytest

from glu_bench.train.progress import N_RECENT, Progress


def test_steps_add_up_and_warm_up_is_left_out_of_the_speed() -> None:
    progress = Progress()
    progress.count_step(3.0, 100, 9.0, timed=False)
    for loss_nats in (2.0, 1.0):
        progress.count_step(loss_nats, 100, 0.5, timed=True)
    assert (progress.step, progress.tokens, progress.elapsed_s) == (3, 300, 10.0)
    assert progress.tokens_per_s == 200
    assert progress.first_loss_nats == 3.0
    assert progress.train_loss_nats == 2.0


def test_there_is_no_speed_before_a_timed_step() -> None:
    assert Progress().tokens_per_s is None


def test_the_training_loss_is_the_mean_of_the_last_steps() -> None:
    progress = Progress()
    for step in range(2 * N_RECENT):
        progress.count_step(float(step >= N_RECENT), 1, 0.0, timed=False)
    assert progress.train_loss_nats == 1.0
    assert len(progress.recent_losses_nats) == N_RECENT


@pytest.mark.parametrize(
    ("losses_nats", "best", "at"),
    [
        ([math.nan, 3.0], 3.0, 2),
        ([3.0, math.nan], 3.0, 1),
        ([3.0, 2.0, 2.5], 2.0, 2),
        ([2.0, 2.0], 2.0, 1),
        ([math.inf, math.nan], None, None),
    ],
)
def test_the_least_held_out_loss_is_the_least_finite_one(
    losses_nats: list[float], best: float | None, at: int | None
) -> None:
    progress = Progress()
    for loss_nats in losses_nats:
        progress.step += 1
        progress.count_evaluation(loss_nats)
    assert (progress.best_val_loss_nats, progress.best_val_step) == (best, at)
