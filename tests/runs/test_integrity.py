"""What `runs verify` must notice: one byte anywhere."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from glu_bench.runs.checkpoint import list_checkpoints
from glu_bench.runs.folder import Run
from glu_bench.runs.integrity import verify_run


@pytest.fixture
def copied(finished_run: Run, tmp_path: Path) -> Run:
    """A finished run that a test may break."""
    return Run(Path(shutil.copytree(finished_run.path, tmp_path / "runs" / finished_run.path.name)))


def flip(path: Path, at: int = -1) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


def test_a_sound_run_has_no_problem(copied: Run) -> None:
    assert verify_run(copied) == []


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.safetensors", "state.json"])
def test_one_bit_in_a_checkpoint_is_noticed(copied: Run, name: str) -> None:
    path = list_checkpoints(copied.checkpoints)[0] / name
    flip(path, -2)
    assert verify_run(copied) == [f"{path}: content does not match the manifest"]


def test_one_bit_in_the_held_out_windows_is_noticed(copied: Run) -> None:
    flip(copied.path / "blocks.safetensors")
    assert len(verify_run(copied)) == 1


def test_an_edited_result_is_noticed(copied: Run) -> None:
    path = copied.path / "result.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"test_loss_nats": 0.1}))
    assert "checksum" in verify_run(copied)[0]


def test_an_edited_setting_is_noticed(copied: Run) -> None:
    path = copied.path / "config.yaml"
    path.write_text(path.read_text().replace("seed: 0", "seed: 1"))
    assert "was edited" in verify_run(copied)[0]


def test_environment_without_fingerprints_is_one_line(copied: Run) -> None:
    path = copied.path / "environment.json"
    path.write_text(json.dumps({"run_id": copied.path.name}))
    assert "data_fingerprint" in verify_run(copied)[0]


def test_a_checkpoint_under_another_step_is_noticed(copied: Run) -> None:
    newest = list_checkpoints(copied.checkpoints)[-1]
    newest.rename(newest.with_name("step-00009999"))
    assert "the manifest says step 6" in verify_run(copied)[0]


def test_an_unfinished_run_is_sound(copied: Run) -> None:
    (copied.path / "result.json").unlink()
    (copied.path / "blocks.safetensors").unlink()
    assert verify_run(copied) == []
