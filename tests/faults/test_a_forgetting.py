"""Group A, row A4: what shows that the comparison of A1 would notice a loader that forgets."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from glu_bench.train import loop, progress
from glu_bench.train.feed import Feed
from glu_bench.train.progress import Progress
from glu_bench.train.run import train_run
from tests.conftest import Ended, StopAt, TinyConfig
from tests.faults.conftest import Fault, Here, find_run, tiny_command, worth_of
from tests.faults.test_a_resume import STOPS, WORDS, list_differences, train_in_pieces


def drop_optimizer(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(progress, "unpack_optimizer", lambda *arguments: None)


def drop_weights(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(progress, "load_weights", lambda *arguments: None)


def drop_generators(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(torch, "set_rng_state", lambda state: None)


def drop_schedule(patch: pytest.MonkeyPatch) -> None:
    """The learning rate begins anew with each start."""
    resumed_at, rate = note_resumed_step(patch), loop.learning_rate
    patch.setattr(loop, "learning_rate", lambda step, *rest: rate(step - resumed_at[-1], *rest))


def drop_data_position(patch: pytest.MonkeyPatch) -> None:
    """The batches begin anew with each start."""
    resumed_at, take = note_resumed_step(patch), Feed.take
    patch.setattr(Feed, "take", lambda feed, step: take(feed, step - resumed_at[-1]))


def note_resumed_step(patch: pytest.MonkeyPatch) -> list[int]:
    """The steps that resumes began at, the present one last; 0 before the first."""
    resumed_at, restore = [0], loop.restore_progress

    def note(*arguments: Any) -> Progress:
        found = restore(*arguments)
        resumed_at.append(found.step)
        return found

    patch.setattr(loop, "restore_progress", note)
    return resumed_at


def drop_from_progress(*names: str) -> Callable[[pytest.MonkeyPatch], None]:
    """A loader that leaves these as they are at the start of a run."""
    restore = progress.restore_progress

    def forget(*arguments: Any) -> Progress:
        known = dataclasses.asdict(restore(*arguments))
        return Progress(**{name: value for name, value in known.items() if name not in names})

    return lambda patch: patch.setattr(loop, "restore_progress", forget)


TRAINED = {"model", "optimizer", "state", "result", "rows", "blocks"}
RECORDED = {"state", "result"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mutilate", "expected"),
    [
        pytest.param(lambda patch: None, set(), id="nothing"),
        pytest.param(drop_optimizer, TRAINED, id="optimiser"),
        pytest.param(drop_schedule, TRAINED, id="schedule"),
        pytest.param(drop_generators, TRAINED, id="generators"),
        pytest.param(drop_data_position, TRAINED, id="data position"),
        pytest.param(
            drop_from_progress("best_val_loss_nats", "best_val_step"), RECORDED, id="recorded minimum"
        ),
        pytest.param(drop_weights, TRAINED, id="weights"),
        pytest.param(drop_from_progress("first_loss_nats"), {"state"}, id="first loss"),
        pytest.param(drop_from_progress("recent_losses_nats"), RECORDED, id="recent losses"),
        pytest.param(drop_from_progress("tokens"), {*RECORDED, "rows"}, id="tokens"),
    ],
)
def test_a4_a_resume_that_forgets_something(
    mutilate: Callable[[pytest.MonkeyPatch], None],
    expected: set[str],
    here: Here,
    fault: Fault,
    tiny_words: list[str],
    straight_30_here: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A1 in this process, and a loader that leaves out one thing: optimiser, place in the schedule,
    generators, place in the data, recorded minimum, and more.

    The comparison of A1 reports a difference in what the thing decides; with nothing left out it
    reports none.
    """

    def start(*words: str, env: dict[str, str | None] | None = None) -> Ended:
        return here(*tiny_command(tiny_words, *words), env=env)

    with monkeypatch.context() as patch:
        mutilate(patch)
        train_in_pieces(start, fault, *WORDS, stops=STOPS)
    found = list_differences(straight_30_here, worth_of(find_run(tmp_path / "outputs")))
    assert found >= expected
    assert bool(found) == bool(expected)


@pytest.fixture(scope="module")
def straight_30_here(
    tiny_words: list[str], tiny_config: TinyConfig, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    """What the run of A1 is worth in this process."""
    folder = tmp_path_factory.mktemp("straight-30-here")
    for _ in train_run(tiny_config(*WORDS), folder, StopAt(31)):
        pass
    found = worth_of(find_run(folder))
    # the teeth need something to bite on
    assert found["result"]["best_val_step"] < STOPS[-1]
    assert found["result"]["unstable"]
    return found
