"""What a run notes of its gates while it trains, and that noting changes nothing."""

from __future__ import annotations

import dataclasses
import itertools
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from glu_bench.config import load_config
from glu_bench.config_file import read_config, render_config
from glu_bench.data.prepared import prepare_tokens
from glu_bench.errors import InterruptedRunError
from glu_bench.evaluate.inspection import inspect_run
from glu_bench.evaluate.units import Units
from glu_bench.lm.decoder import make_decoder
from glu_bench.lm.init import init_weights
from glu_bench.ranks import Ranks
from glu_bench.runs.folder import list_runs, make_run_id
from glu_bench.study.traces import read_log
from glu_bench.train import diagnostics
from glu_bench.train.diagnostics import make_diagnostics
from tests.conftest import StopAt, TinyConfig, Train

LIGHT = {"dead_share", "zero_share", "saturation", "hidden_rms"}
GRADIENTS = {f"{kind}_gradient_norm_per_layer" for kind in ("gate", "up", "down")}
MEASURES = {
    field.name for field in dataclasses.fields(Units) if not field.name.startswith(("nonfinite", "gate_h"))
} - {"hidden_octaves"}


def rows_of(output_dir: Path) -> list[dict[str, Any]]:
    (run,) = list_runs(output_dir)
    return run.rows()


def noted(row: dict[str, Any]) -> dict[str, Any]:
    return {name: row[name] for name in row if name.endswith("_per_layer") or name.startswith("diagnostics")}


@pytest.mark.parametrize("word", ["model.dropout=0.3", "variant=swiglu_beta", "train.grad_accum=2"])
def test_a_run_ends_in_the_same_bits_with_and_without(word: str, train: Train, tmp_path: Path) -> None:
    records = {
        kind: train(word, f"train.diagnostics={kind}", output_dir=tmp_path / kind)
        for kind in ("off", "light", "full")
    }
    for kind in ("light", "full"):
        for name in ("run_id", "parameters_sha256", "test_loss_nats", "blocks_sha256"):
            assert records[kind][name] == records["off"][name]
        for row, plain in zip(rows_of(tmp_path / kind), rows_of(tmp_path / "off"), strict=True):
            assert row["loss_nats"] == plain["loss_nats"]
            assert row["grad_norm"] == plain["grad_norm"]
    assert not any(noted(row) for row in rows_of(tmp_path / "off"))


def test_a_stopped_run_notes_and_ends_the_same(train: Train, tmp_path: Path) -> None:
    words = ("train.diagnostics=full", "train.eval_every=2", "model.dropout=0.3")
    straight = train(*words, output_dir=tmp_path / "straight")
    for step in (3, 1):
        with pytest.raises(InterruptedRunError):
            train(*words, output_dir=tmp_path / "stopped", stop=StopAt(step))
    stopped = train(*words, output_dir=tmp_path / "stopped")
    assert stopped["parameters_sha256"] == straight["parameters_sha256"]
    both = (map(noted, rows_of(tmp_path / name)) for name in ("straight", "stopped"))
    assert all(one == other for one, other in zip(*both, strict=True))


@pytest.mark.slow  # compiles
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's compiler uses what torch deprecates
def test_a_compiled_run_ends_in_the_same_bits(train: Train, tmp_path: Path) -> None:
    words = ("train.compile=true", "train.eval_every=2")
    found, n_graphs = set(), set()
    for kind in ("off", "light", "full"):
        torch.compiler.reset()
        torch._dynamo.utils.counters.clear()
        record = train(*words, f"train.diagnostics={kind}", output_dir=tmp_path / kind)
        found.add(record["parameters_sha256"])
        n_graphs.add(torch._dynamo.utils.counters["stats"]["unique_graphs"])
    assert len(n_graphs) == 1  # looking compiles nothing anew
    with pytest.raises(InterruptedRunError):
        train(*words, output_dir=tmp_path / "stopped", stop=StopAt(3))
    found.add(train(*words, output_dir=tmp_path / "stopped")["parameters_sha256"])
    assert len(found) == 1


def test_light_notes_units_with_held_out_losses_and_gradients_with_every_row(
    train: Train, tmp_path: Path
) -> None:
    train("train.diagnostics=light")
    rows = rows_of(tmp_path)
    assert [row["step"] for row in rows if "diagnostics_tokens" in row] == [1, 3, 6]
    for row in rows:
        units = {f"{name}_per_layer" for name in LIGHT} | {"diagnostics_tokens"}
        assert set(noted(row)) == GRADIENTS | (units if row["step"] in (1, 3, 6) else set())
        assert all(len(value) == 2 for name, value in noted(row).items() if name.endswith("_per_layer"))
    assert rows[0]["diagnostics_tokens"] == 4 * 16


def test_full_notes_what_inspect_would_say_of_the_last_step(train: Train, tmp_path: Path) -> None:
    train("train.diagnostics=full", "train.eval_tokens=300")
    last = rows_of(tmp_path)[-1]
    assert set(noted(last)) == GRADIENTS | {f"{name}_per_layer" for name in MEASURES} | {"diagnostics_tokens"}
    (run,) = list_runs(tmp_path)
    found = inspect_run(run, n_tokens=300)
    assert found.tokens == last["diagnostics_tokens"]
    for name in MEASURES:
        values = [getattr(layer.units, name) for layer in found.layers]
        assert last[f"{name}_per_layer"] == pytest.approx(values, rel=1e-5)


