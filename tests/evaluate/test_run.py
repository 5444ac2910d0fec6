"""A finished run measured again."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from glu_bench.errors import ConfigError, DataError, DeviceError
from glu_bench.evaluate.run import evaluate_run
from glu_bench.runs.checkpoint import list_checkpoints
from glu_bench.runs.folder import Run, list_runs
from tests.conftest import Train


@pytest.mark.parametrize("split", ["val", "test"])
def test_a_runs_own_losses_come_out_again_to_the_last_bit(split: str, finished_run: Run) -> None:
    torch.set_float32_matmul_precision("medium")  # by whatever ran before in this process
    found = evaluate_run(finished_run, split=split)
    assert torch.get_float32_matmul_precision() == "highest"
    record = finished_run.result()
    assert found.loss_nats == record[f"{split}_loss_nats"]
    assert found.bits_per_byte == record[f"{split}_bits_per_byte"]


def test_the_training_split_can_be_measured(finished_run: Run) -> None:
    n_train = finished_run.environment()["splits"]["train"]["n_tokens"]
    assert evaluate_run(finished_run, split="train").n_tokens == n_train - 1


def test_the_recorded_stride_is_used_again(train: Train, tmp_path: Path) -> None:
    record = train("evaluation.stride=8", "train.steps=2")
    (run,) = list_runs(tmp_path)
    assert record["stride"] == 8
    assert evaluate_run(run).loss_nats == record["test_loss_nats"]


def test_a_smaller_stride_scores_the_same_tokens(finished_run: Run) -> None:
    found = evaluate_run(finished_run, split="test", stride=4)
    assert found.stride == 4
    assert found.n_tokens == finished_run.result()["n_test_tokens"]
    assert found.loss_nats != finished_run.result()["test_loss_nats"]


def test_a_stride_beyond_the_window_would_skip_tokens_and_is_refused(finished_run: Run) -> None:
    with pytest.raises(ConfigError, match="stride"):
        evaluate_run(finished_run, stride=17)


def test_another_text_is_measured_whole(finished_run: Run, tmp_path: Path) -> None:
    path = tmp_path / "other.txt"
    path.write_bytes(b"some other text\r\n" * 20)
    found = evaluate_run(finished_run, files=[str(path)])
    assert found.n_bytes == path.stat().st_size - 1
    assert found.n_tokens == path.stat().st_size
    assert found.split == str(path)


def test_a_text_of_one_byte_has_a_loss_and_no_bits_per_byte(finished_run: Run, tmp_path: Path) -> None:
    (tmp_path / "a").write_text("x")
    found = evaluate_run(finished_run, files=[str(tmp_path / "a")])
    assert found.n_tokens == 1
    assert found.bits_per_byte is None


def test_an_empty_text_is_refused_as_data(finished_run: Run, tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    with pytest.raises(DataError, match="empty"):
        evaluate_run(finished_run, files=[str(tmp_path / "a")])


def test_a_text_that_changed_since_is_refused(train: Train, text_path: Path, tmp_path: Path) -> None:
    path = tmp_path / "own.txt"
    path.write_bytes(text_path.read_bytes())
    train(f"data.files={path}", "train.steps=1")
    (run,) = list_runs(tmp_path)
    with path.open("a") as file:
        file.write("x")
    with pytest.raises(DataError, match="fingerprint differs"):
        evaluate_run(run)


def test_a_corrupt_checkpoint_is_refused_and_left_alone(train: Train, tmp_path: Path) -> None:
    train("train.steps=1")
    (run,) = list_runs(tmp_path)
    (checkpoint,) = list_checkpoints(run.checkpoints)
    content = bytearray((checkpoint / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (checkpoint / "model.safetensors").write_bytes(content)
    with pytest.raises(DataError, match="does not match the manifest"):
        evaluate_run(run)
    assert checkpoint.is_dir()


def test_a_device_that_is_not_there_is_refused(finished_run: Run) -> None:
    with pytest.raises(DeviceError):
        evaluate_run(finished_run, device="cuda:9")


@pytest.mark.parametrize("device", ["gpu", "cuda:x"])
def test_a_word_that_is_no_device_is_refused_as_usage(device: str, finished_run: Run) -> None:
    with pytest.raises(ConfigError):
        evaluate_run(finished_run, device=device)
