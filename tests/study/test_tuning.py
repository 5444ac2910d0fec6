"""Every arm tuned over the same values, and the choice kept."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from glu_bench.config import load_config
from glu_bench.cost.estimate import Estimate
from glu_bench.errors import ConfigError, DataError
from glu_bench.runs.record import read_record, write_record
from glu_bench.schema import Config
from glu_bench.study.compare import compare_runs
from glu_bench.study.plan import Plan, make_plan, resolve_run
from glu_bench.study.tuning import Tuning, choose_values, list_tunings, make_request, widen
from glu_bench.words import spell_config
from tests.conftest import Command

Losses = Callable[[str, float, int], float | None]


def pretend(loss_of: Losses) -> Callable[[Plan], None]:
    """An executor that writes each run's record, its loss given by variant, rate and seed."""

    def execute(plan: Plan) -> None:
        for planned in plan.runs:
            config = planned.config or load_config(planned.words)  # read from disk it has none
            loss = loss_of(config.variant.name, config.optim.lr, config.seed)
            path = plan.run(planned).path
            path.mkdir(parents=True, exist_ok=True)
            if loss is not None:
                write_record(path / "result.json", {"val_loss_nats": loss, "tokens_per_s": 1.0})

    return execute


def bowl(best: dict[str, float]) -> Losses:
    return lambda variant, rate, seed: (rate / best[variant] - 1) ** 2 + seed / 1000


@pytest.fixture
def words(tiny_words: list[str]) -> list[str]:
    return [*tiny_words, "variant=gelu,swiglu", "seed=0,1"]


def make_tuning(words: list[str], tmp_path: Path, *tune: str, name: str = "mine") -> Tuning:
    request = make_request(words, tune or ["optim.lr=1e-3,2e-3,4e-3"], [100, 101], None)
    return Tuning(request=request, output_dir=tmp_path, name=name)


def test_every_arm_gets_the_same_grid_and_its_own_best(words: list[str], tmp_path: Path) -> None:
    tuning = make_tuning(words, tmp_path)
    choices = tuning.choose(pretend(bowl({"gelu": 2e-3, "swiglu": 4e-3})), wider=False)
    assert [choice.chosen for choice in choices] == [{"optim.lr": "0.002"}, {"optim.lr": "0.004"}]
    assert [choice.edges for choice in choices] == [{}, {"optim.lr": "high"}]
    assert [[point.n_planned for point in choice.curve] for choice in choices] == [[2, 2, 2]] * 2
    assert choices[0].curve[1].mean_loss_nats == pytest.approx(0.1005)
    plan = tuning.confirm(choices)
    made = [(p.config.variant.name, p.config.seed, p.config.optim.lr) for p in plan.runs if p.config]
    assert made == [("gelu", 0, 2e-3), ("gelu", 1, 2e-3), ("swiglu", 0, 4e-3), ("swiglu", 1, 4e-3)]
    for planned in plan.runs:  # the chosen rate is in the resolved run
        again = make_plan(spell_config(resolve_run(plan, planned)), tmp_path)
        assert [each.run_id for each in again.runs] == [planned.run_id]
    record = read_record(plan.folder / "tuning.json")
    assert set(record["runs"]) == {planned.run_id for planned in plan.runs}
    assert len(record["arms"][0]["curve"]) == 3


def test_a_setting_that_diverged_on_one_seed_is_not_chosen(words: list[str], tmp_path: Path) -> None:
    even = bowl({"gelu": 4e-3, "swiglu": 4e-3})

    def execute_at(variant: str, rate: float, seed: int) -> float | None:
        return None if (variant, rate, seed) == ("gelu", 4e-3, 101) else even(variant, rate, seed)

    choices = make_tuning(words, tmp_path).choose(pretend(execute_at), wider=False)
    assert [choice.chosen["optim.lr"] for choice in choices] == ["0.002", "0.004"]
    assert choices[0].curve[2].mean_loss_nats is None
    assert len(choices[0].curve[2].losses_nats) == 1


def test_an_arm_that_finished_nowhere_is_said(words: list[str], tmp_path: Path) -> None:
    tuning = make_tuning(words, tmp_path)
    with pytest.raises(DataError, match="gelu"):
        tuning.choose(pretend(lambda variant, rate, seed: None if variant == "gelu" else 1.0), wider=False)


@pytest.mark.parametrize(
    "best",
    [{"gelu": 2e-3, "swiglu": 8e-3}, pytest.param({"gelu": 8e-3, "swiglu": 2e-3}, marks=pytest.mark.slow)],
)
def test_widening_adds_a_value_beyond_for_every_arm_until_none_ends_the_grid(
    best: dict[str, float], words: list[str], tmp_path: Path
) -> None:
    tuning = make_tuning(words, tmp_path)
    choices = tuning.choose(pretend(bowl(best)), wider=True)
    assert [choice.chosen["optim.lr"] for choice in choices] == [f"{rate:g}" for rate in best.values()]
    assert all(len(choice.curve) == 5 for choice in choices)  # 0.008, then 0.016 shows that it was the best
    assert not any(choice.edges for choice in choices)
    # the same command again finds the wider grid and the same choice
    again = make_tuning(words, tmp_path).choose(pretend(bowl(best)), wider=False)
    assert [(c.arm, c.chosen) for c in again] == [(c.arm, c.chosen) for c in choices]
    assert not any(choice.edges for choice in again)