def test_fewer_tokens_than_units_span_no_covariance(train: Train, tmp_path: Path) -> None:
    train("train.diagnostics=full", "train.eval_tokens=64")
    last = rows_of(tmp_path)[-1]
    assert last["effective_rank_per_layer"] == last["participation_ratio_per_layer"] == [None, None]
    assert None not in last["hidden_kurtosis_per_layer"]


def test_gradient_norms_are_those_before_clipping(train: Train, tmp_path: Path) -> None:
    """Together they stay below the whole norm and do not shrink with clip_norm."""
    norms = []
    for clip in (1e-3, 1e9):
        train(f"optim.clip_norm={clip}", "train.steps=1", output_dir=tmp_path / str(clip))
        row = rows_of(tmp_path / str(clip))[0]
        norms.append([row[name] for name in sorted(GRADIENTS)])
        assert 0.1 * row["grad_norm"] < math.hypot(*itertools.chain(*norms[-1])) < row["grad_norm"]
    assert norms[0] == norms[1]


def test_an_ungated_arm_has_no_gate_to_note(train: Train, tmp_path: Path) -> None:
    train("variant=relu")
    assert set(noted(rows_of(tmp_path)[1])) == GRADIENTS - {"gate_gradient_norm_per_layer"}


def test_a_nan_is_noted_by_its_count(tiny_config: TinyConfig) -> None:
    config = tiny_config()
    tokens = prepare_tokens(config)
    model = make_decoder(config, tokens.tokenizer.vocab_size)
    init_weights(model, 0)
    with torch.no_grad():
        model.blocks[1].ffn.hidden.in_proj.weight[0] = math.nan  # type: ignore[index, union-attr, operator]
    found, _ = make_diagnostics(config, tokens.stream("val"), model.d_ff, Ranks())
    row = found.read_units(model)
    assert row["dead_share_per_layer"] == [0.0, None]
    assert row["nonfinite_hidden_per_layer"] == [0, 64]


def test_looking_leaves_mode_and_generator_alone(tiny_config: TinyConfig) -> None:
    config = tiny_config("train.diagnostics=full", "model.dropout=0.5")
    tokens = prepare_tokens(config)
    model = make_decoder(config, tokens.tokenizer.vocab_size)
    init_weights(model, 0)
    found, _ = make_diagnostics(config, tokens.stream("val"), model.d_ff, Ranks())
    model.train()
    before = torch.get_rng_state()
    assert found.read_units(model) == found.read_units(model)
    assert torch.equal(torch.get_rng_state(), before)
    assert all(module.training for module in model.modules())
    assert all(parameter.grad is None and parameter.requires_grad for parameter in model.parameters())


def test_only_the_rank_that_writes_notes_and_under_fsdp_none_does(tiny_config: TinyConfig) -> None:
    config = tiny_config()
    stream = prepare_tokens(config).stream("val")
    for ranks, n_remarks in (
        (Ranks(mode="ddp", rank=1, size=2), 0),
        (Ranks(mode="fsdp", rank=0, size=2), 1),
    ):
        found, remarks = make_diagnostics(config, stream, 128, ranks)
        assert found.head is None
        assert len(remarks) == n_remarks
    found, _ = make_diagnostics(config, stream, 128, Ranks(mode="ddp", rank=0, size=2))
    assert found.head is not None


def test_the_report_finds_what_was_noted(train: Train, tmp_path: Path) -> None:
    train()
    (run,) = list_runs(tmp_path)
    profiles = read_log(run, 100).profiles
    assert list(profiles)[:2] == ["hidden_rms_at_init", "dead_share_per_layer"]
    assert profiles.keys() >= GRADIENTS | {f"{name}_per_layer" for name in LIGHT}
    assert all(len(values) == 2 for values in profiles.values())


def test_the_key_is_no_part_of_the_id_and_older_records_lack_it(
    tiny_config: TinyConfig, tmp_path: Path
) -> None:
    facts = {"data_fingerprint": "a", "tokenizer_fingerprint": "b"}
    light, off = tiny_config(), tiny_config("train.diagnostics=off")
    assert (light.train.diagnostics, off.train.diagnostics) == ("light", "off")
    assert make_run_id(light, facts) == make_run_id(off, facts)
    path = tmp_path / "config.yaml"
    path.write_text(render_config(off))
    assert read_config(path) == off
    path.write_text(render_config(light).replace("  diagnostics: light\n", ""))
    older = read_config(path)
    assert older.train.diagnostics == "off"
    assert make_run_id(older, facts) == make_run_id(light, facts)
    stream = prepare_tokens(light).stream("val")
    assert make_diagnostics(older, stream, 128, Ranks())[0].head is None


def test_a_bare_off_in_a_file_is_off(tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    text = "defaults: [default, _self_]\ndiagnostics: off\n"
    (tmp_path / "train" / "silent.yaml").write_text(text)
    assert load_config(["train=silent"], tmp_path).train.diagnostics == "off"


def test_the_light_names_are_measures() -> None:
    assert set(diagnostics.LIGHT) == LIGHT <= MEASURES
