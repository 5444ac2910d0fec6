"""A run's folder: its id, its status, what is refused."""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import importlib.metadata
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from glu_bench import schema
from glu_bench.config import load_config
from glu_bench.config_file import _fill, render_config
from glu_bench.errors import ConfigError, DataError, DivergedError, InterruptedRunError
from glu_bench.files import dump_json, hold_lock
from glu_bench.lm.decoder import make_decoder
from glu_bench.runs.environment import read_environment
from glu_bench.runs.folder import (
    STATUSES,
    Run,
    find_run,
    list_runs,
    load_run,
    load_weights,
    make_run_id,
    open_run,
    restart_run,
)
from glu_bench.schema import list_keys
from glu_bench.train.events import Finished
from glu_bench.train.run import train_run
from glu_bench.train.stop import StopRequest
from glu_bench.yaml_file import read_yaml
from tests.conftest import StopAt, TinyConfig, Train


def id_of(config: schema.Config, data: str = "d", tokenizer: str = "t") -> str:
    return make_run_id(config, {"data_fingerprint": data, "tokenizer_fingerprint": tokenizer})


def change(config: schema.Config, dotted: str) -> schema.Config:
    """The same configuration with another value at one key."""
    *group, name = dotted.split(".")
    changed = copy.deepcopy(config)
    holder = getattr(changed, group[0]) if group else changed
    value = getattr(holder, name)
    other: Any
    if isinstance(value, bool):
        other = not value
    elif isinstance(value, int | float):
        other = value + 1
    elif isinstance(value, str):
        other = value + "x"
    elif isinstance(value, dict):
        other = {**value, "x": 1.0}
    elif isinstance(value, list):
        other = [*value, "x"]
    else:
        other = 1
    setattr(holder, name, other)
    return changed


@pytest.mark.parametrize("dotted", list_keys())
def test_the_id_follows_every_key_that_determines_the_result_and_no_other(
    dotted: str, tiny_config: TinyConfig
) -> None:
    config = tiny_config()
    left_out = dotted in schema.NOT_IN_IDENTITY or dotted.split(".")[0] in schema.NOT_IN_IDENTITY
    assert (id_of(change(config, dotted)) == id_of(config)) == left_out


def old_id(config: schema.Config, *unknown: str) -> str:
    """The id as a version would make it that does not know these keys."""
    identity = schema.select_identity(config) | {"data_fingerprint": "d", "tokenizer_fingerprint": "t"}
    known = {dotted: v for dotted, v in identity.items() if v is not None and dotted not in unknown}
    stripped = {k: v for k, v in known.items() if (k, v) not in NEUTRAL and not (v == [] and "learned" in k)}
    digest = hashlib.sha256(dump_json(stripped).encode()).hexdigest()[:10]
    return f"{config.variant.name}-{config.model.preset}-{config.data.corpus}-s{config.seed}-{digest}"


NEUTRAL = (
    ("variant.value", "identity"),
    ("variant.offset", 0.0),
    ("variant.mult", 1.0),
    ("variant.norm_eps", 1e-5),
    ("train.fast", True),
)


def test_an_id_is_the_hash_of_what_says_something(tiny_config: TinyConfig) -> None:
    """And so the same before the schema had factors, clamps, norms, learned arguments and plugins."""
    for variant in ("swiglu", "relu", "swiglu_oai", "xielu", "reglu2_norm"):
        config = tiny_config(f"variant={variant}")
        assert id_of(config) == old_id(config)
        facts = {"data_fingerprint": "d", "tokenizer_fingerprint": "t", "plugins": []}
        assert make_run_id(config, facts) == id_of(config)
    config = tiny_config()
    later = [
        f"variant.{name}" for name in ("mult", "norm", "norm_eps", "learned", "learned_per_unit", "offset")
    ]
    assert id_of(config) == old_id(config, *later)


def test_ids_are_those_of_before_train_fast() -> None:
    """Two that the version without the key gave."""
    facts = {"data_fingerprint": "d" * 64, "tokenizer_fingerprint": "t" * 64, "plugins": []}
    words = ("variant=swish_beta", "model=micro", "optim=muon", "train.precision=fp32")
    assert make_run_id(load_config([]), facts) == "swiglu-nano-stdlib-s0-ccc4269898"
    assert make_run_id(load_config(words), facts) == "swish_beta-micro-stdlib-s0-669ada71bb"
    slow = load_config([*words, "train.fast=false"])
    assert make_run_id(slow, facts) != make_run_id(load_config(words), facts)
    assert make_run_id(slow, facts) == make_run_id(load_config([*words, "train.fast=False"]), facts)


