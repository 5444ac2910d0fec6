"""An exported folder: transformers computes the same logits, and nobody's file is lost."""

from __future__ import annotations

import errno
import itertools
import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
import torch.nn.functional as F

from glu_bench.data.tokenizers import ByteTokenizer
from glu_bench.errors import ConfigError, ResourceError
from glu_bench.ffn.formula import load_variant
from glu_bench.interop.export import export_model, export_run
from glu_bench.interop.hf_folder import load_stock_model
from glu_bench.interop.stock import XIELU, list_exportable
from glu_bench.runs.folder import Run
from tests.interop.conftest import ExportDecoder, MakeDecoder

FILES = {
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
}
SLOW = pytest.mark.slow
TOKENS_BT = torch.randint(0, 257, (2, 32), generator=torch.Generator().manual_seed(1))


def load_stock(folder: Path) -> Any:
    transformers = pytest.importorskip("transformers")
    return transformers.AutoModelForCausalLM.from_pretrained(folder)


@torch.no_grad()
def logits_difference(model: torch.nn.Module, folder: Path) -> float:
    theirs = load_stock(folder)
    if theirs.config.hidden_act == "xielu":  # transformers rounds what it has learned to bf16; see hf_folder
        theirs = load_stock_model(folder)
    return float((model(TOKENS_BT) - theirs(input_ids=TOKENS_BT).logits).abs().max())


@pytest.mark.parametrize(
    ("name", "bias", "tied"),
    [
        # biases and one matrix at both ends are the classes', of which there is one of a kind
        pytest.param(*case, marks=[] if case[0] in ("swiglu", "relu") or case[1:] == (False, False) else SLOW)
        for case in itertools.product(list_exportable(), (False, True), (False, True))
    ],
)
def test_transformers_gives_the_same_logits(
    name: str, bias: bool, tied: bool, random_decoder: MakeDecoder, exported: ExportDecoder
) -> None:
    words = (f"model.ffn_bias={bias}", f"model.tied_embeddings={tied}")
    model = random_decoder(name, *words, "model.rope_theta=500", "model.norm_eps=0.01")
    assert logits_difference(model, exported(model)) < 1e-4


def test_the_class_is_a_stock_one_of_the_decoders_shape(
    random_decoder: MakeDecoder, exported: ExportDecoder
) -> None:
    folder = exported(random_decoder("swiglu", "model.rope_theta=500"))
    config = load_stock(folder).config
    assert (config.architectures, config.hidden_act) == (["LlamaForCausalLM"], "silu")
    assert (config.vocab_size, config.hidden_size, config.intermediate_size) == (257, 48, 128)
    assert (config.num_hidden_layers, config.num_attention_heads, config.head_dim) == (2, 2, 24)
    assert (config.max_position_embeddings, config.rms_norm_eps) == (32, 1e-5)
    assert (config.bos_token_id, config.eos_token_id) == (256, 256)
    assert (config.rope_parameters["rope_theta"], config.dtype) == (500, torch.float32)
    assert json.loads((folder / "config.json").read_text())["rope_theta"] == 500  # for transformers 4


def test_rows_that_only_pad_the_vocabulary_stay_behind(
    random_decoder: MakeDecoder, exported: ExportDecoder
) -> None:
    model = random_decoder("relu")
    tensors = safetensors.torch.load_file(exported(model) / "model.safetensors")
    assert model.embedding.weight.shape[0] == 320
    assert tensors["model.embed_tokens.weight"].shape == tensors["lm_head.weight"].shape == (257, 48)


def test_a_tied_head_is_stored_once(random_decoder: MakeDecoder, exported: ExportDecoder) -> None:
    folder = exported(random_decoder("swiglu", "model.tied_embeddings=true"))
    assert "lm_head.weight" not in safetensors.torch.load_file(folder / "model.safetensors")


def test_what_xielu_has_learned_arrives_layer_by_layer(random_decoder: MakeDecoder, tmp_path: Path) -> None:
    model = random_decoder("relu")  # any ungated block: the weights alone are looked at
    for at, block in enumerate(model.blocks):
        start = {"activation_p": torch.tensor(0.3 + at), "activation_n": torch.tensor(-0.2 - at)}
        block.ffn.hidden.learned = torch.nn.ParameterDict(start)  # type: ignore[union-attr, assignment]
    export_model(model, ByteTokenizer(), XIELU, tmp_path / "x", "a-run")
    pytest.importorskip("transformers")
    x = torch.linspace(-3, 3, 601)
    for at, layer in enumerate(load_stock_model(tmp_path / "x").model.layers):
        a_p, a_n = F.softplus(torch.tensor(0.3 + at)), 0.5 + F.softplus(torch.tensor(-0.2 - at))
        below = a_n * (torch.expm1(x.clamp(max=-1e-6)) - x) + 0.5 * x
        expected = torch.where(x > 0, a_p * x**2 + 0.5 * x, below)
        torch.testing.assert_close(layer.mlp.act_fn(x), expected, rtol=1e-5, atol=1e-5)


