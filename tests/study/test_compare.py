"""Runs side by side: arms within settings, nothing mixed and no run lost in silence."""

from __future__ import annotations

import dataclasses
import itertools
import math
import random
import shutil
import statistics
from collections.abc import Sequence
from pathlib import Path

import pytest

from glu_bench.config import load_config
from glu_bench.errors import ConfigError, DataError
from glu_bench.runs.folder import Run
from glu_bench.runs.record import write_record
from glu_bench.study.arms import find_runs, read_entries
from glu_bench.study.compare import Arm, Comparison, compare_runs
from glu_bench.study.plan import make_plan
from glu_bench.train.run import train_run
from glu_bench.train.stop import StopRequest
from tests.study.conftest import LOSSES, MakeRun


def only_table(tables: list[Comparison]) -> Comparison:
    (table,) = tables
    return table


def arm_of(table: Comparison, name: str) -> Arm:
    return next(arm for arm in table.arms if arm.arm == name)


def test_each_arm_has_the_mean_and_sd_of_its_seeds(nine_runs: list[Run]) -> None:
    table = only_table(compare_runs(nine_runs))
    for name, losses in LOSSES.items():
        arm = arm_of(table, name)
        assert arm.mean_loss_nats == pytest.approx(statistics.mean(losses))
        assert arm.sd_loss_nats == pytest.approx(statistics.stdev(losses))
        assert arm.bits_per_byte == pytest.approx(2 * statistics.mean(losses))
        assert (arm.n_finished, arm.n_planned, arm.n_diverged) == (3, 3, 0)


def test_arms_stand_best_first(nine_runs: list[Run]) -> None:
    assert [arm.arm for arm in only_table(compare_runs(nine_runs)).arms] == ["swiglu", "gelu", "relu"]


def test_differences_are_over_the_seeds_that_both_have(make_run: MakeRun) -> None:
    runs = [make_run("gelu", seed, loss) for seed, loss in ((0, 2.0), (1, 3.0), (2, 4.0))]
    runs += [make_run("swiglu", seed, loss) for seed, loss in ((1, 2.5), (2, 3.4), (3, 9.0))]
    arm = arm_of(only_table(compare_runs(runs, baseline="gelu")), "swiglu")
    assert arm.difference_nats == pytest.approx(statistics.mean([2.5 - 3.0, 3.4 - 4.0]))


def test_the_other_split_is_read_if_asked(nine_runs: list[Run]) -> None:
    table = only_table(compare_runs(nine_runs, split="val"))
    assert arm_of(table, "gelu").mean_loss_nats == pytest.approx(statistics.mean(LOSSES["gelu"]) + 1)
    assert arm_of(table, "gelu").bits_per_byte == pytest.approx(statistics.mean(LOSSES["gelu"]) + 2)


def test_the_order_of_the_input_changes_nothing(nine_runs: list[Run], make_run: MakeRun) -> None:
    extra = [make_run("relu", 3, None, diverged=True), make_run("gelu", 9, 1.0)]
    runs = [*nine_runs, *extra]
    tables = []
    for seed in range(3):
        random.Random(seed).shuffle(runs)
        tables.append([dataclasses.asdict(table) for table in compare_runs(runs)])
    assert all(table == tables[0] for table in tables)


def test_the_order_of_the_input_is_not_that_of_the_tables(make_run: MakeRun) -> None:
    runs = [
        make_run(arm, 0, 2.0 + n, f"train.steps={n}") for n in (7, 6, 9) for arm in ("gelu", "swiglu", "relu")
    ]
    tables = []
    for seed in range(3):
        random.Random(seed).shuffle(runs)
        tables.append([table.setting for table in compare_runs(runs)])
    assert tables == [sorted(tables[0])] * 3


def test_the_order_of_mixed_runs_changes_nothing(make_run: MakeRun) -> None:
    runs = [make_run("gelu", 0, 2.0, f"train.steps={n}", n_params=n) for n in (8, 7, 6)]
    runs += [make_run("swiglu", 0, 1.0)]
    tables = [compare_runs(given_order, allow_mixed=True) for given_order in (runs, runs[::-1])]
    assert tables[0] == tables[1]


