"""What is left of a plan, added up."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from glu_bench.cost import estimate as room
from glu_bench.cost.estimate import Estimate, Stage, estimate_stages, sum_stage
from glu_bench.files import write_json
from glu_bench.runs.record import write_record
from glu_bench.schema import Config
from glu_bench.study.plan import load_plan, make_plan


def test_a_stage_is_the_sum_of_the_runs_that_are_left(
    tiny_words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of seeds 0 to 4 one is complete, one diverged, one failed; a seed costs its powers of ten."""
    asked: list[int] = []

    def estimate(configs: Sequence[Config], calibrate: bool) -> list[Estimate]:
        seeds = [config.seed for config in configs]
        asked.extend(seeds)
        return [
            Estimate(flops=10**seed, elapsed_s=seed / 2 if calibrate else None, disk_bytes=7 * 10**seed)
            for seed in seeds
        ]

    monkeypatch.setattr(room, "estimate_runs", estimate)
    first = make_plan([*tiny_words, "seed=0,1,2,3"], tmp_path, name="first")
    second = make_plan([*tiny_words, "seed=4"], tmp_path, name="second")
    folders = [first.run(planned).path for planned in first.runs]
    for folder in folders[:3]:
        folder.mkdir(parents=True)
    write_record(folders[0] / "result.json", {"val_loss_nats": 1.0})
    for folder, status in zip(folders[1:3], ("diverged", "failed"), strict=True):
        write_json(folder / "failure.json", {"status": status, "step": 3, "reason": "said so"})
    plans = {"tune": load_plan(first.folder), "confirm": second}  # one read, one just made
    tune, confirm = estimate_stages(plans)
    assert asked == [2, 3, 4]
    assert tune == Stage(stage="tune", planned=4, pending=2, flops=1_100, elapsed_s=2.5, disk_bytes=7_700)
    assert confirm == Stage(
        stage="confirm", planned=1, pending=1, flops=10_000, elapsed_s=2.0, disk_bytes=70_000
    )
    assert [stage.elapsed_s for stage in estimate_stages(plans, calibrate=False)] == [None, None]


def test_where_nothing_is_left_nothing_is_to_be_paid() -> None:
    assert sum_stage("all", 3, [], calibrate=True) == Stage(
        stage="all", planned=3, pending=0, flops=0, elapsed_s=0.0, disk_bytes=0
    )
