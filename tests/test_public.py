"""What is public, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

import glu_bench
from glu_bench.errors import DataError
from glu_bench.runs.folder import Run
from tests.conftest import Train


@pytest.mark.parametrize("name", glu_bench.__all__)
def test_every_public_name_is_there_and_says_what_it_is(name: str) -> None:
    assert callable(getattr(glu_bench, name))
    assert getattr(glu_bench, name).__doc__


def test_the_public_names_are_those_of_the_interface() -> None:
    assert set(glu_bench.__all__) == {
        *("load_variant", "list_variants", "make_feedforward", "swap_feedforward", "load_run", "compare_runs")
    }


def test_another_name_is_missing_in_the_usual_way() -> None:
    with pytest.raises(AttributeError, match="nosuch"):
        _ = glu_bench.nosuch


def test_a_run_is_loaded_with_configuration_records_and_model(finished_run: Run) -> None:
    run = glu_bench.load_run(str(finished_run.path))
    assert run.config().variant.name == "swiglu"
    assert run.result()["status"] == "complete"
    assert run.rows()[-1]["step"] == 6
    assert sum(p.numel() for p in run.load_model().parameters()) == run.result()["n_params"]
    with pytest.raises(DataError):
        glu_bench.load_run(finished_run.path.parent)


def test_runs_are_compared_by_path(train: Train, tmp_path: Path) -> None:
    records = [train(f"variant={variant}") for variant in ("relu", "swiglu")]
    paths = [tmp_path / "runs" / record["run_id"] for record in records]
    (table,) = glu_bench.compare_runs([str(path) for path in paths], baseline="relu")
    assert table.baseline == "relu"
    means = {arm.arm: arm.mean_loss_nats for arm in table.arms}
    assert means == {record["variant"]: record["test_loss_nats"] for record in records}
