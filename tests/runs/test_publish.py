"""Published runs: small text, checked, and enough for the commands that read runs."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from glu_bench.errors import DataError
from glu_bench.runs.folder import Run
from glu_bench.runs.integrity import verify_run
from glu_bench.runs.publish import (
    FILE,
    check_published,
    is_whole,
    publish_run,
    read_published_summary,
    thin_row,
)
from glu_bench.study.plan import find_plan
from tests.conftest import Command

INSPECTION = {"n_tokens": 32, "summary": {"dead_share": 0.25, "gate_saturation": None}}


@pytest.fixture
def published(finished_run: Run, tmp_path: Path) -> Run:
    """The tiny finished run, published."""
    return Run(publish_run(finished_run, tmp_path / "reference", INSPECTION))


def test_what_is_published_is_text_and_tells_the_same(published: Run, finished_run: Run) -> None:
    names = {path.name for path in published.path.iterdir()}
    text = {"config.yaml", "environment.json", "result.json", "metrics.jsonl", "inspection.json", FILE}
    assert names == text
    assert published.status() == "complete"
    assert published.result() == finished_run.result()
    assert published.identity() == finished_run.identity()
    assert [row["step"] for row in published.rows()] == [row["step"] for row in finished_run.rows()]
    for row, whole in zip(published.rows(), finished_run.rows(), strict=True):
        assert row["loss_nats"] == pytest.approx(whole["loss_nats"], rel=1e-5)
    assert json.loads((published.path / FILE).read_text())["left_out"] == [
        "checkpoints",
        "blocks.safetensors",
    ]
    assert verify_run(published) == []


def test_a_run_of_a_tuning_keeps_what_the_tuning_looks_at(finished_run: Run, tmp_path: Path) -> None:
    thin = Run(publish_run(finished_run, tmp_path, None, every_row=False))
    steps = [row["step"] for row in finished_run.rows() if row["step"] == 1 or "val_loss_nats" in row]
    assert [row["step"] for row in thin.rows()] == steps
    assert 1 < len(steps) < len(list(finished_run.rows()))
    log_every = finished_run.config().train.log_every
    assert is_whole(finished_run.rows(), log_every)
    assert not is_whole(thin.rows(), log_every)
    assert is_whole([], log_every)
    assert verify_run(thin) == []


@pytest.mark.parametrize("name", ["config.yaml", "result.json", "metrics.jsonl", "inspection.json"])
def test_an_edited_file_is_found(name: str, published: Run) -> None:
    path = published.path / name
    path.write_text(path.read_text() + " ")
    assert any(f"{path}: content does not match {FILE}" in line for line in verify_run(published))


def test_a_file_too_many_or_too_few_is_found(published: Run) -> None:
    (published.path / "notes.txt").write_text("x")
    with pytest.raises(DataError, match=r"other files than were published \(notes.txt\)"):
        check_published(published.path)
    (published.path / "notes.txt").unlink()
    (published.path / "metrics.jsonl").unlink()
    with pytest.raises(DataError, match=r"metrics\.jsonl"):
        check_published(published.path)


def test_the_inspection_stands_for_the_checkpoint_it_was_made_of(published: Run, finished_run: Run) -> None:
    assert read_published_summary(published, 32) == INSPECTION["summary"]
    with pytest.raises(DataError, match="over 32 tokens, and there is no checkpoint for 64"):
        read_published_summary(published, 64)
    assert read_published_summary(finished_run, 32) is None
    (published.path / "inspection.json").write_text('{"n_tokens": 32, "summary": {"dead_share": 0.0}}')
    with pytest.raises(DataError, match="does not match"):
        read_published_summary(published, 32)


def test_only_what_came_to_an_end_is_published(finished_run: Run, tmp_path: Path) -> None:
    begun = Run(Path(shutil.copytree(finished_run.path, tmp_path / "runs" / finished_run.path.name)))
    (begun.path / "result.json").unlink()
    with pytest.raises(DataError, match="interrupted; only what came to an end"):
        publish_run(begun, tmp_path / "reference", None)
    assert not (tmp_path / "reference").exists()


def test_a_row_keeps_six_digits_and_lists_where_it_was_evaluated() -> None:
    row = {"step": 20, "loss_nats": 1.23456789, "dead_share_per_layer": [0.123456789, 0.0]}
    assert thin_row(row) == {"step": 20, "loss_nats": 1.23457}
    assert thin_row({**row, "val_loss_nats": 2.0})["dead_share_per_layer"] == [0.123457, 0.0]
    assert thin_row({**row, "step": 1})["dead_share_per_layer"] == [0.123457, 0.0]


@pytest.mark.slow
def test_a_published_sweep_is_compared_and_judged_like_any_other(
    call_command: Command, tiny_words: list[str], tmp_path: Path
) -> None:
    grid = ["sweep", *tiny_words, "variant=relu,swish", "seed=0,1", "train.steps=2", "-j", "1", "--quiet"]
    there = ["--output-dir", str(tmp_path / "own")]
    assert (
        call_command(
            *grid, *there, "--name", "both", "--tune", "optim.lr=1e-3,2e-3", "--tune-seeds", "7"
        ).code
        == 0
    )
    publish = ["runs", "publish", "both", "--to", str(tmp_path / "to"), "--tokens", "256", *there, "--json"]
    ended = call_command(*publish)
    assert ended.code == 0, ended.err
    first = json.loads(ended.out)
    assert (len(first["published"]), first["not_finished"]) == (2 * 2 + 2 * 2, [])
    assert json.loads(call_command(*publish).out)["published"] == []
    folder = tmp_path / "to" / "both"
    shutil.rmtree(tmp_path / "own" / "runs")
    compared = call_command("compare", str(folder), "--baseline", "relu", "--json")
    assert compared.code == 0, compared.err
    (table,) = json.loads(compared.out)["tables"]
    assert {arm["arm"]: arm["n_finished"] for arm in table["arms"]} == {"relu": 2, "swish": 2}
    judged = call_command("claims", str(folder), "--tokens", "256", "--json")
    assert judged.code == 0, judged.err
    assert find_plan(str(folder), tmp_path / "nothing").sweep_id == "both"
    rows = json.loads(judged.out)["claims"]
    dead = next(row for row in rows if row["claim"] == "fewer units die with Swish than with ReLU")
    assert (dead["n_seeds"], dead["arms"]) == (2, ["swish", "relu"])


@pytest.mark.slow
@pytest.mark.parametrize(("gone", "options"), [("checkpoints", ()), (None, ("--device", "cuda:99"))])
def test_a_sweep_that_cannot_be_inspected_is_published_all_the_same(
    gone: str | None,
    options: tuple[str, ...],
    call_command: Command,
    tiny_words: list[str],
    tmp_path: Path,
) -> None:
    grid = ["sweep", *tiny_words, "train.steps=2", "-j", "1", "--quiet", "--name", "one"]
    there = ["--output-dir", str(tmp_path / "own")]
    assert call_command(*grid, *there).code == 0
    (run,) = (tmp_path / "own" / "runs").glob("swiglu-*")
    if gone is not None:
        shutil.rmtree(run / gone)
    ended = call_command("runs", "publish", "one", "--to", str(tmp_path / "to"), *options, *there)
    assert ended.code == 0, ended.err
    assert "note: published without an inspection" in ended.err
    assert not (tmp_path / "to" / "one" / "runs" / run.name / "inspection.json").exists()