def test_widening_ends_and_says_that_the_best_is_still_at_the_end(words: list[str], tmp_path: Path) -> None:
    tuning = make_tuning(words, tmp_path)
    choices = tuning.choose(pretend(bowl({"gelu": 1.0, "swiglu": 2e-3})), wider=True)
    assert [len(choice.curve) for choice in choices] == [7, 7]  # of three values and four times one more
    assert len(tuning.request.tuned["optim.lr"]) == 7  # none is recorded that was not tried
    assert [(choice.chosen["optim.lr"], choice.edges) for choice in choices] == [
        ("0.064", {"optim.lr": "high"}),
        ("0.002", {}),
    ]


def test_values_of_an_earlier_tuning_count_where_the_grid_ends(words: list[str], tmp_path: Path) -> None:
    execute = pretend(bowl({"gelu": 2e-3, "swiglu": 4e-3}))
    make_tuning(words, tmp_path, "optim.lr=1e-3,2e-3,4e-3,8e-3").choose(execute, wider=False)
    choices = make_tuning(words, tmp_path).choose(execute, wider=False)
    assert [choice.chosen["optim.lr"] for choice in choices] == ["0.002", "0.004"]
    assert not any(choice.edges for choice in choices)


def test_all_values_are_judged_on_the_same_seeds(words: list[str], tmp_path: Path) -> None:
    """An earlier tuning had another seed, an easy one: its values are tried again at the new one."""

    def easy(variant: str, rate: float, seed: int) -> float:
        return (1.0 if rate == 1e-3 else 0.9) - (0.5 if seed == 100 else 0.0)

    first = make_request(words, ["optim.lr=1e-3,2e-3"], [100], None)
    Tuning(request=first, output_dir=tmp_path, name="mine").choose(pretend(easy), wider=False)
    second = make_request(words, ["optim.lr=2e-3,4e-3"], [101], None)
    choices = Tuning(request=second, output_dir=tmp_path, name="mine").choose(pretend(easy), wider=False)
    for choice in choices:
        assert {point.values["optim.lr"]: point.losses_nats for point in choice.curve} == {
            "0.001": [1.0],
            "0.002": [0.9],
            "0.004": [0.9],
        }


def test_the_end_of_a_grid_is_that_of_its_numbers_not_of_their_spelling(
    words: list[str], tmp_path: Path
) -> None:
    tuning = make_tuning(words, tmp_path, "optim.lr=1e-5,1e-3,2e-3")
    choices = tuning.choose(pretend(bowl({"gelu": 1e-5, "swiglu": 1e-3})), wider=False)
    assert [choice.edges for choice in choices] == [{"optim.lr": "low"}, {}]


def test_runs_of_an_earlier_choice_are_no_longer_called_tuned(words: list[str], tmp_path: Path) -> None:
    for best in (2e-3, 4e-3):
        tuning = make_tuning(words, tmp_path, "optim.lr=1e-3,2e-3,4e-3,8e-3")
        plan = tuning.confirm(tuning.choose(pretend(bowl({"gelu": best, "swiglu": 2e-3})), wider=False))
    assert len(plan.runs) == 6
    earlier = {p.run_id for p in plan.runs if {"variant=gelu", "optim.lr=0.002"} <= set(p.words)}
    assert len(earlier) == 2
    marked = set(read_record(plan.folder / "tuning.json")["runs"])
    assert marked == {planned.run_id for planned in plan.runs} - earlier


@pytest.mark.parametrize(
    ("word", "best", "further"),
    [("optim.lr=1e-3,2e-3", 1e-3, "0.0005"), ("optim.weight_decay=0,0.1,0.2", 0.2, "0.3")],
)
def test_the_value_beyond(word: str, best: float, further: str, words: list[str], tmp_path: Path) -> None:
    tuning = make_tuning(words, tmp_path, word)
    key = word.partition("=")[0].partition(".")[2]

    def execute(plan: Plan) -> None:
        for planned in plan.runs:
            assert planned.config is not None
            loss = abs(getattr(planned.config.optim, key) - best)
            path = plan.run(planned).path
            path.mkdir(parents=True, exist_ok=True)
            write_record(path / "result.json", {"val_loss_nats": loss})

    plan = tuning.plan()
    execute(plan)
    wider = widen(tuning.request, choose_values(plan, tuning.request))
    assert wider is not None
    assert next(iter(wider.tuned.values()))[-1] == further


