"""glu-bench inspect and eval --gate: what they print, what they refuse."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import pytest

from glu_bench.runs.checkpoint import list_checkpoints, load_checkpoint, save_checkpoint
from glu_bench.runs.folder import Run
from tests.conftest import Command, Train


@pytest.fixture
def two_runs(train: Train, tmp_path: Path) -> Path:
    """An output folder with a gated and an ungated run of one step."""
    for variant in ("swiglu", "relu"):
        train(f"variant={variant}", "train.steps=1")
    return tmp_path


def test_one_run_has_its_layers_and_summary_on_top(finished_run: Run, call_command: Command) -> None:
    ended = call_command("inspect", str(finished_run.path), "--json", "--tokens", "300")
    value = json.loads(ended.out)
    assert next(iter(value)) == "schema_version"
    assert value["run_id"] == finished_run.run_id
    assert (value["step"], value["split"], value["tokens"]) == (6, "val", 300)
    assert [layer["layer"] for layer in value["layers"]] == [0, 1]
    fixed = {"dead_share", "always_on_share", "zero_share", "saturation"}
    assert all(fixed <= set(layer) for layer in value["layers"])
    assert fixed <= set(value["summary"])


def test_several_runs_stand_side_by_side(two_runs: Path, call_command: Command) -> None:
    words = ("inspect", "relu", "swiglu", "--output-dir", str(two_runs))
    runs = json.loads(call_command(*words, "--json").out)["runs"]
    assert [run["variant"] for run in runs] == ["relu", "swiglu"]
    assert [run["summary"]["gate_weight_norm"] is None for run in runs] == [True, False]
    shown = call_command(*words)
    assert shown.code == 0
    assert all(run["run_id"] in shown.out for run in runs)
    assert "saturated" in shown.out
    both = json.loads(call_command("inspect", str(two_runs), "--json").out)["runs"]
    assert {run["run_id"] for run in both} == {run["run_id"] for run in runs}


def test_over_shows_every_checkpoint_in_order(finished_run: Run, call_command: Command) -> None:
    words = ("inspect", str(finished_run.path), "--over")
    value = json.loads(call_command(*words, "--json").out)
    assert [each["step"] for each in value["checkpoints"]] == [4, 6]
    assert value["layers"] == value["checkpoints"][1]["layers"]
    shown = call_command(*words)
    assert shown.out.count(finished_run.run_id) == 2
    chosen = json.loads(call_command("inspect", str(finished_run.path), "--checkpoint", "4", "--json").out)
    assert chosen["layers"] == value["checkpoints"][0]["layers"]


def test_one_run_is_shown_block_by_block(finished_run: Run, call_command: Command) -> None:
    ended = call_command("inspect", str(finished_run.path), "--quiet")
    assert ended.err == ""
    lines = [line.split() for line in ended.out.splitlines()]
    assert [line[0] for line in lines if line and line[0] in ("0", "1", "all")] == ["0", "1", "all"] * 3


@pytest.mark.parametrize(
    ("words", "code", "part"),
    [
        (["nosuch"], 2, "nosuch"),
        (["RUN", "--split", "dev"], 2, "train, val or test"),
        (["RUN", "--over", "--checkpoint", "4"], 2, "not both"),
        (["RUN", "--checkpoint", "5"], 3, "there are 4, 6"),
        (["RUN", "--tokens", "20"], 3, "too few, at least 129"),
        (["RUN", "--figure", "a.bmp"], 2, ".svg, .png, .pdf"),
        (["RUN", "--device", "gpu"], 2, "no device"),
    ],
    ids=str,
)
def test_what_cannot_work_ends_in_one_line(
    words: list[str], code: int, part: str, finished_run: Run, call_command: Command
) -> None:
    ended = call_command("inspect", *[str(finished_run.path) if w == "RUN" else w for w in words], "--quiet")
    assert ended.code == code
    (line,) = ended.err.splitlines()
    assert part in line


def test_weights_that_are_no_numbers_are_named_and_null(
    finished_run: Run, tmp_path: Path, call_command: Command
) -> None:
    copy = Run(Path(shutil.copytree(finished_run.path, tmp_path / finished_run.path.name)))
    last = load_checkpoint(list_checkpoints(copy.checkpoints)[-1])
    last.model["blocks.0.ffn.hidden.in_proj.weight"][3, 0] = math.nan
    state = json.loads((last.path / "state.json").read_text())
    save_checkpoint(copy.checkpoints, copy.run_id, last.step, last.model, last.optimizer, state, 2)
    ended = call_command("inspect", str(copy.path), "--json", "--figure", str(tmp_path / "a.svg"))
    assert ended.code == 0
    value = json.loads(ended.out)
    assert value["nonfinite_weights"] == {"blocks.0.ffn.hidden.in_proj.weight": 1}
    assert value["summary"]["dead_share"] is value["loss_nats"] is None
    assert value["layers"][0]["nonfinite_hidden"] > 0
    assert "note: " in ended.err
    assert "blocks.0.ffn.hidden.in_proj.weight: 1 weights are not finite" in ended.err
    assert (tmp_path / "a.svg").is_file()
    broken = call_command("eval", str(copy.path), "--gate", "constant", "--quiet")
    assert broken.code == 3
    assert "a loss of nan nats" in broken.err


def test_eval_replaces_the_gates_and_says_what_is_lost(two_runs: Path, call_command: Command) -> None:
    words = ("eval", "swiglu", "relu", "--gate", "shuffled", "--output-dir", str(two_runs))
    runs = json.loads(call_command(*words, "--tokens", "64", "--json").out)["runs"]
    assert [(run["variant"], run["gate"], run["tokens"]) for run in runs] == [
        ("swiglu", "shuffled", 64),
        ("relu", "shuffled", 64),
    ]
    assert all(len(run["lost_nats_per_layer"]) == 2 for run in runs)
    assert all({"loss_nats", "lost_nats", "split", "run_id"} <= set(run) for run in runs)
    shown = call_command(*words)
    assert "shuffled gates" in shown.out
    assert "shuffled gates" in shown.err


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["--gate", "linea"], "did you mean 'linear'"),
        (["--gate", "linear", "--stride", "8"], "alone"),
        (["--gate", "linear", "--files", "x.txt"], "alone"),
        (["--tokens", "64"], "goes with --gate"),
    ],
    ids=str,
)
def test_eval_refuses_what_does_not_go_with_a_gate(
    words: list[str], part: str, finished_run: Run, call_command: Command
) -> None:
    ended = call_command("eval", str(finished_run.path), *words)
    assert ended.code == 2
    assert part in ended.err