def test_a_run_older_than_a_key_is_read_and_verifies(
    finished_run: Run, tiny_config: TinyConfig, tmp_path: Path
) -> None:
    path = tmp_path / "runs" / finished_run.path.name
    shutil.copytree(finished_run.path, path)
    text = (path / "config.yaml").read_text()
    assert "  fast: true\n" in text
    (path / "config.yaml").write_text(text.replace("  fast: true\n", ""))
    old = Run(path)
    assert old.config() == finished_run.config()
    assert _fill(schema.Config, read_yaml(path / "config.yaml")) is not None  # the quick way, too
    assert old.identity() == finished_run.identity()
    (event,) = train_run(tiny_config(), tmp_path, StopRequest())
    assert isinstance(event, Finished)
    assert event.reused
    (path / "config.yaml").write_text(text.replace("  fast: true\n", "  fast: false\n"))
    with pytest.raises(DataError, match="was edited"):
        old.config()


@pytest.mark.parametrize(
    "word",
    [
        *("variant.up_clamp=7", "variant.gate_clamp=7", "variant.gate_out_clamp=7", "variant.offset=1"),
        *("variant.mult=2", "variant.norm=rms", "variant.norm=layer", "variant.norm_eps=1e-6"),
        *("variant.learned=[mult]", "variant.learned_per_unit=[mult]", "variant.value=tanh", "init=moment"),
    ],
)
def test_the_id_follows_every_part_of_the_formula(word: str, tiny_config: TinyConfig) -> None:
    assert id_of(tiny_config(word)) != id_of(tiny_config())
    assert id_of(tiny_config(word)) == old_id(tiny_config(word))


def test_the_id_follows_the_constants(tiny_config: TinyConfig) -> None:
    words = ("variant=swiglu_beta", "variant.gate_args.beta=")
    ids = {value: id_of(tiny_config(words[0], f"{words[1]}{value}")) for value in ("1", "1.0", "0", "2")}
    assert ids["1"] == ids["1.0"] == id_of(tiny_config(words[0]))
    assert len(set(ids.values())) == 3


def test_the_id_follows_text_and_tokenizer(tiny_config: TinyConfig) -> None:
    config = tiny_config()
    assert len({id_of(config), id_of(config, data="e"), id_of(config, tokenizer="u")}) == 3


def test_the_id_is_the_same_for_ever(tiny_config: TinyConfig) -> None:
    words = ("train.precision=fp32", "train.compile=false", "train.device=cpu", "seed=3")
    given = id_of(tiny_config("model.seq_len=16", *words))
    assert given == "swiglu-pico-text-s3-6d692e14cb"


def make_folder_of(
    tiny_config: TinyConfig, output_dir: Path, *words: str, seed: int = 0, data: str = "d"
) -> Run:
    """A run folder as it stands before the first step."""
    config = tiny_config(f"seed={seed}", *words)
    facts = {"data_fingerprint": data, "tokenizer_fingerprint": "t", "vocab_size": 257}
    return open_run(output_dir, config, {"run_id": make_run_id(config, facts), **facts})


def test_a_run_folder_gives_back_its_configuration(tiny_config: TinyConfig, tmp_path: Path) -> None:
    run = make_folder_of(tiny_config, tmp_path)
    assert run.config() == tiny_config("seed=0")
    assert run.run_id == run.path.name
    assert load_run(run.path) == run == load_run(str(run.path))


def test_entering_a_folder_again_writes_nothing(tiny_config: TinyConfig, tmp_path: Path) -> None:
    run = make_folder_of(tiny_config, tmp_path)
    before = {path: path.stat().st_mtime_ns for path in run.path.iterdir()}
    make_folder_of(tiny_config, tmp_path)
    assert {path: path.stat().st_mtime_ns for path in run.path.iterdir()} == before


@pytest.mark.parametrize(
    ("old", "new", "dotted"),
    [("lr: 0.002", "lr: 0.003", "optim.lr"), ("steps: 6", "steps: 7", "train.steps")],
)
def test_an_edited_config_is_named_by_its_first_key_and_nothing_is_overwritten(
    old: str, new: str, dotted: str, tiny_config: TinyConfig, tmp_path: Path
) -> None:
    run = make_folder_of(tiny_config, tmp_path)
    path = run.path / "config.yaml"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    with pytest.raises(DataError, match=dotted):
        make_folder_of(tiny_config, tmp_path)
    assert path.read_text() == text.replace(old, new)
    with pytest.raises(DataError, match="was edited"):
        run.config()


def test_a_constant_put_into_a_config_is_noticed(tiny_config: TinyConfig, tmp_path: Path) -> None:
    run = make_folder_of(tiny_config, tmp_path)
    path = run.path / "config.yaml"
    path.write_text(path.read_text().replace("gate_args: {}", "gate_args:\n    beta: 2.0"))
    with pytest.raises(DataError, match=r"variant\.gate_args\.beta is 2\.0 there and None"):
        make_folder_of(tiny_config, tmp_path)


