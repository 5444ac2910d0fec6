"""eval --hf: a folder's nats are the run's, and transformers' own; what is not safe to read is not."""

from __future__ import annotations

import json
import math
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from tokenizers import Tokenizer as Inner

from glu_bench.errors import ConfigError, DataError
from glu_bench.evaluate.run import evaluate_run, find_stream
from glu_bench.interop.export import export_run
from glu_bench.interop.hf_evaluate import evaluate_folder, load_folder_tokenizer
from glu_bench.interop.hf_folder import load_stock_model, read_stock_config
from glu_bench.runs.folder import Run, list_runs
from tests.conftest import Command, Train

transformers = pytest.importorskip("transformers")

Change = Callable[..., None]


@pytest.fixture
def folder(finished_run: Run, tmp_path: Path) -> Path:
    """An export of the finished run."""
    return export_run(finished_run, tmp_path / "x").folder


@pytest.fixture
def change(folder: Path) -> Change:
    """Sets keys of the folder's config.json; None takes a key out."""

    def write(**keys: Any) -> None:
        path = folder / "config.json"
        merged = {**json.loads(path.read_text()), **keys}
        path.write_text(json.dumps({name: value for name, value in merged.items() if value is not None}))

    return write


def own_loss(folder: Path, windows_BT: torch.Tensor) -> float:
    """Mean nats as transformers computes them from labels, T - 1 targets a window."""
    model = transformers.AutoModelForCausalLM.from_pretrained(folder)
    with torch.no_grad():
        return float(model(input_ids=windows_BT, labels=windows_BT).loss)


@pytest.mark.parametrize("words", [(), ("variant=relu", "tokenizer=bpe", "tokenizer.vocab_size=300")])
def test_the_nats_are_the_runs_and_transformers_own(
    words: tuple[str, ...], train: Train, text_path: Path, tmp_path: Path
) -> None:
    train(*words)
    (run,) = list_runs(tmp_path)
    folder = export_run(run, tmp_path / "x").folder
    for options in ({}, {"split": "val"}, {"stride": 4}, {"files": [str(text_path)]}):
        ours, theirs = evaluate_run(run, **options), evaluate_folder(folder, run=run, **options)  # type: ignore[arg-type]
        assert theirs.loss_nats == pytest.approx(ours.loss_nats, abs=1e-4)
        assert theirs.bits_per_byte == pytest.approx(ours.bits_per_byte, abs=1e-4)
        assert (theirs.n_tokens, theirs.n_bytes) == (ours.n_tokens, ours.n_bytes)
        assert (theirs.split, theirs.stride) == (ours.split, ours.stride)
    # windows of 16 targets, each made of 17 ids: a label is the next id, so the first is no target
    ids = find_stream(run, "test").ids.astype("int64")
    whole = (len(ids) - 1) // 16
    windows_BT = torch.stack([torch.from_numpy(ids[16 * i : 16 * i + 17]) for i in range(whole)])
    theirs = evaluate_folder(folder, run=run)
    nats = theirs.nats_per_window[:whole].sum() / theirs.tokens_per_window[:whole].sum()
    assert nats == pytest.approx(own_loss(folder, windows_BT), abs=1e-4)


def test_without_a_run_the_window_is_the_models_context(
    finished_run: Run, folder: Path, text_path: Path
) -> None:
    ours = evaluate_run(finished_run, files=[str(text_path)])
    alone = evaluate_folder(folder, files=[str(text_path)])
    assert alone.loss_nats == pytest.approx(ours.loss_nats, abs=1e-4)
    assert (alone.stride, alone.n_bytes) == (16, ours.n_bytes)


def test_another_tokenizer_reads_the_runs_text_in_its_own_tokens(
    finished_run: Run, train: Train, tmp_path: Path
) -> None:
    train("train.steps=1", "tokenizer=bpe", "tokenizer.vocab_size=300")
    (other,) = list_runs(tmp_path)
    theirs = evaluate_folder(export_run(other, tmp_path / "x").folder, run=finished_run)
    same_text = evaluate_run(other)
    assert theirs.loss_nats == pytest.approx(same_text.loss_nats, abs=1e-4)
    assert theirs.n_bytes == same_text.n_bytes
    back = evaluate_folder(export_run(finished_run, tmp_path / "y").folder, run=other)
    assert back.loss_nats == pytest.approx(finished_run.result()["test_loss_nats"], abs=1e-4)


def test_the_command_shows_run_and_folder_side_by_side(
    call_command: Command, finished_run: Run, folder: Path, text_path: Path
) -> None:
    ended = call_command("eval", str(finished_run.path), "--hf", str(folder), "--json", "--quiet")
    assert (ended.code, ended.err) == (0, "")
    run, other = json.loads(ended.out)["runs"]
    assert (run["run_id"], run["hf"]) == (finished_run.run_id, None)
    assert (other["run_id"], other["hf"]) == (None, str(folder))
    assert other["loss_nats"] == pytest.approx(run["loss_nats"], abs=1e-4)
    ended = call_command("eval", "--hf", str(folder), "--files", str(text_path), "-q")
    assert (ended.code, ended.err) == (0, "")
    assert str(folder) in ended.out


@pytest.mark.parametrize("words", [(), ("--hf", "x")])
def test_a_text_must_be_named(words: tuple[str, ...], call_command: Command, folder: Path) -> None:
    ended = call_command("eval", *(str(folder) if word == "x" else word for word in words))
    assert (ended.code, ended.out) == (2, "")
    assert len(ended.err.splitlines()) == 1 + len(words) // 2  # the remark on what is evaluated


