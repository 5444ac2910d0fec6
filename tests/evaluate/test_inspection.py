"""A run inspected: every variant, any batch size, bad weights, too few tokens, missing files."""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from glu_bench.errors import DataError, InterruptedRunError
from glu_bench.evaluate.ablation import fit_lines, measure_loss
from glu_bench.evaluate.gradients import measure_gradients
from glu_bench.evaluate.history import read_history
from glu_bench.evaluate.inspection import (
    Inspection,
    Layer,
    flatten_layer,
    inspect_run,
    sum_units,
    summarise,
)
from glu_bench.evaluate.units import measure_units
from glu_bench.evaluate.weights import measure_weights
from glu_bench.ffn.formula import list_variants, load_variant
from glu_bench.lm.hidden import list_ffns
from glu_bench.runs.checkpoint import list_checkpoints, load_checkpoint, save_checkpoint
from glu_bench.runs.folder import Run, list_runs
from glu_bench.train.run import train_run
from glu_bench.train.stop import StopRequest
from tests.conftest import REPO, StopAt, TinyConfig, Train
from tests.evaluate.made import make_head, make_small


def inspect_small(name: str, chunk_tokens: int = 4096, seed: int = 0) -> list[Layer]:
    model = make_small(name, seed=seed)
    batches = list(make_head(chunk_tokens=chunk_tokens).batches())
    gradients, _ = measure_gradients(model, batches)
    return [
        Layer(layer=at, units=measure_units(sums), weights=measure_weights(ffn), gradients=gradients[at])
        for at, (sums, ffn) in enumerate(zip(sum_units(model, batches), list_ffns(model), strict=True))
    ]


def list_numbers(tree: Any, name: str = "") -> Iterator[tuple[str, float | None]]:
    if isinstance(tree, dict):
        for key, value in tree.items():
            yield from list_numbers(value, f"{name}.{key}")
    elif isinstance(tree, list):
        for at, value in enumerate(tree):
            yield from list_numbers(value, f"{name}[{at}]")
    elif tree is None or isinstance(tree, int | float):
        yield name, tree


def near(numbers: dict[str, float | None], rel: float) -> dict[str, Any]:
    return {
        key: None if value is None else pytest.approx(value, rel=rel, abs=1e-9)
        for key, value in numbers.items()
    }


@pytest.mark.parametrize("name", list_variants())
def test_every_variant_has_every_measure_but_those_it_cannot_have(name: str) -> None:
    formula, layers = load_variant(name), inspect_small(name)
    absent: set[str] = set()
    if not formula.gated:
        absent |= {"gate_weight_norm", "gate_gradient_norm", "gate_up_cosine", "gate_up_cosine_size"}
    if name in ("polynorm", "solu"):
        absent |= {"saturation", "saturation_low", "saturation_high", "zero_slope_share"}
    for layer in layers:
        flat = flatten_layer(layer)
        assert {key for key, value in flat.items() if value is None} == absent
        assert all(value is None or math.isfinite(value) for _, value in list_numbers(flat))
        shares = [value for key, value in flat.items() if key.endswith("_share") or key.startswith("satur")]
        assert all(share is None or 0 <= share <= 1 for share in shares)
        assert 1 <= flat["participation_ratio"] <= flat["effective_rank"] + 1e-9 <= 12
        assert sum(flat["gate_histogram"]) == 61 * 12
        assert sum(flat["hidden_octaves"]) == round((1 - flat["zero_share"]) * 61 * 12)
        assert set(flat["learned"]) == {each.argument for each in formula.learned}
    history = {"train_held_out_gap_nats", "n_loss_spikes", "loss_spike_share"}
    summary = summarise(layers, read_history([], None))
    assert {key for key, value in summary.items() if value is None} == absent | history


@pytest.mark.parametrize("kind", ["constant", "shuffled", "linear"])
@pytest.mark.parametrize("name", list_variants())
def test_the_gate_of_every_variant_can_be_replaced(name: str, kind: str) -> None:
    model, head = make_small(name), make_head()
    lines = None if kind == "shuffled" else fit_lines(model, head, constant=kind == "constant")
    intact = measure_loss(model, head, [], lines)
    replaced = measure_loss(model, head, [0, 1, 2], lines)
    assert math.isfinite(replaced)
    assert (replaced == pytest.approx(intact, abs=1e-6)) == (name == "bilinear" and kind == "linear")


@pytest.mark.parametrize("name", ["relu", "swiglu", "polynorm", "swiglu_mult"])
def test_no_number_depends_on_the_batch_size(name: str) -> None:
    whole = [dict(list_numbers(flatten_layer(layer))) for layer in inspect_small(name)]
    for chunk_tokens in (1, 16):
        cut = [dict(list_numbers(flatten_layer(layer))) for layer in inspect_small(name, chunk_tokens)]
        for ours, theirs in zip(cut, whole, strict=True):
            assert ours == near(theirs, 2e-5)


def test_the_summary_says_what_the_blocks_say() -> None:
    layers = inspect_small("swiglu")
    flat = [flatten_layer(layer) for layer in layers]
    summary = summarise(layers, read_history([], None))
    assert summary["saturation"] == pytest.approx(sum(row["saturation"] for row in flat) / 3)
    assert summary["hidden_max"] == max(row["hidden_max"] for row in flat)
    rms = math.sqrt(sum(row["hidden_rms"] ** 2 for row in flat) / 3)
    assert summary["hidden_rms"] == pytest.approx(rms)
    norms = [row["gradient_norm"] for row in flat]
    assert summary["gradient_norm"] == pytest.approx(math.hypot(*norms))
    assert summary["gradient_norm_spread"] == pytest.approx(max(norms) / min(norms))