def folder_of(runs: list[Run]) -> Path:
    return runs[0].path.parent.parent


def test_the_same_run_named_twice_counts_once(nine_runs: list[Run]) -> None:
    words = [nine_runs[0].run_id, str(nine_runs[0].path), "gelu-pico-text-s0"]
    found, _ = find_runs(words, folder_of(nine_runs))
    assert [run.path for run in found] == [nine_runs[0].path]


@pytest.mark.parametrize("values", list(itertools.permutations([2.0, 3.0, None])))
def test_a_diverged_run_is_counted_and_wins_nothing_wherever_it_stands(
    values: tuple[float | None, ...], make_run: MakeRun
) -> None:
    runs = [make_run("swiglu", seed, value, diverged=value is None) for seed, value in enumerate(values)] + [
        make_run("gelu", seed, 2.6) for seed in range(3)
    ]
    table = only_table(compare_runs(runs))
    arm = arm_of(table, "swiglu")
    assert (arm.n_finished, arm.n_planned, arm.n_diverged) == (2, 3, 1)
    assert arm.mean_loss_nats == 2.5
    assert any("swiglu" in warning and "2 of 3" in warning for warning in table.warnings)


def test_an_arm_whose_runs_all_diverged_stays_in_the_table_and_last(make_run: MakeRun) -> None:
    runs = [make_run("relu", seed, None, diverged=True) for seed in range(2)]
    runs += [make_run(variant, seed, 2.0) for variant in ("gelu", "swiglu") for seed in range(2)]
    table = only_table(compare_runs(runs))
    assert table.arms[-1].arm == "relu"
    arm = table.arms[-1]
    assert (arm.mean_loss_nats, arm.difference_nats, arm.n_finished, arm.n_diverged) == (None, None, 0, 2)


def test_two_settings_make_two_tables(nine_runs: list[Run], make_run: MakeRun) -> None:
    longer = [make_run(variant, 0, 1.5, "train.steps=7") for variant in ("gelu", "swiglu")]
    tables = compare_runs([*nine_runs, *longer])
    assert sorted(len(table.arms) for table in tables) == [2, 3]
    assert len({table.setting for table in tables}) == 2


@pytest.mark.parametrize(
    "words", [("optim.lr=1e-3",), ("model.dropout=0.1",), ("match=width",), ("evaluation.stride=8",)]
)
def test_runs_of_different_settings_never_share_a_table(words: tuple[str, ...], make_run: MakeRun) -> None:
    here = [make_run(variant, 0, 2.0) for variant in ("gelu", "swiglu")]
    there = [make_run(variant, 0, 1.0, *words) for variant in ("gelu", "swiglu")]
    means = [arm.mean_loss_nats for table in compare_runs([*here, *there]) for arm in table.arms]
    assert sorted(means) == [1.0, 1.0, 2.0, 2.0]  # type: ignore[type-var]


def test_runs_of_different_texts_never_share_a_table(make_run: MakeRun) -> None:
    runs = [make_run(variant, 0, 2.0, data=data) for variant in ("gelu", "swiglu") for data in ("d", "e")]
    assert len(compare_runs(runs)) == 2


def test_a_run_without_a_second_arm_in_its_setting_is_named_as_left_out(
    nine_runs: list[Run], make_run: MakeRun
) -> None:
    lone = make_run("relu", 0, 1.0, "train.steps=7")
    assert only_table(compare_runs([*nine_runs, lone])).left_out == [lone.run_id]


def test_the_runs_that_speedups_are_made_of_are_not_left_out(nine_runs: list[Run], make_run: MakeRun) -> None:
    """The baseline's at another budget; another arm's there stands for nothing."""
    used, unused = make_run("gelu", 0, 1.0, "train.steps=7"), make_run("relu", 0, 1.0, "train.steps=8")
    assert only_table(compare_runs([*nine_runs, used, unused])).left_out == [unused.run_id]


def test_runs_named_one_by_one_that_disagree_are_refused_by_the_key(make_run: MakeRun) -> None:
    runs = [make_run("gelu", 0, 2.0), make_run("swiglu", 0, 2.0, "train.steps=7")]
    with pytest.raises(ConfigError, match=r"train\.steps is [67] and [67].*--allow-mixed"):
        compare_runs(runs, refuse_mixed=True)