def test_a_config_that_is_no_longer_one_is_refused(tiny_config: TinyConfig, tmp_path: Path) -> None:
    run = make_folder_of(tiny_config, tmp_path)
    (run.path / "config.yaml").write_text("seed: [")
    for attempt in (run.config, lambda: make_folder_of(tiny_config, tmp_path)):
        with pytest.raises(DataError, match=r"config\.yaml:1"):
            attempt()


def test_a_folder_that_is_a_link_is_refused(tiny_config: TinyConfig, tmp_path: Path) -> None:
    run = make_folder_of(tiny_config, tmp_path)
    shutil.move(run.path, tmp_path / "elsewhere")
    run.path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DataError, match="a link"):
        make_folder_of(tiny_config, tmp_path)


def test_a_half_made_folder_is_entered(tiny_config: TinyConfig, tmp_path: Path) -> None:
    run = make_folder_of(tiny_config, tmp_path)
    (run.path / "environment.json").unlink()
    assert run.status() == "planned"
    (run.path / "config.yaml").write_text("torn")
    assert make_folder_of(tiny_config, tmp_path).config() == tiny_config("seed=0")


@pytest.fixture
def three_runs(tiny_config: TinyConfig, tmp_path: Path) -> list[Run]:
    words = ("variant=gelu", "variant=geglu", "variant=relu")
    return [make_folder_of(tiny_config, tmp_path, word) for word in words]


def test_runs_are_found_by_id_prefix_and_folder(three_runs: list[Run], tmp_path: Path) -> None:
    gelu, geglu, relu = three_runs
    assert find_run("relu", tmp_path) == relu
    assert find_run("gelu-pico", tmp_path) == gelu
    assert find_run(geglu.run_id, tmp_path) == geglu
    assert find_run(str(geglu.path), tmp_path / "elsewhere").path == geglu.path


def test_an_exact_id_wins_over_a_longer_one(three_runs: list[Run], tmp_path: Path) -> None:
    relu = three_runs[2]
    shutil.copytree(relu.path, relu.path.with_name(relu.path.name + "-copy"))
    assert find_run(relu.run_id, tmp_path).path == relu.path


def test_a_prefix_of_several_runs_names_them(three_runs: list[Run], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"names 2 runs: geglu.*, gelu.*; write more of the id"):
        find_run("ge", tmp_path)