@pytest.mark.parametrize(
    "keys",
    [
        {"architectures": ["MistralForCausalLM"], "model_type": "mistral"},
        {"architectures": ["MistralForCausalLM"]},
        {"model_type": "mistral"},
        {"architectures": None},
        {"architectures": None, "model_type": None},
        {"architectures": [["LlamaForCausalLM"]]},
        {"architectures": "LlamaForCausalLM"},
        {"quantization_config": {"quant_method": "bitsandbytes"}},
    ],
)
def test_another_architecture_is_refused_by_name(keys: dict[str, Any], folder: Path, change: Change) -> None:
    change(**keys)
    with pytest.raises(DataError, match=r"architecture|quantised") as caught:
        read_stock_config(folder)
    if keys.get("model_type"):
        assert keys["model_type"] in str(caught.value)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.safetensors"])
def test_no_pickle_is_opened(name: str, folder: Path, tmp_path: Path) -> None:
    class Payload:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (tmp_path / "marker",)

    (folder / "model.safetensors").unlink()
    (folder / name).write_bytes(pickle.dumps(Payload()))
    with pytest.raises(DataError):
        load_stock_model(folder)
    assert not (tmp_path / "marker").exists()


def test_no_code_of_the_folder_runs(finished_run: Run, folder: Path, change: Change, tmp_path: Path) -> None:
    (folder / "evil.py").write_text(f"open({str(tmp_path / 'marker')!r}, 'w')\nclass Evil: ...\n")
    change(auto_map={"AutoModelForCausalLM": "evil.Evil", "AutoConfig": "evil.Evil"})
    assert math.isfinite(evaluate_folder(folder, run=finished_run).loss_nats)
    assert not (tmp_path / "marker").exists()


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("missing", "missing keys"),
        ("extra", "unexpected keys"),
        ("shape", "cannot load"),
        ("torn", "cannot load"),
        ("config", "cannot load"),
    ],
)
def test_weights_that_do_not_fit_are_refused(fault: str, said: str, folder: Path, change: Change) -> None:
    path = folder / "model.safetensors"
    tensors = safetensors.torch.load_file(path)
    if fault == "missing":
        del tensors["model.layers.1.mlp.up_proj.weight"]
    elif fault == "extra":
        tensors["model.layers.2.mlp.up_proj.weight"] = torch.ones(1)
    elif fault == "shape":
        tensors["model.norm.weight"] = torch.ones(3)
    elif fault == "config":
        change(hidden_act="nosuch")
    safetensors.torch.save_file(tensors, path, metadata={"format": "pt"})
    if fault == "torn":
        path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(DataError, match=said) as caught:
        load_stock_model(folder)
    assert "\n" not in str(caught.value)


def test_weights_that_are_no_numbers_have_no_loss(finished_run: Run, folder: Path) -> None:
    tensors = safetensors.torch.load_file(folder / "model.safetensors")
    tensors["model.norm.weight"].fill_(torch.nan)
    safetensors.torch.save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(DataError, match="the loss is nan"):
        evaluate_folder(folder, run=finished_run)


def test_windows_longer_than_the_context_and_foreign_ids_are_refused(
    finished_run: Run, folder: Path, change: Change, text_path: Path
) -> None:
    change(max_position_embeddings=15)
    with pytest.raises(ConfigError, match="reads 15 tokens, the run's windows have 16"):
        evaluate_folder(folder, run=finished_run)
    with pytest.raises(ConfigError, match="stride 16"):
        evaluate_folder(folder, files=[str(text_path)], stride=16)
    change(max_position_embeddings="many")
    with pytest.raises(DataError, match="max_position_embeddings"):
        evaluate_folder(folder, files=[str(text_path)])
    tensors = safetensors.torch.load_file(folder / "model.safetensors")
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        tensors[name] = tensors[name][:100].clone()
    safetensors.torch.save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    change(max_position_embeddings=16, vocab_size=100)
    with pytest.raises(DataError, match=r"gives id \d+, its model has 100"):
        evaluate_folder(folder, run=finished_run)


def test_documents_end_with_the_end_token_of_the_configuration(folder: Path) -> None:
    inner = Inner.from_file(str(folder / "tokenizer.json"))
    inner.add_special_tokens(["<a>", "<b>"])
    inner.save(str(folder / "tokenizer.json"))
    for end_id, expected in ((257, 257), ([258, 257], 258), (None, 256), (-1, 256)):
        assert load_folder_tokenizer(folder, {"eos_token_id": end_id}).end_id == expected
    with pytest.raises(DataError, match="has no token 999"):
        load_folder_tokenizer(folder, {"eos_token_id": 999})
    (folder / "tokenizer.json").write_text("{}")
    with pytest.raises(DataError, match="no tokenizer can be read"):
        load_folder_tokenizer(folder, {})


def test_a_folder_without_configuration_is_refused(tmp_path: Path, finished_run: Run) -> None:
    for path in (tmp_path, tmp_path / "nosuch", finished_run.path):
        with pytest.raises(DataError, match=r"config\.json: not there"):
            evaluate_folder(path, files=["x"])


def test_an_adapter_is_refused(folder: Path) -> None:
    (folder / "adapter_config.json").write_text('{"base_model_name_or_path": "owner/name"}')
    with pytest.raises(DataError, match="an adapter of another model"):
        load_stock_model(folder)


def test_a_link_that_leads_nowhere_is_refused(folder: Path) -> None:
    shutil.move(folder / "model.safetensors", folder / "gone")
    (folder / "model.safetensors").symlink_to(folder / "nosuch")
    with pytest.raises(DataError, match=r"has no model\.safetensors"):
        read_stock_config(folder)
