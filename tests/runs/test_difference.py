"""Where two runs part, and in which order that is said."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from glu_bench.runs.difference import diff_runs
from glu_bench.runs.folder import Run

Train = Callable[..., dict[str, Any]]


def copy(run: Run, folder: Path) -> Run:
    return Run(Path(shutil.copytree(run.path, folder / run.path.name)))


def test_a_run_and_its_copy_agree(finished_run: Run, tmp_path: Path) -> None:
    found = diff_runs(finished_run, copy(finished_run, tmp_path))
    assert found.first is None


def test_settings_come_first(finished_run: Run, train: Train, tmp_path: Path) -> None:
    other = Run(tmp_path / "runs" / train("seed=1")["run_id"])
    found = diff_runs(finished_run, other)
    assert found.first is not None
    assert (found.first.section, found.first.name, found.first.a, found.first.b) == (
        "configuration",
        "seed",
        0,
        1,
    )
    assert found.step is not None
    assert found.step.name == "loss_nats at step 1"


def test_machine_comes_before_text_and_text_before_steps(finished_run: Run, tmp_path: Path) -> None:
    other = copy(finished_run, tmp_path)
    rows = [json.loads(line) for line in other.metrics_path.read_text().splitlines()]
    rows[2]["loss_nats"] += 1e-12
    other.metrics_path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = diff_runs(finished_run, other)
    assert found.first is found.step is not None
    assert found.step.name == "loss_nats at step 3"

    path = other.path / "environment.json"
    facts = json.loads(path.read_text())
    facts["splits"]["train"]["n_bytes"] += 1
    path.write_text(json.dumps(facts))
    found = diff_runs(finished_run, other)
    assert found.first is not None
    assert (found.first.section, found.first.name) == ("data", "splits.train.n_bytes")

    path.write_text(json.dumps(facts | {"n_threads": 64}))
    found = diff_runs(finished_run, other)
    assert found.first is not None
    assert (found.first.section, found.first.name) == ("environment", "n_threads")


def test_a_missing_row_is_a_difference(finished_run: Run, tmp_path: Path) -> None:
    other = copy(finished_run, tmp_path)
    lines = other.metrics_path.read_text().splitlines(keepends=True)
    other.metrics_path.write_text("".join(lines[:-1]))
    found = diff_runs(finished_run, other)
    assert found.first is not None
    assert found.first.name == "loss_nats at step 6"
    assert found.first.b is None