def tune(name: str, runs: Sequence[Run], *rates: str) -> None:
    """What a tuning of the learning rate over these values leaves, had it chosen these runs."""
    made = {run.run_id: {"keys": ["optim.lr"], "edges": {}} for run in runs}
    folder = runs[0].path.parent.parent / "sweeps" / name
    folder.mkdir(parents=True)
    record = {"tuned": {"optim.lr": list(rates)}, "seeds": [100], "arms": [], "runs": made}
    write_record(folder / "tuning.json", {"schema_version": 1, **record})


def test_arms_are_compared_with_those_that_were_tuned_alike(make_run: MakeRun) -> None:
    """The same grid and seeds, in one sweep or in two; a wider grid is another budget."""
    gelu = [make_run("gelu", seed, 2.0 + seed) for seed in range(2)]
    swiglu = [make_run("swiglu", seed, 1.9 + seed, "optim.lr=1e-3") for seed in range(2)]
    wider = [make_run("swiglu", seed, 1.0 + seed, "optim.lr=4e-3") for seed in range(2)]
    tune("one", gelu, "0.001", "2e-3")
    tune("two", swiglu, "0.002", "0.001")
    tune("three", [*gelu, *wider], "0.001", "0.002", "0.004")
    tables = compare_runs([*gelu, *swiglu, *wider])
    means = {table.tuning: {arm.arm: arm.mean_loss_nats for arm in table.arms} for table in tables}
    assert means == {
        "optim.lr over 0.001, 0.002 at seeds 100": {"swiglu": 2.4, "gelu": 2.5},
        "optim.lr over 0.001, 0.002, 0.004 at seeds 100": {"swiglu": 1.5, "gelu": 2.5},
    }
    assert not any("several runs" in line for table in tables for line in table.warnings)


@pytest.mark.parametrize("rate", ["1e-3", "2e-3"])
def test_tuned_runs_named_one_by_one_agree_whatever_was_chosen(rate: str, make_run: MakeRun) -> None:
    runs = [make_run("gelu", 0, 2.0), make_run("swiglu", 0, 1.9, f"optim.lr={rate}")]
    tune("one", runs, "0.001", "0.002")
    assert only_table(compare_runs(runs, refuse_mixed=True)).tuned == ("optim.lr",)


def test_a_tuning_of_other_runs_does_not_reach_into_a_comparison(make_run: MakeRun) -> None:
    """Of four runs that it made two are here by another sweep, beside some that it did not make."""
    chosen = [make_run("gelu", seed, 2.0 + seed) for seed in range(2)]
    other = [make_run("relu", seed, 2.1 + seed) for seed in range(2)]
    tuned = [make_run("swiglu", seed, 1.9 + seed, "optim.lr=1e-3") for seed in range(2)]
    tune("one", [*chosen, *tuned], "0.001", "0.002")
    assert [table.tuned for table in compare_runs([*chosen, *other])] == [()]
    assert only_table(compare_runs([chosen[0], other[0]], refuse_mixed=True)).tuned == ()
    assert {table.tuned for table in compare_runs([*chosen, *other, *tuned])} == {(), ("optim.lr",)}


def test_a_run_published_twice_counts_once(make_run: MakeRun, tmp_path: Path) -> None:
    runs = [
        make_run(arm, seed, loss + seed) for arm, loss in (("gelu", 2.0), ("relu", 2.1)) for seed in (0, 1)
    ]
    shutil.copytree(runs[0].output_dir, tmp_path / "again", ignore=shutil.ignore_patterns("again"))
    found, _ = find_runs([str(runs[0].output_dir), str(tmp_path / "again")], tmp_path)
    assert len(found) == 4
    write_record(
        tmp_path / "again" / "runs" / runs[0].run_id / "result.json", {**runs[0].result(), "n_params": 1}
    )
    found, _ = find_runs([str(runs[0].output_dir), str(tmp_path / "again")], tmp_path)
    assert len(found) == 5  # what is not the same record is another run


