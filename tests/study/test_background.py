"""What stands behind a table: logs thinned, runs in their tables, words that make a run again."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from glu_bench import schema
from glu_bench.config import load_config
from glu_bench.files import write_json
from glu_bench.runs.folder import Run
from glu_bench.study.background import collect_backgrounds
from glu_bench.study.compare import compare_runs
from glu_bench.study.recall import Known, recall_words
from glu_bench.study.traces import list_profiles, read_log
from tests.study.conftest import MakeRun


def write_rows(run: Run, rows: list[object]) -> None:
    run.metrics_path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def row_at(step: int, **more: object) -> dict[str, object]:
    return {"step": step, "tokens": 10 * step, "elapsed_s": step / 4, "loss_nats": float(step), **more}


def test_a_long_log_is_thinned_to_means_and_held_out_points_stay_as_they_are(make_run: MakeRun) -> None:
    run = make_run("gelu", 0, 2.0)
    write_rows(run, [row_at(step, val_loss_nats=step / 10) for step in range(1, 101)])
    log = read_log(run, 10)
    training, held_out = log.traces["loss_nats"], log.traces["val_loss_nats"]
    assert training.values == [5.5 + 10 * part for part in range(10)]
    assert training.tokens == [55 + 100 * part for part in range(10)]
    assert training.elapsed_s == pytest.approx([value / 4 for value in training.values])
    assert held_out.values == [float(part) for part in range(1, 11)]
    assert held_out.tokens == [100 * part for part in range(1, 11)]


def test_a_short_log_is_kept_whole(make_run: MakeRun) -> None:
    run = make_run("gelu", 0, 2.0)
    write_rows(run, [row_at(step) for step in range(1, 8)])
    assert read_log(run, 7).traces["loss_nats"].values == [1, 2, 3, 4, 5, 6, 7]


def test_quantities_of_any_shape_are_found_and_what_is_no_number_is_left_out(make_run: MakeRun) -> None:
    run = make_run("gelu", 0, 2.0)
    first = row_at(1, spikes=2, word="x", flag=True, nothing=None, light={"dead_share": 0.5})
    layers = [{"layer": 0, "dead": 0.1, "kind": "a"}, {"layer": 1, "dead": 0.3, "kind": "b"}]
    last = row_at(2, spikes=3, layers=layers, per_layer=[1, 2], mixed=[1, "x"])
    write_rows(run, [first, {"step": 5, "loss_nats": 9.0}, last])
    log = read_log(run, 100)
    assert log.traces["spikes"].values == [2, 3]
    assert log.traces["light.dead_share"].values == [0.5]
    assert log.traces["loss_nats"].values == [1, 2]
    assert set(log.traces) == {"loss_nats", "spikes", "light.dead_share"}
    assert log.profiles == {"layers.dead": [0.1, 0.3], "per_layer": [1, 2]}


def test_a_profile_of_a_record_is_a_number_a_layer() -> None:
    record = {"a": [1, 2], "b": [1, 2, 3], "c": [1, math.nan], "loss": 2.0}
    assert list_profiles(record, 2) == {"a": [1, 2]}


def test_each_run_stands_behind_its_own_table(make_run: MakeRun) -> None:
    runs = [
        make_run(arm, seed, 2.0 + seed, *words)
        for arm in ("gelu", "swiglu")
        for seed in (0, 1)
        for words in ((), ("train.steps=7",))
    ]
    runs += [make_run("gelu", 2, None, diverged=True), make_run("relu", 0, 2.0, "train.steps=8")]
    write_json(runs[-2].path / "failure.json", {"status": "diverged", "reason": "loss is nan at step 3"})
    tables = compare_runs(runs)
    behind = collect_backgrounds(tables, runs[::-1])
    for table, background in zip(tables, behind, strict=True):
        steps = {member.settings["train.steps"] for member in background.members}
        assert steps == ({6} if "6 steps" in table.setting else {7})
        finished = [m for m in background.members if m.result is not None]
        assert {(m.arm, m.seed) for m in finished} == {(a, s) for a in ("gelu", "swiglu") for s in (0, 1)}
    reasons = [member.reason for background in behind for member in background.members if member.reason]
    assert reasons == ["loss is nan at step 3"]


def test_runs_stand_in_the_order_of_the_table_then_of_seeds(nine_runs: list[Run]) -> None:
    tables = compare_runs(nine_runs)
    (background,) = collect_backgrounds(tables, nine_runs[::-1])
    order = [(arm, seed) for arm in ("swiglu", "gelu", "relu") for seed in range(3)]
    assert [(member.arm, member.seed) for member in background.members] == order


@pytest.mark.parametrize(
    "words",
    [
        ["variant=swiglu"],
        [
            "variant=geglu",
            "model=pico",
            "optim=muon",
            "optim.lr=4e-3",
            "train.steps=30",
            "train.compile=false",
        ],
        ["variant=swiglu_beta", "variant.gate_args.beta=2", "variant.learned=[mult]", "match=width"],
        ["variant=relu", "match=none", "match.d_ff=96", "train.epochs=0.5", "model.ffn_bias=true"],
        ["data=text", "data.files=it's a [file].txt", "tokenizer=bpe", "tokenizer.vocab_size=512"],
        ["data=hub", "data.path=owner/name", "data.name=true", "data.column=1e5", "variant=glu"],
    ],
    ids=lambda words: words[-1],
)
def test_the_words_of_a_configuration_lead_back_to_it(words: list[str]) -> None:
    config = load_config([*words, "seed=3"])
    found = recall_words(config)
    assert found is not None
    assert schema.flatten_config(load_config(found)) == schema.flatten_config(config)


def test_seeds_share_the_search_for_words(monkeypatch: pytest.MonkeyPatch) -> None:
    known = Known()
    first, second = (load_config(["variant=geglu", f"seed={seed}"]) for seed in (0, 1))
    assert recall_words(first, known) == ["variant=geglu", "seed=0"]
    monkeypatch.setattr("glu_bench.study.recall.load_config", lambda words: pytest.fail("composed again"))
    assert recall_words(second, known) == ["variant=geglu", "seed=1"]


def test_a_variant_of_ones_own_has_no_words_and_the_folder_is_named() -> None:
    config = load_config(["variant=geglu"])
    config.variant.name = "my_own"
    assert recall_words(config) is None
    config = load_config(["variant=geglu"])
    config.numerics_version += 1
    assert recall_words(config) is None


def test_a_folder_that_never_began_is_no_obstacle(make_run: MakeRun, tmp_path: Path) -> None:
    runs = [make_run("gelu", 0, 2.0), make_run("swiglu", 0, 1.9), make_run("swiglu", 1, None)]
    (background,) = collect_backgrounds(compare_runs(runs), runs)
    assert [m.status for m in background.members] == ["complete", "interrupted", "complete"]
    assert all(member.log.traces == {} for member in background.members)
