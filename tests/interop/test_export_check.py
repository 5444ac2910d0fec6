"""export --check: passes what is right, names what is not, rewrites nothing."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest
import safetensors.torch
import torch

from glu_bench.errors import ConfigError, DataError
from glu_bench.interop.export import export_run
from glu_bench.interop.export_check import check_export
from glu_bench.runs.folder import Run, list_runs
from tests.conftest import Command, Train

EXPORT_KEYS = ["schema_version", "run_id", "folder", "written", "architecture", "hidden_act", "n_params"]


@pytest.fixture
def folder(finished_run: Run, tmp_path: Path) -> Path:
    """An export of the finished run."""
    return export_run(finished_run, tmp_path / "x").folder


def times(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}


def test_an_export_agrees_with_its_run(finished_run: Run, folder: Path) -> None:
    pytest.importorskip("transformers")
    before = times(folder)
    agreement = check_export(finished_run, folder)
    assert 0 < agreement.max_difference < 1e-5
    assert (agreement.n_tokens, agreement.n_texts) == (4 * 16, 4 + 6 + 6)
    assert times(folder) == before


def test_a_bpe_run_agrees_and_so_does_another_text(train: Train, tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    train("train.steps=1", "variant=gelu", "tokenizer=bpe", "tokenizer.vocab_size=300", "model.ffn_bias=true")
    (run,) = list_runs(tmp_path)
    folder = export_run(run, tmp_path / "x").folder
    (tmp_path / "short.txt").write_text("a0b")
    assert check_export(run, folder).max_difference < 1e-4
    assert (
        check_export(run, folder, files=[str(tmp_path / "short.txt")]).n_tokens == 3
    )  # the end token has no successor


def test_weights_off_by_little_are_found(finished_run: Run, folder: Path) -> None:
    pytest.importorskip("transformers")
    tensors = safetensors.torch.load_file(folder / "model.safetensors")
    tensors["model.layers.1.mlp.up_proj.weight"] *= 1.01
    safetensors.torch.save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(DataError, match="a logit differs by"):
        check_export(finished_run, folder)


def test_weights_that_are_no_numbers_are_found(finished_run: Run, folder: Path) -> None:
    pytest.importorskip("transformers")
    tensors = safetensors.torch.load_file(folder / "model.safetensors")
    tensors["model.norm.weight"].fill_(torch.nan)
    safetensors.torch.save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(DataError, match="a logit differs by nan"):
        check_export(finished_run, folder)


def test_another_tokenizer_is_found_with_the_first_text_that_differs(finished_run: Run, folder: Path) -> None:
    pytest.importorskip("transformers")
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "split_special_tokens": False}))
    with pytest.raises(DataError, match=r"other ids .*<\|endoftext\|>.* from token 4 on"):
        check_export(finished_run, folder)


def test_another_run_s_folder_is_found(train: Train, finished_run: Run, folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    train("train.steps=1", "tokenizer=bpe", "tokenizer.vocab_size=300")
    train("train.steps=1", "seed=7")
    other_seed, other_ids = sorted(list_runs(tmp_path), key=lambda run: run.environment()["vocab_size"])
    with pytest.raises(DataError, match=r"257 ids ending with 256; .* has 300 ending with 0"):
        check_export(other_ids, folder)
    with pytest.raises(DataError, match="a logit differs by"):
        check_export(other_seed, folder)


def test_the_command_writes_checks_and_then_only_checks(
    call_command: Command, finished_run: Run, tmp_path: Path
) -> None:
    pytest.importorskip("transformers")
    words = ("export", str(finished_run.path), str(tmp_path / "x"), "--check")
    ended = call_command(*words)
    assert ended.code == 0, ended.err
    assert [line.split()[0] for line in ended.out.splitlines()] == ["wrote", "checked"]
    assert ended.err == ""
    before = times(tmp_path / "x")
    ended = call_command(*words, "--json")
    value = json.loads(ended.out)
    assert [*value] == [*EXPORT_KEYS, "files", "check"]
    assert (value["written"], value["architecture"]) == (False, "LlamaForCausalLM")
    assert value["check"]["max_difference"] < value["check"]["limit"] == 1e-4
    assert times(tmp_path / "x") == before


def test_without_transformers_the_export_is_written_and_the_check_refused(
    call_command: Command, finished_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    words = ("export", str(finished_run.path), str(tmp_path / "x"))
    ended = call_command(*words, "--check")
    assert (ended.code, ended.out, list(tmp_path.iterdir())) == (2, "", [])
    assert ended.err == "glu-bench: transformers is not installed; pip install '.[transformers]'\n"
    value = json.loads(call_command(*words, "--json").out)
    assert value["written"] is True
    assert set(value["files"]) == {path.name for path in (tmp_path / "x").iterdir()}
    with pytest.raises(ConfigError, match="not installed"):
        check_export(finished_run, tmp_path / "x")


def test_refusals_are_one_line_and_exit_2(call_command: Command, finished_run: Run, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    run = str(finished_run.path)
    for words in ((run, str(tmp_path)), (run, str(tmp_path), "--check"), ("nosuch", str(tmp_path / "x"))):
        ended = call_command("export", *words)
        assert (ended.code, ended.out, len(ended.err.splitlines())) == (2, "", 1)
    assert call_command("export", run, str(tmp_path / "x"), "--files", "a.txt").code == 2
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_an_unfinished_run_is_taken_with_a_remark(
    call_command: Command, finished_run: Run, tmp_path: Path
) -> None:
    run = Path(shutil.copytree(finished_run.path, tmp_path / "run"))
    (run / "result.json").unlink()
    ended = call_command("export", str(run), str(tmp_path / "x"))
    assert ended.code == 0
    assert "is interrupted: its last checkpoint is taken" in ended.err
    shutil.rmtree(run / "checkpoints")
    assert call_command("export", str(run), str(tmp_path / "y")).code == 3
    assert not (tmp_path / "y").exists()