def test_a_name_of_no_run_says_which_there_are(three_runs: list[Run], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no run 'swiglu'.*geglu"):
        find_run("swiglu", tmp_path)
    with pytest.raises(ConfigError, match="no run 'x'"):
        find_run("x", tmp_path / "nosuch")


@pytest.mark.parametrize("text", ["../..", ".", "", "a\0b", "x" * 300, "/etc"])
def test_a_name_that_leaves_the_folder_is_no_run(text: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        find_run(text, tmp_path)


def test_what_is_no_run_folder_is_neither_listed_nor_loaded(three_runs: list[Run], tmp_path: Path) -> None:
    (tmp_path / "runs" / "notes").mkdir()
    (tmp_path / "runs" / "file.txt").write_text("x")
    assert list_runs(tmp_path) == sorted(three_runs, key=lambda run: run.path.name)
    assert list_runs(tmp_path / "nosuch") == []
    with pytest.raises(DataError, match="not a run folder"):
        load_run(tmp_path / "runs" / "notes")


def test_the_status_comes_from_what_is_on_disk(train: Train, tiny_config: TinyConfig, tmp_path: Path) -> None:
    run = make_folder_of(tiny_config, tmp_path / "made")
    assert run.status() == "interrupted"
    with hold_lock(run.path):
        assert run.status() == "running"
    with pytest.raises(DataError, match="not complete"):
        run.result()
    with pytest.raises(InterruptedRunError):
        train(stop=StopAt(2))
    (stopped,) = list_runs(tmp_path)
    assert stopped.status() == "interrupted"
    assert train()["run_id"] == stopped.run_id
    assert stopped.status() == "complete"
    with hold_lock(stopped.path):
        assert stopped.status() == "complete"
    assert {"interrupted", "running", "complete", "planned"} <= set(STATUSES)


def test_an_edited_result_is_not_taken_for_complete(train: Train, tmp_path: Path) -> None:
    first = train()
    (run,) = list_runs(tmp_path)
    record = json.loads((run.path / "result.json").read_text())
    (run.path / "result.json").write_text(json.dumps({**record, "test_loss_nats": 0.1}))
    assert run.status() == "interrupted"
    assert train()["parameters_sha256"] == first["parameters_sha256"]
    assert run.result()["test_loss_nats"] == first["test_loss_nats"]


def test_a_diverged_run_says_so(train: Train, tmp_path: Path) -> None:
    with pytest.raises(DivergedError):
        train("optim.lr=1e9", "optim.eps=1e-30", "train.steps=40", "optim.clip_norm=1e9")
    (run,) = list_runs(tmp_path)
    assert run.status() == "diverged"
    failure = run.failure()
    assert failure is not None
    assert failure["step"] > 1


@pytest.mark.parametrize(
    "text", ['{"status": ', "[]", "{}", '{"status": "complete"}', '{"status": "failed"}']
)
def test_a_broken_note_of_a_failure_is_a_failure(text: str, tmp_path: Path) -> None:
    (tmp_path / "environment.json").write_text("{}")
    (tmp_path / "failure.json").write_text(text)
    run = Run(tmp_path)
    assert (run.status(), run.outcome()) == ("failed", "failed")
    assert "failure.json: " in (run.failure() or {})["reason"]


def test_restarting_leaves_configuration_and_environment_alone(train: Train, tmp_path: Path) -> None:
    train()
    (run,) = list_runs(tmp_path)
    restart_run(run)
    left = {path.name for path in run.path.iterdir() if not path.name.startswith(".lock")}
    assert left == {"config.yaml", "environment.json"}


def test_the_output_folder_is_found_from_within_a_run(
    finished_run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(finished_run.path)
    assert Run(Path()).output_dir == finished_run.path.resolve().parent.parent


def test_the_model_of_a_run_has_the_weights_that_were_hashed(finished_run: Run) -> None:
    from glu_bench.train.result import collect_weights, hash_weights

    model = finished_run.load_model()
    assert not model.training
    assert hash_weights(collect_weights(model)) == finished_run.result()["parameters_sha256"]


def test_a_run_without_checkpoint_has_no_model(tiny_config: TinyConfig, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has no checkpoint"):
        make_folder_of(tiny_config, tmp_path).load_model()


def _drop(tensors: dict[str, torch.Tensor]) -> None:
    del tensors["norm.weight"]


def _add(tensors: dict[str, torch.Tensor]) -> None:
    tensors["extra.weight"] = torch.zeros(2)


def _reshape(tensors: dict[str, torch.Tensor]) -> None:
    tensors["norm.weight"] = torch.ones(47)


def _halve(tensors: dict[str, torch.Tensor]) -> None:
    tensors["norm.weight"] = tensors["norm.weight"].half()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_drop, r"norm\.weight is missing from the checkpoint"),
        (_add, r"extra\.weight is not in the model but in the checkpoint"),
        (_reshape, r"norm\.weight is \(47,\) .* in the checkpoint, \(48,\) .* in the model"),
        (_halve, r"norm\.weight is .*float16 in the checkpoint, .*float32 in the model"),
    ],
)
def test_weights_that_do_not_fit_are_named_from_both_sides(
    damage: Callable[[dict[str, torch.Tensor]], None], message: str, tiny_config: TinyConfig
) -> None:
    model = make_decoder(tiny_config(), 257)
    tensors = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    damage(tensors)
    with pytest.raises(DataError, match=message):
        load_weights(model, tensors, "here")


def test_weights_of_another_variant_do_not_fit(tiny_config: TinyConfig) -> None:
    gated, ungated = (make_decoder(tiny_config(f"variant={name}"), 257) for name in ("swiglu", "relu"))
    with pytest.raises(DataError, match="in the checkpoint"):
        load_weights(gated, dict(ungated.named_parameters()), "here")


def test_tied_weights_come_back(tiny_config: TinyConfig) -> None:
    config = tiny_config("model.tied_embeddings=true")
    model, other = make_decoder(config, 257), make_decoder(config, 257)
    load_weights(other, {name: p.detach().clone() for name, p in model.named_parameters()}, "here")
    assert torch.equal(model.head.weight, other.head.weight)
    assert other.head.weight is other.embedding.weight


def test_the_environment_holds_facts_and_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    facts = read_environment("cpu")
    assert facts["versions"]["torch"] == importlib.metadata.version("torch")
    assert facts["n_threads"] == torch.get_num_threads()
    assert "hf_secret" not in json.dumps(facts)


def test_no_secret_of_the_environment_reaches_a_run_folder(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    train("train.steps=1")
    held = [path for path in tmp_path.rglob("*") if path.is_file() and b"hf_secret" in path.read_bytes()]
    assert held == []


def test_a_rendered_config_in_a_folder_is_that_of_the_first_command(
    tiny_config: TinyConfig, tmp_path: Path
) -> None:
    run = make_folder_of(tiny_config, tmp_path)
    make_folder_of(tiny_config, tmp_path, "train.log_every=5")
    assert (run.path / "config.yaml").read_text() == render_config(tiny_config("seed=0"))
    assert dataclasses.is_dataclass(run.config())