@pytest.mark.parametrize(
    ("tune", "seeds", "message"),
    [
        (["optim.lr=1e-3"], [100], "at least two values"),
        (["seed=1,2"], [100], "set by the sweep itself"),
        (["variant=relu,gelu"], [100], "set by the sweep itself"),
        (["optim.lrr=1,2"], [100], "did you mean"),
        (["optim.lr=1e-3,2e-3"], [1, 100], "also a seed of the sweep"),
        (["optim.lr=1e-3,2e-3"], [100, 100], "each once"),
        (["optim.lr=1e-3,2e-3"], [], "--tune-seeds"),
    ],
)
def test_a_request_that_cannot_be_is_one_line(
    tune: list[str], seeds: list[int], message: str, words: list[str]
) -> None:
    with pytest.raises(ConfigError, match=message):
        make_request(words, tune, seeds, None)


def test_an_edited_record_is_refused(words: list[str], tmp_path: Path) -> None:
    tuning = make_tuning(words, tmp_path)
    plan = tuning.confirm(tuning.choose(pretend(bowl({"gelu": 2e-3, "swiglu": 4e-3})), wider=False))
    path = plan.folder / "tuning.json"
    path.write_text(path.read_text().replace("0.002", "0.001"))
    with pytest.raises(DataError, match="edited"):
        list_tunings(tmp_path)


def test_what_is_recorded_is_what_was_chosen(words: list[str], tmp_path: Path) -> None:
    tuning = make_tuning(words, tmp_path)
    choices = tuning.choose(pretend(bowl({"gelu": 2e-3, "swiglu": 4e-3})), wider=False)
    plan = tuning.confirm(choices)
    (found,) = list_tunings(tmp_path)
    assert (found.sweep_id, found.choices) == ("mine", choices)
    assert found.budget == "optim.lr over 0.001, 0.002, 0.004 at seeds 100, 101"
    edges: dict[str, dict[str, str]] = {"gelu": {}, "swiglu": {"optim.lr": "high"}}
    assert found.runs == {
        planned.run_id: {"keys": ["optim.lr"], "edges": edges[planned.identity["variant.name"]]}
        for planned in plan.runs
    }


@pytest.mark.parametrize("missing", ["runs", "tuned", "seeds", "arms"])
def test_a_record_that_is_no_tunings_is_refused(missing: str, tmp_path: Path) -> None:
    folder = tmp_path / "sweeps" / "foreign"
    folder.mkdir(parents=True)
    record: dict[str, Any] = {"runs": {}, "tuned": {}, "seeds": [], "arms": []}
    write_record(folder / "tuning.json", {key: value for key, value in record.items() if key != missing})
    with pytest.raises(DataError, match=rf"foreign/tuning\.json: has no {missing}"):
        list_tunings(tmp_path)


def test_nothing_is_chosen_from_a_tuning_that_time_cut_short(
    words: list[str], call_command: Command, tmp_path: Path
) -> None:
    tune = ["--tune", "optim.lr=2e-3,8e-3", "--tune-seeds", "100", "--name", "cut", "--max-hours", "0"]
    ended = call_command("sweep", *words, *tune, "--output-dir", str(tmp_path), "--quiet", "-j", "1")
    assert ended.code == 5
    assert "not begun; the same command goes on" in ended.err
    assert not (tmp_path / "sweeps" / "cut" / "tuning.json").exists()


def test_a_dry_run_of_a_tuned_sweep_names_the_runs_to_come(
    words: list[str], call_command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def estimate(shapes: list[Config], calibrate: bool) -> list[Estimate]:
        return [Estimate(flops=1, elapsed_s=1.0, disk_bytes=1) for _ in shapes]

    monkeypatch.setattr("glu_bench.cost.estimate.estimate_runs", estimate)
    tune = ["--tune", "optim.lr=2e-3,8e-3", "--tune-seeds", "100", "--dry-run"]
    ended = call_command("sweep", *words, *tune, "--output-dir", str(tmp_path))
    assert ended.code == 0, ended.err
    assert "then 4 runs at the chosen values" in ended.err


@pytest.mark.slow
def test_tuned_and_untuned_runs_have_tables_of_their_own(
    tiny_words: list[str], call_command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = [*tiny_words, "variant=gelu,swiglu", "seed=0,1"]
    common = ["--output-dir", str(tmp_path), "--quiet", "-j", "2"]
    assert call_command("sweep", *words, *common).code == 0
    tune = ["--tune", "optim.lr=2e-3,8e-3", "--tune-seeds", "100", "--name", "tuned"]
    ended = call_command("sweep", *words, *tune, *common, "--json")
    assert ended.code == 0
    assert json.loads(ended.out)["planned"] == 4
    tables = compare_runs(sorted((tmp_path / "runs").iterdir()))
    described: dict[str, Any] = {table.setting: table for table in tables}
    tuned = next(table for setting, table in described.items() if "lr tuned" in setting)
    assert {(arm.arm, arm.n_finished) for arm in tuned.arms} == {("gelu", 2), ("swiglu", 2)}
    assert any("by tuning, the high end of the grid: --widen" in line for line in tuned.warnings)
    assert any("lr 0.002" in setting for setting in described)
    (mixed,) = compare_runs(sorted((tmp_path / "runs").iterdir()), allow_mixed=True)
    assert sum(arm.n_planned for arm in mixed.arms) == len(list((tmp_path / "runs").iterdir()))
