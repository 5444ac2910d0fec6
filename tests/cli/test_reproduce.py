"""glu-bench reproduce: a card of one's own from its first run to the printed verdict."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer

from glu_bench.cli import execution as room
from glu_bench.cli.completion import complete_card
from glu_bench.cli.execution import Execution
from glu_bench.errors import InterruptedRunError
from glu_bench.files import write_json
from glu_bench.runs.record import write_record
from glu_bench.study.plan import Plan
from glu_bench.study.sweep import RunEnded
from tests.conftest import Command

CARD = """
name: mine
title: My notebook
source: page 12
protocol: by hand
unit: nats per token
arms: {relu: ReLU, geglu: GEGLU}
columns:
  first:
    what: four runs
    n: 4
    arms:
      relu: {mean: 2.0, sd: 0.001}
      geglu: {mean: 1.8, sd: 0.001}
scales:
  tiny:
    model: pico
    tokens: 128
    seeds: [0, 1, 2]
    tune: {optim.lr: [1e-3, 2e-3, 4e-3]}
    tune_seeds: [100]
    overrides:
"""
MEANS = {"relu": 5.0, "geglu": 4.8}


@pytest.fixture
def words(tiny_words: list[str], tmp_path: Path) -> list[str]:
    """The command for a card that trains next to nothing."""
    own = [word for word in tiny_words if word.partition("=")[0] not in ("model", "train.steps")]
    folder = tmp_path / "own" / "reproduce"
    folder.mkdir(parents=True)
    (folder / "mine.yaml").write_text(CARD + "".join(f'      - "{word}"\n' for word in own))
    return ["reproduce", "mine", "--config-dir", str(folder.parent), "--output-dir", str(tmp_path / "out")]


class Pretended:
    """Stands for training: writes what a run would have found, and keeps the ids it was given."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.leave_out: tuple[str, int] | None = None
        self.diverge: tuple[str, int] | None = None

    def __call__(self, plan: Plan, how: Execution) -> list[RunEnded]:
        return list(self._end(plan))

    def _end(self, plan: Plan) -> Iterator[RunEnded]:
        for planned in plan.runs:
            self.asked.append(planned.run_id)
            assert planned.config is not None
            which = (planned.config.variant.name, planned.config.seed)
            path = plan.run(planned).path
            path.mkdir(parents=True, exist_ok=True)
            if which == self.leave_out:
                yield RunEnded(planned, "failed", "killed by signal 9, SIGKILL", path / "log")
            elif which == self.diverge and planned.config.optim.lr > 3e-3:
                write_json(path / "failure.json", {"status": "diverged", "step": 3, "reason": "loss is nan"})
                yield RunEnded(planned, "diverged", "loss is nan", path / "log")
            else:
                noise = which[1] ** 2 * 1e-5 if which[0] == "relu" else 0.0
                loss = MEANS[which[0]] + which[1] / 1000 + noise
                far = abs(planned.config.optim.lr / 2e-3 - 1)
                record = {"test_loss_nats": loss, "val_loss_nats": loss + far, "tokens_per_s": 1.0}
                write_record(path / "result.json", record)
                yield RunEnded(planned, "complete", None, path / "log")


@pytest.fixture
def pretended(monkeypatch: pytest.MonkeyPatch) -> Pretended:
    pretended = Pretended()
    monkeypatch.setattr(room, "execute_plan", pretended)
    return pretended