@pytest.mark.parametrize("first", ["thin", "full"])
def test_of_a_run_published_twice_the_fuller_copy_counts(
    make_run: MakeRun, tmp_path: Path, first: str
) -> None:
    """One study keeps every row of its log and an inspection, another its evaluations alone."""
    run = make_run("gelu", 0, 2.0)
    for name in ("thin", "full"):
        shutil.copytree(run.path, tmp_path / name / "runs" / run.run_id)
    write_record(tmp_path / "full" / "runs" / run.run_id / "inspection.json", {"n_tokens": 1})
    words = sorted([str(tmp_path / "thin"), str(tmp_path / "full")], reverse=first == "thin")
    found, _ = find_runs(words, tmp_path)
    assert [run.path.parent.parent.name for run in found if isinstance(run, Run)] == ["full"]


def test_arms_with_the_same_weights_are_one(make_run: MakeRun) -> None:
    """An ungated variant's width is the same by both matchings: taken for two its noise would count twice."""
    runs = []
    for variant, at in (("gelu", 2.0), ("swiglu", 1.8)):
        for match in ("params", "width"):
            for seed in range(3):
                loss = at + seed + (0.1 if (variant, match) == ("swiglu", "width") else 0.0)
                weights = f"{variant} {match if variant == 'swiglu' else ''} {seed}"
                runs.append(make_run(variant, seed, loss, f"match={match}", parameters_sha256=weights))
    table = only_table(compare_runs(runs, arm_keys=("variant", "match")))
    assert [arm.arm for arm in table.arms] == ["swiglu params", "swiglu width", "gelu params"]
    assert "gelu width: the same weights as gelu params at every seed, and shown as that" in table.warnings
    assert table.baseline == "gelu params"
    named = only_table(compare_runs(runs, arm_keys=("variant", "match"), baseline="gelu width"))
    assert {arm.arm for arm in named.arms} == {"swiglu params", "swiglu width", "gelu width"}


@pytest.mark.parametrize(
    ("keys", "words", "heading"),
    [
        (("variant", "match"), ("match=params", "match=width"), "adamw lr 0.002, fp32"),
        (("variant", "optim"), ("optim=adamw", "optim=muon"), "match params, fp32"),
        (("variant", "optim.lr"), ("optim.lr=1e-3", "optim.lr=3e-3"), "match params, adamw, fp32"),
        (
            ("variant", "train.steps"),
            ("train.steps=7", "train.steps=8"),
            "match params, adamw lr 0.002, fp32",
        ),
        (("variant", "data.corpus"), (), "6 steps, match params, adamw lr 0.002, fp32"),
    ],
)
def test_the_heading_says_nothing_of_what_makes_an_arm(
    keys: tuple[str, ...], words: tuple[str, ...], heading: str, make_run: MakeRun
) -> None:
    runs = [make_run("gelu", 0, 2.0 + at, word) for at, word in enumerate(words or ("match=params",))]
    runs += [make_run("swiglu", 0, 1.0 + at, word) for at, word in enumerate(words or ("match=params",))]
    setting = only_table(compare_runs(runs, arm_keys=keys)).setting
    assert setting.endswith(f", {heading}")
    assert ("6 steps" in setting) is ("train.steps" not in keys)


def test_speeds_of_several_machines_do_not_compare(make_run: MakeRun) -> None:
    one, two = {"cpu": "C", "n_threads": 1}, {"cpu": "C", "n_threads": 2}
    runs = [
        make_run("gelu", 0, 2.0 - steps / 100, f"train.steps={steps}", tokens=64 * steps)
        for steps in (6, 7, 8)
    ]
    alike = make_run("swiglu", 0, 1.9, machine=one)
    runs[0] = make_run("gelu", 1, 1.94, machine=one)
    table = only_table(compare_runs([*runs, alike]))
    assert table.machines == ("C, 1 thread",)
    assert not any("do not compare" in line for line in table.warnings)
    table = only_table(compare_runs([*runs, alike, make_run("swiglu", 1, 1.9, machine=two)]))
    assert table.machines == ("C, 1 thread", "C, 2 threads")
    assert (
        "trained on C, 1 thread; C, 2 threads: tokens/s, seconds and memory do not compare" in table.warnings
    )
    speedup = arm_of(table, "swiglu").speedup
    assert speedup is not None
    assert (speedup.wall, speedup.wall_bounds) == (None, None)
    assert speedup.compute_bounds is not None