def test_a_parameter_without_a_place_is_refused(
    random_decoder: MakeDecoder, exported: ExportDecoder, tmp_path: Path
) -> None:
    model = random_decoder("swiglu")
    model.blocks[1].register_parameter("mult", torch.nn.Parameter(torch.ones(3)))
    with pytest.raises(ConfigError, match=r"no place for blocks\.1\.mult"):
        exported(model)
    assert list(tmp_path.iterdir()) == []


def test_transformers_writes_text_from_the_folder(finished_run: Run, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    export_run(finished_run, tmp_path / "x")
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "x")
    inputs = tokenizer("ab", return_tensors="pt")
    ids = load_stock(tmp_path / "x").generate(**inputs, max_new_tokens=12, do_sample=False)
    ours = finished_run.load_model()
    written = [97, 98]
    with torch.no_grad():
        while len(written) < 14 and written[-1] != 256:
            written.append(int(ours(torch.tensor([written]))[0, -1].argmax()))
    assert ids[0].tolist() == written
    assert tokenizer.decode(ids[0]).startswith("ab")


def test_a_run_becomes_a_folder_and_the_run_stays_as_it_is(finished_run: Run, tmp_path: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in finished_run.path.rglob("*")}
    done = export_run(finished_run, tmp_path / "deep" / "x")
    assert {path.name for path in (tmp_path / "deep" / "x").iterdir()} == FILES == set(done.files)
    assert done.n_params == finished_run.result()["n_params"]
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["x"]
    assert {path: path.stat().st_mtime_ns for path in finished_run.path.rglob("*")} == before


def test_the_weights_can_be_read_by_whom_the_umask_allows(
    random_decoder: MakeDecoder, exported: ExportDecoder
) -> None:
    before = os.umask(0o027)
    try:
        folder = exported(random_decoder("relu"))
    finally:
        os.umask(before)
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o640}


def test_an_empty_folder_is_taken_and_one_in_use_is_not(finished_run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "x"
    folder.mkdir()
    export_run(finished_run, folder)
    written = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(ConfigError, match=r"not empty.*--force"):
        export_run(finished_run, folder)
    (folder / "notes.txt").write_text("mine")
    (folder / "config.json").write_text("old")
    export_run(finished_run, folder, force=True)
    assert (folder / "notes.txt").read_text() == "mine"
    assert {name: (folder / name).read_bytes() for name in FILES} == written
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


@pytest.mark.parametrize("force", [False, True])
def test_a_file_a_link_and_a_run_folder_are_never_written_to(
    force: bool, finished_run: Run, tmp_path: Path
) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    (tmp_path / "file").touch()
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").touch()
    for name in ("link", "file", "run", "file/below"):
        with pytest.raises(ConfigError, match=name.partition("/")[0]):
            export_run(finished_run, tmp_path / name, force=force)
    assert list((tmp_path / "real").iterdir()) == []
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["config.yaml"]


def test_a_full_disk_leaves_nothing_behind(
    finished_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(safetensors.torch, "save_file", fail)
    with pytest.raises(ResourceError, match="disk is full"):
        export_run(finished_run, tmp_path / "x")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_filled_meanwhile_is_left_to_whom_it_belongs(
    finished_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save = safetensors.torch.save_file

    def save_beside(*given: Any, metadata: dict[str, str]) -> None:
        save(*given, metadata=metadata)
        (tmp_path / "x").mkdir()
        (tmp_path / "x" / "notes.txt").touch()

    monkeypatch.setattr(safetensors.torch, "save_file", save_beside)
    with pytest.raises(ConfigError, match="not empty"):
        export_run(finished_run, tmp_path / "x")
    assert [path.name for path in tmp_path.rglob("*")] == ["x", "notes.txt"]


def test_a_variant_without_a_class_is_refused_before_anything_is_written(
    finished_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = load_variant("swiglu").spec
    spec.gate, spec.name = "tanh", "own"
    config = finished_run.config()
    config.variant = spec
    monkeypatch.setattr(Run, "config", lambda self: config)
    with pytest.raises(ConfigError, match="variant own: no stock class"):
        export_run(finished_run, tmp_path / "x")
    assert list(tmp_path.iterdir()) == []