def test_a_card_is_tuned_confirmed_and_judged(
    words: list[str], call_command: Command, pretended: Pretended
) -> None:
    ended = call_command(*words, "--json")
    assert ended.code == 0, ended.err
    found = json.loads(ended.out)
    assert list(found)[:2] == ["schema_version", "card"]
    assert (found["card"], found["column"], found["scale"]) == ("mine", "first", "tiny")
    assert (found["sweep_id"], found["verdict"]) == ("mine-tiny", "reproduced")
    assert (found["concordance"]["agree"], found["concordance"]["of"]) == (1, 1)
    assert found["concordance"]["chance_level"] == 0.5
    assert found["concordance"]["p_at_least"] == 0.5
    assert [row["arm"] for row in found["ours"]["arms"]] == ["geglu", "relu"]
    assert {row["tuned"]["optim.lr"] for row in found["ours"]["arms"]} == {"0.002"}
    assert {(row["n_finished"], row["n_planned"]) for row in found["ours"]["arms"]} == {(3, 3)}
    assert found["published"]["gap"]["difference_nats"] == pytest.approx(-0.2)
    assert found["ours"]["gap"]["difference_nats"] == pytest.approx(-0.2, abs=1e-4)
    assert len(pretended.asked) == 2 * 3 + 2 * 3
    again = call_command(*words, "--json")
    assert json.loads(again.out) == found
    assert len(pretended.asked) == 12  # what is complete is only printed


def test_the_table_its_gap_its_chance_level_and_its_rules_are_printed(
    words: list[str], call_command: Command, pretended: Pretended
) -> None:
    ended = call_command(*words)
    assert ended.code == 0
    for said in (
        "My notebook (page 12), column first",
        "published: four runs; by hand; Welch's t",
        "lr tuned",
        "gated less ungated: published -0.2000 (95 % interval",
        "3 seeds)",
        "concordance: 1 of 1 pairs",
        "with probability 0.5 (all orders counted)",
        "verdict: reproduced;",
        "rules: contradicted: a pair that both sides separate stands in opposite order",
    ):
        assert said in ended.out
    assert "validation loss by tuning" in ended.err


def test_what_is_there_is_judged_without_training(
    words: list[str], call_command: Command, pretended: Pretended
) -> None:
    made = json.loads(call_command(*words, "--json").out)
    n_asked = len(pretended.asked)
    for sweep in ("mine-tiny", f"{words[-1]}/sweeps/mine-tiny"):
        ended = call_command(*words, "--from", sweep, "--json")
        assert ended.code == 0, ended.err
        assert json.loads(ended.out) == {**made, "scale": None}
    assert len(pretended.asked) == n_asked
    for option in (["--quick"], ["-j", "2"], ["--retry-failed"], ["--max-hours", "1"], ["--widen"]):
        refused = call_command(*words, "--from", "mine-tiny", *option)
        assert (refused.code, refused.out) == (2, "")
        assert "--from mine-tiny: trains nothing" in refused.err
        assert option[0] in refused.err


def test_a_run_that_failed_leaves_a_marked_table_and_exit_code_5(
    words: list[str], call_command: Command, pretended: Pretended
) -> None:
    pretended.leave_out = ("relu", 1)
    ended = call_command(*words, "--quick", "--json")
    assert ended.code == 5
    assert "1 of 6 runs did not finish" in ended.err
    found = json.loads(ended.out)
    assert "relu: 2 of 3 runs finished" in found["warnings"]
    pretended.leave_out = None
    assert call_command(*words, "--quick", "--json").code == 0  # the same command goes on


def test_nothing_is_chosen_from_an_unfinished_tuning(
    words: list[str], call_command: Command, pretended: Pretended
) -> None:
    pretended.leave_out = ("relu", 100)
    ended = call_command(*words, "--json")
    assert (ended.code, ended.out) == (5, "")
    assert "tuning: 3 of 6 runs did not finish" in ended.err
    assert len(pretended.asked) == 6


def test_a_rate_that_diverges_is_a_finding_of_the_tuning(
    words: list[str], call_command: Command, pretended: Pretended
) -> None:
    pretended.diverge = ("relu", 100)
    assert call_command(*words, "--json").code == 0