def test_several_runs_of_a_seed_are_said(make_run: MakeRun) -> None:
    runs = [make_run("gelu", 0, 2.0), make_run("gelu", 0, 4.0, "train.steps=7"), make_run("swiglu", 0, 1.0)]
    table = only_table(compare_runs(runs, allow_mixed=True))
    assert "gelu: seeds with several runs count once, at their mean" in table.warnings
    assert not any("swiglu: seeds" in line for line in table.warnings)


def test_mixing_is_possible_if_asked_for(make_run: MakeRun) -> None:
    runs = [make_run("gelu", 0, 2.0), make_run("swiglu", 0, 1.0, "train.steps=7")]
    table = only_table(compare_runs(runs, allow_mixed=True, refuse_mixed=True))
    assert [arm.arm for arm in table.arms] == ["swiglu", "gelu"]


def test_mixing_loses_no_run(make_run: MakeRun) -> None:
    runs = [make_run("gelu", 0, 2.0), make_run("gelu", 0, 4.0, "train.steps=7"), make_run("swiglu", 0, 1.0)]
    arm = arm_of(only_table(compare_runs(runs, allow_mixed=True)), "gelu")
    assert arm.mean_loss_nats == 3.0
    assert (arm.n_finished, arm.n_planned) == (2, 2)


def test_arms_can_be_two_keys(make_run: MakeRun) -> None:
    runs = [
        make_run(variant, seed, loss, f"match={match}")
        for variant, match, loss in (
            ("gelu", "params", 2.0),
            ("swiglu", "params", 1.9),
            ("swiglu", "width", 1.8),
        )
        for seed in range(2)
    ]
    table = only_table(compare_runs(runs, arm_keys=("variant", "match")))
    assert [arm.arm for arm in table.arms] == ["swiglu width", "swiglu params", "gelu params"]


def test_an_arm_can_be_any_key_that_determines_a_result(make_run: MakeRun) -> None:
    runs = [make_run("gelu", 0, 2.0), make_run("gelu", 0, 1.0, "optim.lr=1e-3")]
    table = only_table(compare_runs(runs, arm_keys=("optim.lr",)))
    assert [arm.arm for arm in table.arms] == ["optim.lr=0.001", "optim.lr=0.002"]


def test_two_formulas_under_one_name_are_two_arms(make_run: MakeRun) -> None:
    runs = [
        make_run("swiglu", seed, loss + seed, *words)
        for words, loss in (((), 1.0), (("variant.up_clamp=7",), 2.0), (("variant.up_clamp=9",), 3.0))
        for seed in range(2)
    ]
    table = only_table(compare_runs(runs, refuse_mixed=True))
    assert [(arm.arm, arm.mean_loss_nats, arm.n_planned) for arm in table.arms] == [
        ("swiglu", 1.5, 2),
        ("swiglu up_clamp=7.0", 2.5, 2),
        ("swiglu up_clamp=9.0", 3.5, 2),
    ]
    assert table.baseline == "swiglu"


@pytest.mark.parametrize(
    ("variant", "words", "names"),
    [
        ("swiglu", ("variant.mult=2",), ["swiglu mult=1.0", "swiglu mult=2.0"]),
        ("swiglu", ("variant.norm=rms",), ["swiglu", "swiglu norm=rms"]),
        (
            "swiglu_beta",
            ("variant.gate_args.beta=2",),
            ["swiglu_beta gate_args.beta=1.0", "swiglu_beta gate_args.beta=2.0"],
        ),
        ("swiglu", ("variant.learned=[mult]",), ["swiglu learned=['mult']", "swiglu learned=[]"]),
        (
            "swiglu",
            ("variant.gate=gelu", "variant.up_clamp=7"),
            ["swiglu gate=gelu up_clamp=7.0", "swiglu gate=silu"],
        ),
    ],
)
def test_an_arm_is_named_by_what_it_does_not_share(
    variant: str, words: tuple[str, ...], names: list[str], make_run: MakeRun
) -> None:
    runs = [make_run(variant, 0, 1.0), make_run(variant, 0, 2.0, *words), make_run("relu", 0, 3.0)]
    table = only_table(compare_runs(runs))
    assert sorted(arm.arm for arm in table.arms) == sorted([*names, "relu"])


