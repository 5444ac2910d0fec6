"""What `runs verify` must notice: one byte anywhere."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from glu_bench.errors import DataError
from glu_bench.runs.checkpoint import list_checkpoints
from glu_bench.runs.folder import Run
from glu_bench.runs.integrity import verify_run
from glu_bench.runs.record import write_record
from tests.conftest import Train


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


def edit(path: Path, **changes: object) -> None:
    """Change keys of a JSON file, None takes one out."""
    value = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({key: part for key, part in value.items() if part is not None}))


def test_a_record_without_the_runs_id_is_noticed(copied: Run) -> None:
    path = copied.path / "environment.json"
    edit(path, run_id=None)
    assert verify_run(copied) == [f"{path}: gives no run_id"]
    (copied.path / "result.json").unlink()
    assert verify_run(copied) == [f"{path}: gives no run_id"]
    with pytest.raises(DataError, match="gives no run_id"):
        copied.config()


def test_a_lost_environment_is_noticed(copied: Run) -> None:
    (copied.path / "environment.json").unlink()
    (copied.path / "result.json").unlink()
    (problem,) = verify_run(copied)
    assert problem.endswith("environment.json: not there, though the run has metrics.jsonl, checkpoints")


def test_a_run_that_was_only_planned_is_sound(copied: Run) -> None:
    for path in copied.path.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name != "config.yaml":
            path.unlink()
    assert verify_run(copied) == []


# none of these takes part in the run's id, or can be seen to be wrong by itself
@pytest.mark.parametrize(
    ("name", "before", "after"),
    [
        ("config.yaml", "log_every: 1", "log_every: 2"),
        ("environment.json", '"n_cores": ', '"n_cores": 1'),
        ("metrics.jsonl", '"tokens": ', '"tokens": 1'),
    ],
)
def test_what_only_the_record_vouches_for_is_hashed(copied: Run, name: str, before: str, after: str) -> None:
    path = copied.path / name
    text = path.read_text()
    assert before in text
    path.write_text(text.replace(before, after, 1))
    assert verify_run(copied) == [f"{path}: content does not match result.json"]
    path.unlink()
    assert verify_run(copied)


def test_the_tokenizers_file_is_hashed(train: Train, tmp_path: Path) -> None:
    record = train("tokenizer=bpe", "tokenizer.vocab_size=300")
    run = Run(tmp_path / "runs" / record["run_id"])
    assert verify_run(run) == []
    path = run.path / "tokenizer.json"
    path.write_text(path.read_text() + " ")  # the same tokenizer, in other bytes
    assert verify_run(run) == [f"{path}: content does not match result.json"]


def test_a_run_finished_before_records_held_checksums_is_sound(copied: Run) -> None:
    path = copied.path / "result.json"
    record = copied.result()
    del record["files_sha256"]
    write_record(path, record)
    assert verify_run(copied) == []
    write_record(path, record | {"files_sha256": {"../../other": "0" * 64}})
    assert "files_sha256 does not name" in verify_run(copied)[0]


def test_a_broken_note_of_failure_is_noticed(copied: Run) -> None:
    path = copied.path / "failure.json"
    path.write_text("{}")
    assert verify_run(copied) == [f"{path}: gives no status"]


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
