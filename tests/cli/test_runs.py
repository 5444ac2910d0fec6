"""glu-bench runs list, diff, verify, import, prune: exit codes and streams."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from glu_bench.runs.checkpoint import list_checkpoints
from glu_bench.runs.folder import Run

Command = Callable[..., Any]


@pytest.fixture
def outputs(finished_run: Run, tmp_path: Path) -> Path:
    """An output folder with one finished run."""
    shutil.copytree(finished_run.path, tmp_path / "outputs" / "runs" / finished_run.path.name)
    return tmp_path / "outputs"


@pytest.fixture
def glu_bench(call_command: Command, outputs: Path) -> Command:
    """A command with that output folder."""
    return lambda *words: call_command(*words, "--output-dir", str(outputs))


def read_object(out: str) -> dict[str, Any]:
    """The one strict JSON object on stdout."""

    def refuse(word: str) -> None:
        raise AssertionError(word)

    value = json.loads(out, parse_constant=refuse)
    assert next(iter(value)) == "schema_version"
    assert isinstance(value, dict)
    return value


def test_list_filters_and_sorts(glu_bench: Command, outputs: Path, call_command: Command) -> None:
    run_id = next((outputs / "runs").iterdir()).name
    every = read_object(glu_bench("runs", "list", "--json", "--sort", "test_loss_nats", "--reverse").out)
    assert [run["run_id"] for run in every["runs"]] == [run_id]
    none = glu_bench("runs", "list", "--json", "--where", "variant=swiglu", "--where", "optim.lr<1e-9")
    assert read_object(none.out)["runs"] == []
    shown = glu_bench("runs", "list", "--where", "model.d_model>10")
    assert run_id in shown.out
    assert "model.d_model" in shown.out
    assert shown.err == ""


@pytest.mark.parametrize("words", [("--where", "varient=1"), ("--where", "variant"), ("--sort", "los")])
def test_list_refuses_what_no_run_has(glu_bench: Command, words: tuple[str, str]) -> None:
    ended = glu_bench("runs", "list", *words)
    assert ended.code == 2
    assert ended.out == ""
    assert len(ended.err.splitlines()) == 1


def test_diff_of_a_run_with_itself(glu_bench: Command, outputs: Path) -> None:
    run_id = next((outputs / "runs").iterdir()).name
    ended = glu_bench("runs", "diff", run_id, run_id)
    assert ended.code == 0
    assert "agree in everything" in ended.out
    assert read_object(glu_bench("runs", "diff", run_id, run_id, "--json").out)["first"] is None


def test_verify_exits_3_with_a_line_each(glu_bench: Command, outputs: Path) -> None:
    assert glu_bench("runs", "verify").code == 0
    run = Run(next((outputs / "runs").iterdir()))
    for path in list_checkpoints(run.checkpoints):
        (path / "state.json").write_text("{}")
    ended = glu_bench("runs", "verify", run.path.name)
    assert ended.code == 3
    assert len(ended.out.splitlines()) == len(list_checkpoints(run.checkpoints))
    ended = glu_bench("runs", "verify", "--json")
    assert ended.code == 3
    assert read_object(ended.out)["runs"][0]["ok"] is False


def test_doctor_exits_3_where_something_is_broken_alone(glu_bench: Command, outputs: Path) -> None:
    run = Run(next((outputs / "runs").iterdir()))
    ended = glu_bench("runs", "doctor")
    assert (ended.code, ended.out) == (0, "")
    assert ended.err == f"{outputs}: 1 sound\n"
    last = list_checkpoints(run.checkpoints)[-1]
    last.rename(last.with_name("corrupt-step-00000006"))
    (run.path / "result.json").rename(run.path / "kept")
    ended = glu_bench("runs", "doctor", run.path.name)
    assert ended.code == 0
    assert ended.out.startswith(f"unfinished {run.path}\n")
    assert "\n  glu-bench train variant=swiglu model=pico data=text " in ended.out
    assert "goes on from step 4" in ended.out
    (run.path / "kept").rename(run.path / "result.json")
    run.metrics_path.write_text("")
    ended = glu_bench("runs", "doctor", "--json", "--quiet")
    assert ended.code == 3
    assert ended.err == "glu-bench: 1 of 2 are broken\n"
    told = read_object(ended.out)
    assert told["counts"]["broken"] == told["counts"]["leftover"] == 1
    broken = told["findings"][0]
    assert set(broken) == {"kind", "path", "state", "holds", "problems", "since", "mends"}
    assert broken["problems"] == [f"{run.metrics_path}: content does not match result.json"]
    assert set(broken["mends"][0]) == {"command", "effect"}
    assert broken["since"].endswith("Z")


def test_doctor_takes_a_folder_that_is_no_run_any_more(glu_bench: Command, outputs: Path) -> None:
    run = next((outputs / "runs").iterdir())
    (run / "config.yaml").unlink()
    for name in (run.name, str(run)):
        ended = glu_bench("runs", "doctor", name)
        assert ended.code == 3
        assert "config.yaml: not there" in ended.out
    assert glu_bench("runs", "doctor", "nosuch").code == 2
    assert glu_bench("runs", "doctor", "\0").code == 2


def test_import_says_what_became_of_each(glu_bench: Command, call_command: Command, outputs: Path) -> None:
    run = next((outputs / "runs").iterdir())
    here = outputs.parent / "here"
    words = ("runs", "import", str(outputs), "--output-dir", str(here))
    assert read_object(call_command(*words, "--json").out)["runs"][0]["status"] == "imported"
    assert "present" in call_command(*words).out
    (run / "blocks.safetensors").write_bytes(b"")
    ended = call_command(*words)
    assert ended.code == 3
    assert str(run) in ended.err
    (run / "result.json").unlink()
    assert call_command(*words).code == 0  # beside others an unfinished run is only mentioned
    assert call_command("runs", "import", str(run), "--output-dir", str(here)).code == 3


def test_prune_asks_and_never_without_somebody_to_ask(glu_bench: Command, outputs: Path) -> None:
    run = Run(next((outputs / "runs").iterdir()))
    n_before = len(list_checkpoints(run.checkpoints))
    assert glu_bench("runs", "prune").code == 2
    refused = glu_bench("runs", "prune", "--checkpoints")
    assert refused.code == 2
    assert "--yes" in refused.err
    assert "bytes" in refused.err
    shown = read_object(glu_bench("runs", "prune", "--checkpoints", "--dry-run", "--json").out)
    assert (len(shown["found"]), shown["n_deleted"]) == (n_before - 1, 0)
    assert len(list_checkpoints(run.checkpoints)) == n_before
    done = read_object(glu_bench("runs", "prune", "--checkpoints", "--yes", "--json").out)
    assert done["deleted_bytes"] == sum(each["bytes"] for each in shown["found"]) > 0
    assert len(list_checkpoints(run.checkpoints)) == 1