def test_what_does_not_determine_a_result_makes_no_arm(make_run: MakeRun) -> None:
    runs = [make_run("gelu", 0, 2.0), make_run("swiglu", 0, 1.0)]
    runs += [make_run("swiglu", 1, 3.0, "variant.formula=other", "variant.family=own")]
    arm = arm_of(only_table(compare_runs(runs)), "swiglu")
    assert (arm.mean_loss_nats, arm.n_planned) == (2.0, 2)


def test_one_name_with_two_plugins_behind_it_is_two_arms(make_run: MakeRun) -> None:
    runs = [
        make_run("swiglu", 0, loss, plugins=[{"name": "p.py", "sha256": sha, "functions": ["silu"]}])
        for loss, sha in ((1.0, "a" * 64), (2.0, "b" * 64))
    ]
    assert len({arm.arm for arm in only_table(compare_runs(runs)).arms}) == 2


@pytest.mark.parametrize("key", ["nosuch", "train.log_every", ""])
def test_a_key_that_makes_no_arm_is_refused(key: str, nine_runs: list[Run]) -> None:
    with pytest.raises(ConfigError, match="--arms"):
        compare_runs(nine_runs, arm_keys=(key,))


def test_an_unknown_baseline_names_the_arms(nine_runs: list[Run]) -> None:
    with pytest.raises(ConfigError, match=r"--baseline geglu: .*gelu, relu, swiglu"):
        compare_runs(nine_runs, baseline="geglu")


def test_a_baseline_of_one_setting_leaves_tables_of_others_standing(make_run: MakeRun) -> None:
    runs = [make_run(variant, 0, 2.0) for variant in ("gelu", "swiglu")]
    runs += [make_run(variant, 0, 2.0, "train.steps=7") for variant in ("relu", "swiglu")]
    tables = compare_runs(runs, baseline="gelu")
    assert sorted(table.baseline for table in tables) == ["gelu", "relu"]


def test_the_default_baseline_is_a_familiar_ungated_one(nine_runs: list[Run], make_run: MakeRun) -> None:
    assert only_table(compare_runs(nine_runs)).baseline == "gelu"
    without = [run for run in nine_runs if not run.run_id.startswith("gelu")]
    assert only_table(compare_runs(without)).baseline == "relu"


def test_of_arms_of_two_keys_a_familiar_one_is_the_baseline(make_run: MakeRun) -> None:
    runs = [
        make_run(variant, 0, 2.0, f"match={match}")
        for variant in ("bilinear", "relu")
        for match in ("params", "width")
    ]
    for keys, baseline in ((("variant", "match"), "relu params"), (("match", "variant"), "params relu")):
        assert only_table(compare_runs(runs, arm_keys=keys)).baseline == baseline


def test_nothing_to_compare_is_said(make_run: MakeRun) -> None:
    with pytest.raises(ConfigError, match="no runs to compare"):
        compare_runs([])
    with pytest.raises(ConfigError, match="no setting has two arms"):
        compare_runs([make_run("gelu", 0, 2.0)])
    with pytest.raises(ConfigError, match="finished run"):
        compare_runs([make_run("swiglu", 0, None), make_run("gelu", 1, None)])


def test_one_arm_finished_and_one_diverged_is_a_table_not_a_crash(make_run: MakeRun) -> None:
    runs = [make_run("gelu", 0, 2.0), make_run("swiglu", 0, None, diverged=True)]
    try:
        table = only_table(compare_runs(runs))
    except DataError:
        pytest.fail("the divergence of one arm is a result, and its row belongs into the table")
    assert arm_of(table, "swiglu").n_diverged == 1