def test_an_interrupted_one_ends_as_a_sweep_does(
    words: list[str], call_command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(plan: Plan, how: Execution) -> list[RunEnded]:
        raise InterruptedRunError(f"{plan.sweep_id}: stopped by SIGINT", 2)

    monkeypatch.setattr(room, "execute_plan", stop)
    ended = call_command(*words)
    assert (ended.code, ended.out) == (130, "")


def test_a_dry_run_tells_the_cost_of_both_stages_and_writes_nothing(
    words: list[str], call_command: Command, pretended: Pretended, tmp_path: Path
) -> None:
    ended = call_command(*words, "--dry-run", "--json", "--quiet")
    assert ended.code == 0
    stages = json.loads(ended.out)["stages"]
    assert [(s["stage"], s["planned"], s["pending"]) for s in stages] == [
        ("tune", 6, 6),
        ("confirm", 6, 6),
    ]
    assert all(stage["flops"] > 0 and stage["disk_bytes"] > 0 for stage in stages)
    assert not (tmp_path / "out" / "sweeps").exists()
    assert pretended.asked == []
    assert call_command(*words, "--quiet").code == 0
    shown = call_command(*words, "--dry-run", "--quiet").out
    assert re.search(r"tune +6 +0 .*confirm +6 +0 ", " ".join(shown.splitlines()))
    assert "tune optim.lr=0.001,0.002,0.004" in shown


def test_a_sweep_of_that_name_with_other_runs_is_refused(
    words: list[str], call_command: Command, pretended: Pretended
) -> None:
    assert call_command(*words, "--quick", "--quiet").code == 0
    name = ["--name", "mine-tiny-quick", "--quick", "--quiet"]
    ended = call_command(*words, "train.tokens=256", *name)
    assert ended.code == 2
    assert "sweep mine-tiny-quick has other runs" in ended.err
    assert call_command(*words, "seed=0,1,2,3", *name).code == 0  # more of the same


@pytest.mark.slow
def test_a_tiny_card_for_real(words: list[str], call_command: Command) -> None:
    ended = call_command(*words, "seed=0", "--quick", "-j", "2", "--json")
    assert ended.code == 0, ended.err
    found = json.loads(ended.out)
    assert {row["arm"] for row in found["ours"]["arms"]} == {"relu", "geglu"}
    assert all(5 < row["mean_loss_nats"] < 6 for row in found["ours"]["arms"])  # ln 257 is 5.55
    assert found["concordance"]["of"] == 1
    assert found["verdict"] == "not_separable"


def test_the_cards_are_listed(words: list[str], call_command: Command) -> None:
    shown = call_command("reproduce", "--list", *words[2:4])
    assert all(name in shown.out for name in ("mine", "narang2021", "shazeer2020", "short, long"))
    listed = json.loads(call_command("reproduce", "--list", "--json").out)["cards"]
    assert [card["name"] for card in listed] == ["narang2021", "shazeer2020"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["reproduce"], "which card? there: narang2021, shazeer2020"),
        (["reproduce", "shazer2020"], "did you mean 'shazeer2020'"),
        (
            ["reproduce", "shazeer2020", "--scale", "giant"],
            "--scale giant: shazeer2020 has pico, nano, micro",
        ),
        (
            ["reproduce", "shazeer2020", "--column", "longest"],
            "--column longest: shazeer2020 has short, long",
        ),
        (["reproduce", "shazeer2020", "optim.lrr=1", "--dry-run"], "optim.lrr=1: no such key"),
        (["reproduce", "shazeer2020", "--quick", "--widen"], "--widen: nothing is tuned with --quick"),
        (["reproduce", "shazeer2020", "optim.lr=1e-3", "--widen"], "nothing is tuned with these settings"),
    ],
)
def test_a_mistake_is_one_line(given: list[str], message: str, call_command: Command) -> None:
    ended = call_command(*given)
    assert ended.code == 2
    assert message in ended.err
    assert ended.err.count("\n") == 1


def test_card_names_are_offered_on_tab(words: list[str]) -> None:
    context = typer.Context(typer.main.get_command(typer.Typer(callback=lambda: None)))
    assert complete_card(context, "") == ["narang2021", "shazeer2020"]
    assert complete_card(context, "sh") == ["shazeer2020"]
    context.params["config_dir"] = words[3]
    assert complete_card(context, "m") == ["mine"]
