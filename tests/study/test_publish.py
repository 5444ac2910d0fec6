"""A sweep published: what is taken along, what waits, what is left alone."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from glu_bench.runs.folder import Run
from glu_bench.runs.record import write_record
from glu_bench.study.arms import find_runs
from glu_bench.study.plan import find_plan, make_plan
from glu_bench.study.publish import Published, publish_sweep


class Inspector:
    """Says something of every run, and keeps the ids it was asked about."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def __call__(self, run: Run) -> dict[str, object]:
        self.asked.append(run.path.name)
        return {"n_tokens": 8, "summary": {"dead_share": 0.5}}


def put_run(finished_run: Run, output_dir: Path) -> str:
    """The id of the finished run of seed 0, which lies there as well now."""
    run_id = finished_run.path.name
    shutil.copytree(finished_run.path, output_dir / "runs" / run_id)
    return run_id


def test_what_has_ended_is_published_once_and_the_rest_waits(
    tiny_words: list[str], finished_run: Run, tmp_path: Path
) -> None:
    run_id = put_run(finished_run, tmp_path)
    plan = make_plan([*tiny_words, "seed=0,1"], tmp_path, name="two")
    assert plan.runs[0].run_id == run_id
    waiting = [plan.runs[1].run_id]
    inspector = Inspector()
    folder = tmp_path / "to" / "two"
    found = publish_sweep(plan, tmp_path / "to", inspector)
    assert found == Published(folder=folder, done=[run_id], left=waiting)
    assert (folder / "runs" / run_id / "inspection.json").is_file()
    assert [run.run_id for run in find_plan(str(folder), tmp_path / "none").runs] == [run_id, *waiting]
    again = publish_sweep(plan, tmp_path / "to", inspector)
    assert again == Published(folder=folder, done=[], left=waiting)
    assert inspector.asked == [run_id]


def test_of_a_log_the_evaluations_alone_may_be_kept(
    tiny_words: list[str], finished_run: Run, tmp_path: Path
) -> None:
    run_id = put_run(finished_run, tmp_path)
    plan = make_plan([*tiny_words, "seed=0"], tmp_path, name="thin")
    inspector = Inspector()
    found = publish_sweep(plan, tmp_path / "to", inspector, evaluations_only=True)
    assert inspector.asked == []
    assert not (found.folder / "runs" / run_id / "inspection.json").exists()
    steps = [row["step"] for row in Run(found.folder / "runs" / run_id).rows()]
    kept = [row["step"] for row in finished_run.rows() if row["step"] == 1 or "val_loss_nats" in row]
    assert steps == kept
    assert len(kept) < len(finished_run.rows())


def test_a_tuning_goes_along_and_its_runs_are_not_inspected(
    tiny_words: list[str], finished_run: Run, tmp_path: Path
) -> None:
    run_id = put_run(finished_run, tmp_path)
    make_plan([*tiny_words, "seed=0"], tmp_path, name="own-tune")
    plan = make_plan([*tiny_words, "seed=1"], tmp_path, name="own")
    write_record(plan.folder / "tuning.json", {"schema_version": 1})
    inspector = Inspector()
    found = publish_sweep(plan, tmp_path / "to", inspector)
    assert (found.done, found.left) == ([run_id], [plan.runs[0].run_id])
    assert inspector.asked == []
    assert not (found.folder / "runs" / run_id / "inspection.json").exists()
    rows = [row["step"] for row in Run(found.folder / "runs" / run_id).rows()]
    assert 0 < len(rows) < len(finished_run.rows())
    there = sorted(path.relative_to(found.folder / "sweeps") for path in found.folder.glob("sweeps/*/*"))
    assert [str(path) for path in there] == ["own/plan.json", "own/tuning.json", "own-tune/plan.json"]


def test_a_folder_of_published_sweeps_means_the_runs_of_all(
    tiny_words: list[str], finished_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_id = put_run(finished_run, tmp_path)
    for name, seeds in (("one", "0,1"), ("two", "0,2")):
        plan = make_plan([*tiny_words, f"seed={seeds}"], tmp_path, name=name)
        publish_sweep(plan, tmp_path / "to", Inspector())
    (tmp_path / "to" / "note.txt").touch()
    found, named = find_runs([str(tmp_path / "to")], tmp_path / "none")
    assert not named
    assert [run.path.name for run in found if isinstance(run, Run)] == [run_id]  # once, of two copies
    assert sum(not isinstance(run, Run) for run in found) == 2
    monkeypatch.chdir(tmp_path / "to" / "two")
    assert find_plan(".", tmp_path / "none").sweep_id == "two"
    assert len(find_runs(["."], tmp_path / "none")[0]) == 2