def test_an_edited_run_is_refused_by_name(make_run: MakeRun) -> None:
    runs = [make_run(variant, 0, 2.0) for variant in ("gelu", "swiglu")]
    path = runs[0].path / "config.yaml"
    path.write_text(path.read_text().replace("lr: 0.002", "lr: 0.003"))
    with pytest.raises(DataError, match=runs[0].run_id):
        compare_runs(runs)


def test_no_name_means_all_runs(nine_runs: list[Run]) -> None:
    found, named = find_runs([], folder_of(nine_runs))
    assert (len(found), named) == (9, False)


def test_runs_named_by_prefix_or_folder_count_as_named(nine_runs: list[Run]) -> None:
    found, named = find_runs(["gelu-pico-text-s1", str(nine_runs[3].path)], folder_of(nine_runs))
    assert [run.path for run in found] == [nine_runs[1].path, nine_runs[3].path]
    assert named


@pytest.mark.parametrize("below", ["", "runs"])
def test_a_folder_means_all_runs_in_it(below: str, nine_runs: list[Run], tmp_path: Path) -> None:
    found, named = find_runs([str(folder_of(nine_runs) / below)], tmp_path)
    assert (len(found), named) == (9, False)


@pytest.mark.parametrize("text", ["nosuch", "../../x"])
def test_a_word_that_names_nothing_is_refused(text: str, nine_runs: list[Run]) -> None:
    with pytest.raises(ConfigError):
        find_runs([text], folder_of(nine_runs))


def test_runs_of_a_sweep_that_never_began_count_as_planned(tiny_words: list[str], tmp_path: Path) -> None:
    words = [word for word in tiny_words if not word.startswith("train.steps")]
    grid = [*words, "train.steps=1", "variant=gelu,swiglu", "seed=0,1"]
    plan = make_plan(grid, tmp_path, name="two-by-two")
    for planned in plan.runs[:3]:
        list(train_run(load_config(planned.words), tmp_path, StopRequest()))
    found, _ = find_runs(["two-by-two"], tmp_path)
    arm = arm_of(only_table(compare_runs(found)), "swiglu")
    assert (arm.n_finished, arm.n_planned) == (1, 2)


def test_a_table_carries_tests_letters_and_folders(nine_runs: list[Run]) -> None:
    table = only_table(compare_runs(nine_runs, baseline="gelu"))
    assert "seed-blocked" in table.test
    assert [(pair.a, pair.b) for pair in table.pairs] == [
        ("swiglu", "gelu"),
        ("swiglu", "relu"),
        ("gelu", "relu"),
    ]
    swiglu = arm_of(table, "swiglu")
    witness = [one - other for one, other in zip(LOSSES["swiglu"], LOSSES["gelu"], strict=True)]
    assert swiglu.difference_nats == pytest.approx(statistics.mean(witness))
    assert swiglu.difference_ci95 is not None
    assert swiglu.difference_ci95[0] < statistics.mean(witness) < swiglu.difference_ci95[1]
    assert swiglu.losses == dict(enumerate(LOSSES["swiglu"]))
    assert [Run(Path(folder)).config().seed for folder in swiglu.runs] == [0, 1, 2]
    assert arm_of(table, "gelu").verdict == "baseline"
    assert all(arm.letters for arm in table.arms)
    assert table.detectable_nats is not None


def test_arms_whose_runs_all_diverged_are_a_table_of_counts(make_run: MakeRun) -> None:
    runs = [make_run(arm, seed, None, diverged=True) for arm in ("gelu", "swiglu") for seed in range(2)]
    table = only_table(compare_runs(runs))
    assert [(arm.n_finished, arm.n_diverged) for arm in table.arms] == [(0, 2), (0, 2)]
    assert table.verdict == "no arm has a finished run: nothing to compare"
    assert {arm.verdict for arm in table.arms} == {"insufficient"}


@pytest.mark.parametrize("at", [0, 1, 2])
def test_a_loss_that_is_no_number_counts_as_diverged_wherever_it_stands(at: int, make_run: MakeRun) -> None:
    runs = [make_run("gelu", seed, 2.0 + 0.1 * seed) for seed in range(3)]
    runs += [make_run("swiglu", seed, 1.0, test_loss_nats=None if seed == at else 1.0) for seed in range(3)]
    arm = arm_of(only_table(compare_runs(runs)), "swiglu")
    assert (arm.n_finished, arm.n_planned, arm.n_diverged, arm.mean_loss_nats) == (2, 3, 1, 1.0)
    assert [Run(Path(folder)).config().seed for folder in arm.runs] == list(arm.losses)