def test_a_block_with_a_nan_leaves_no_mean_over_the_others() -> None:
    model = make_small("swiglu")
    with torch.no_grad():
        list_ffns(model)[1].hidden.in_proj.weight[2, 3] = math.nan
    batches = list(make_head().batches())
    units = [measure_units(sums) for sums in sum_units(model, batches)]
    assert [unit.nonfinite_gate for unit in units] == [0, 61, 61 * 12]
    assert [unit.nonfinite_hidden for unit in units] == [0, 61, 61 * 12]
    gradients, _ = measure_gradients(model, batches)
    layers = [
        Layer(layer=at, units=unit, weights=measure_weights(ffn), gradients=gradients[at])
        for at, (unit, ffn) in enumerate(zip(units, list_ffns(model), strict=True))
    ]
    summary = summarise(layers, read_history([], None))
    assert summary["dead_share"] is summary["hidden_rms"] is summary["hidden_max"] is None
    assert (summary["nonfinite_weights"], summary["nonfinite_hidden"]) == (1, 61 * 13)
    assert units[0].dead_share == 0


def by_name(inspection: Inspection) -> dict[str, Any]:
    return dict(list_numbers(dataclasses.asdict(inspection)))


def test_a_run_is_inspected_the_same_for_any_batch_size(finished_run: Run) -> None:
    found = inspect_run(finished_run)
    record = finished_run.result()
    assert (found.step, found.variant, found.split) == (6, "swiglu", "val")
    assert found.tokens == finished_run.environment()["splits"]["val"]["n_tokens"] - 1
    assert found.loss_nats == pytest.approx(record["val_loss_nats"], rel=1e-6)
    gap = record["val_loss_nats"] - record["train_loss_nats"]
    assert found.summary["train_held_out_gap_nats"] == gap
    assert found.nonfinite_weights == {}
    cut = by_name(inspect_run(finished_run, chunk_tokens=16))
    assert cut == near(by_name(found), 1e-4)


def test_a_checkpoint_is_chosen_by_its_step(finished_run: Run) -> None:
    assert finished_run.list_steps() == [4, 6]
    early, last = inspect_run(finished_run, step=4), inspect_run(finished_run)
    assert early.step == 4
    assert early.loss_nats is not None
    assert last.loss_nats is not None
    assert early.loss_nats > last.loss_nats
    with pytest.raises(DataError, match="has no checkpoint of step 5; there are 4, 6"):
        inspect_run(finished_run, step=5)


def test_tokens_that_cannot_span_the_units_are_refused(finished_run: Run) -> None:
    with pytest.raises(DataError, match="128 tokens of the val split: too few, at least 129"):
        inspect_run(finished_run, n_tokens=128)
    assert inspect_run(finished_run, n_tokens=129).tokens == 129


def test_a_run_that_did_not_finish_has_all_but_the_gap(train: Train, tmp_path: Path) -> None:
    with pytest.raises(InterruptedRunError):
        train(stop=StopAt(3))
    (run,) = list_runs(tmp_path)
    found = inspect_run(run)
    assert found.step == 3
    assert found.summary["train_held_out_gap_nats"] is None
    assert found.summary["dead_share"] is not None


def test_the_record_suffices_where_the_variants_file_is_gone(tiny_config: TinyConfig, tmp_path: Path) -> None:
    folder = tmp_path / "own"
    (folder / "variant").mkdir(parents=True)
    text = (REPO / "configs/variant/reglu.yaml").read_text(encoding="utf-8")
    (folder / "variant" / "mine.yaml").write_text(text.replace("name: reglu", "name: mine"))
    config = tiny_config("variant=mine", "train.steps=1", config_dir=folder)
    list(train_run(config, tmp_path / "out", StopRequest()))
    shutil.rmtree(folder)
    (run,) = list_runs(tmp_path / "out")
    assert inspect_run(run).variant == "mine"


def test_without_a_checkpoint_there_is_nothing_to_inspect(finished_run: Run, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(finished_run.path, tmp_path / finished_run.path.name))
    shutil.rmtree(copy / "checkpoints")
    with pytest.raises(DataError, match="has no checkpoint"):
        inspect_run(Run(copy))


def test_weights_that_are_no_numbers_are_named(finished_run: Run, tmp_path: Path) -> None:
    copy = Run(Path(shutil.copytree(finished_run.path, tmp_path / finished_run.path.name)))
    last = load_checkpoint(list_checkpoints(copy.checkpoints)[-1])
    last.model["blocks.1.ffn.down.weight"][0, :5] = math.nan
    state = json.loads((last.path / "state.json").read_text())
    save_checkpoint(copy.checkpoints, copy.run_id, last.step, last.model, last.optimizer, state, 2)
    found = inspect_run(copy)
    assert found.nonfinite_weights == {"blocks.1.ffn.down.weight": 5}
    assert found.summary["nonfinite_weights"] == 5
    assert found.loss_nats is None
    assert found.layers[1].units.nonfinite_hidden == 0  # what it breaks lies behind the last hidden state
    assert found.summary["dead_share"] is not None
    assert found.summary["gradient_norm"] is found.summary["down_weight_norm"] is None