def test_a_baseline_without_a_finished_run_is_said(make_run: MakeRun) -> None:
    runs = [make_run("relu", 0, None, diverged=True), *(make_run(arm, 0, 1.0) for arm in ("gelu", "swiglu"))]
    table = only_table(compare_runs(runs, baseline="relu"))
    assert any("relu has no finished run" in warning for warning in table.warnings)
    assert {arm.verdict for arm in table.arms} == {"insufficient"}


def test_arms_of_other_seeds_are_tested_by_welch(make_run: MakeRun) -> None:
    runs = [make_run("gelu", seed, 2.0 + 0.1 * seed) for seed in range(3)]
    runs += [make_run("swiglu", seed, 1.0 + 0.1 * seed) for seed in range(5, 8)]
    table = only_table(compare_runs(runs))
    assert table.test == "Welch's t"
    assert arm_of(table, "swiglu").n_shared_seeds == 0
    assert arm_of(table, "swiglu").p_raw is not None


def test_runs_that_differ_in_their_seed_alone_share_what_is_kept_of_them(nine_runs: list[Run]) -> None:
    entries = read_entries(nine_runs)
    assert [entry.seed for entry in entries] == [0, 1, 2] * 3
    assert len({id(entry.identity) for entry in entries}) == 3
    assert all("seed" not in entry.identity for entry in entries)


def test_a_seed_may_be_an_arm(nine_runs: list[Run]) -> None:
    tables = compare_runs(nine_runs, arm_keys=["seed"])
    assert {arm.arm for table in tables for arm in table.arms} == {"seed=0", "seed=1", "seed=2"}


def test_across_tokenizers_losses_are_per_byte(make_run: MakeRun) -> None:
    """The larger vocabulary has the greater loss a token and the smaller one a byte."""
    runs = [
        make_run("gelu", seed, 1.0 + 0.1 * seed, test_bits_per_byte=2.0 + 0.1 * seed) for seed in range(3)
    ]
    runs += [
        make_run(
            "gelu",
            seed,
            3.0 + 0.1 * seed,
            *("tokenizer=bpe", f"tokenizer.vocab_size={size}"),
            tokenizer=str(size),
            test_bits_per_byte=size / 1000 + 0.1 * seed + (0.001 if seed else 0),
        )
        for seed in range(3)
        for size in (1000, 1500)
    ]
    table = only_table(compare_runs(runs, arm_keys=("tokenizer",)))
    names = ["bpe vocab_size=1000", "bpe vocab_size=1500", "byte"]
    assert [arm.arm for arm in table.arms] == names
    assert (table.per, {arm.perplexity for arm in table.arms}) == ("byte", {None})
    assert table.arms[2].mean_loss_nats == pytest.approx(2.1 * math.log(2))
    assert table.arms[2].bits_per_byte == pytest.approx(2.1)
    difference = table.arms[0].difference_nats or 0.0
    byte = next(arm for arm in table.arms if arm.arm == table.baseline).mean_loss_nats or 0.0
    assert difference == pytest.approx((table.arms[0].mean_loss_nats or 0.0) - byte)
    assert any("nats per byte" in warning for warning in table.warnings)
    assert all(arm.speedup is None for arm in table.arms)


def test_one_tokenizer_keeps_losses_per_token(nine_runs: list[Run]) -> None:
    table = only_table(compare_runs(nine_runs))
    assert table.per == "token"
    assert not any("per byte" in warning for warning in table.warnings)


def test_a_tokenizer_that_is_no_arm_keeps_tables_apart(make_run: MakeRun) -> None:
    runs = [make_run(arm, 0, 1.0, tokenizer=t) for arm in ("gelu", "swiglu") for t in ("t", "u")]
    assert [len(table.arms) for table in compare_runs(runs)] == [2, 2]
