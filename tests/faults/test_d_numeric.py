"""Group D: numbers that are none, and numbers that are too large."""

from __future__ import annotations

import json
import random
import statistics
import sys
from pathlib import Path
from typing import Any, NoReturn

import pytest

from glu_bench.evaluate.history import N_BEFORE
from glu_bench.runs.checkpoint import list_checkpoints, load_checkpoint
from glu_bench.runs.folder import Run
from tests.conftest import TinyConfig
from tests.faults.conftest import Fault, Here, Processes, TinyTrain, find_run, tiny_command
from tests.study.conftest import maker_of_runs

# two functions that are ReLU but in step 12; pico has two blocks
PLUGIN = """
import math
import torch

n_calls = 0

def is_late(x):
    global n_calls
    if x.dim() == 3 and x.requires_grad:  # a training step calls, no probe
        n_calls += 1
        return (n_calls - 1) // 2 + 1 == 12
    return False

def late_inf(x):
    return torch.relu(x) + (math.inf if is_late(x) else 0)

def late_steep(x):
    return torch.relu(x) + ((x - x).abs().sqrt() if is_late(x) else 0)  # 0, of slope NaN

ACTIVATIONS = {"late_inf": late_inf, "late_steep": late_steep}
"""
LATE = ("variant=relu", "variant.name=late", "train.fast=false", "--plugin", "late.py")


def load_strictly(text: str) -> Any:
    """JSON without NaN and Infinity, which Python would read."""

    def refuse(word: str) -> NoReturn:
        raise AssertionError(f"{word} is not strict JSON")

    return json.loads(text, parse_constant=refuse)


def check_finite(run: Path) -> list[int]:
    """The steps of a run's checkpoints, in all of which every number is finite."""
    checkpoints = [load_checkpoint(path) for path in list_checkpoints(run / "checkpoints")]
    for checkpoint in checkpoints:
        for tensors in (checkpoint.model, checkpoint.optimizer):
            assert all(tensor.isfinite().all() for tensor in tensors.values())
    return [checkpoint.step for checkpoint in checkpoints]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "points", "reason"),
    [
        pytest.param((), ["step.after_backward:nan:12"], "loss is nan", id="loss"),
        pytest.param((*LATE, "variant.activation=late_inf"), [], "loss is nan", id="variant"),
        pytest.param((*LATE, "variant.activation=late_steep"), [], "gradient norm is nan", id="gradient"),
    ],
)
def test_d1_no_number_at_step_12(
    words: tuple[str, ...],
    points: list[str],
    reason: str,
    tiny_train: TinyTrain,
    fault: Fault,
    tmp_path: Path,
) -> None:
    """At step 12 the loss is NaN; a variant returns infinity; a gradient is NaN but the loss is finite.

    Exit 4 naming the step; the run is diverged; every number on disk is finite, and no checkpoint
    is of step 12 or later.
    """
    (tmp_path / "late.py").write_text(PLUGIN)
    env = fault(*points) if points else {}
    ended = tiny_train(*words, "train.steps=20", "train.checkpoint_every=1", env=env)
    assert ended.code == 4, ended.err
    assert f"diverged at step 12, {reason}" in ended.err
    assert len(ended.err.splitlines()) == 1
    run = find_run(tmp_path / "outputs")
    assert Run(run).status() == "diverged"
    assert Run(run).failure() == {"status": "diverged", "step": 12, "reason": reason}
    assert check_finite(run)[-1] == 11
    assert not (run / "result.json").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("lr", "n_steps", "code"),
    [
        pytest.param("1e3", 2, 0, id="short"),
        pytest.param("1e6", 2, 4, id="overflow in the forward pass"),
        pytest.param("1e6", 40, 4, id="long"),
    ],
)
def test_d2_a_learning_rate_far_too_high(
    lr: str, n_steps: int, code: int, tiny_train: TinyTrain, tmp_path: Path
) -> None:
    """A learning rate of 1000 or 1e6, for a few steps and for many.

    The run ends complete and marked unstable, or with exit 4; never as plain success, not even
    where overflow makes all logits zero and the loss a fine ln 257. Every number on disk is finite.
    """
    ended = tiny_train(f"optim.lr={lr}", f"train.steps={n_steps}", "train.checkpoint_every=1")
    run = find_run(tmp_path / "outputs")
    check_finite(run)
    assert ended.code == code, ended.err
    if code == 0:
        assert load_strictly((run / "result.json").read_text())["unstable"]
        assert "the training loss ended above where it began" in ended.out
    else:
        assert "diverged at step" in ended.err
        assert Run(run).status() == "diverged"
        assert not (run / "result.json").exists()


def test_d3_a_nan_between_two_logged_steps(
    here: Here, tiny_words: list[str], fault: Fault, tmp_path: Path
) -> None:
    """The loss is NaN at step 6, where nothing is logged, evaluated or saved.

    Exit 4 and step 6, before the weights are updated.
    """
    words = ("train.steps=12", "train.log_every=5", "train.eval_every=12", "train.checkpoint_every=5")
    ended = here(*tiny_command(tiny_words, *words), env=fault("step.after_backward:nan:6"))
    assert ended.code == 4
    assert "diverged at step 6, loss is nan; the weights were not updated" in ended.err
    run = find_run(tmp_path / "outputs")
    assert Run(run).failure() == {"status": "diverged", "step": 6, "reason": "loss is nan"}
    assert [row["step"] for row in Run(run).rows()] == [1, 5]
    assert check_finite(run) == [5]


@pytest.mark.slow
def test_d4_nothing_to_train_on_or_to_score(
    tiny_words: list[str], processes: Processes, finished_run: Run, tmp_path: Path
) -> None:
    """A text that leaves validation without a token; a training split without a block; `eval` on no text.

    Exit 3 in one line each, never a perplexity that is no number, and no run folder. (No token of
    a batch can be left out of the loss, so no batch can be ignored altogether.)
    """
    pieces = [tmp_path / f"{name}.txt" for name in ("one", "two")]
    for at, piece in enumerate(pieces):
        piece.write_text(f"a line of text {at}\n")
    (tmp_path / "empty.txt").write_text("")
    files = f"data.files=[{','.join(map(str, pieces))}]"
    tried = (
        (("train", *tiny_command(tiny_words, files)[1:]), "the val split is empty"),
        (tiny_command(tiny_words, "model.seq_len=60000"), "one block needs 60,001"),
        (("eval", str(finished_run.path), "--files", "empty.txt"), "empty.txt: empty"),
    )
    for words, said in tried:
        ended = processes.run(*words)
        assert ended.code == 3, ended.err
        assert said in ended.err
        assert ended.out == ""
    assert not (tmp_path / "outputs" / "runs").exists()


@pytest.mark.slow
def test_d5_a_loss_whose_perplexity_overflows(
    tiny_train: TinyTrain, processes: Processes, tiny_config: TinyConfig, tmp_path: Path
) -> None:
    """A run that ends at thousands of nats per token, and a comparison with a loss of 800 nats.

    `train`, `eval` and `compare` say >1e308, which is less than e^800 and about the greatest
    double; JSON is strict and says null; exit 0 and no traceback.
    """
    ended = tiny_train("optim.lr=100", "train.steps=3")
    assert ended.code == 0, ended.err
    assert "test perplexity   >1e308" in ended.out
    run = find_run(tmp_path / "outputs")
    record = load_strictly((run / "result.json").read_text())
    assert record["test_loss_nats"] > 800
    assert record["test_perplexity"] is None
    measured = processes.run("eval", run.name, "--json")
    assert measured.code == 0, measured.err
    (found,) = load_strictly(measured.out)["runs"]
    assert (found["loss_nats"], found["perplexity"]) == (record["test_loss_nats"], None)
    make_run = maker_of_runs(tiny_config, tmp_path / "made")
    for arm, loss_nats in (("gelu", 2.0), ("swiglu", 800.0)):
        make_run(arm, 0, loss_nats)
    compared = processes.run("compare", "--output-dir", "made")
    assert (compared.code, compared.out.count(">1e308")) == (0, 1), compared.err
    compared = processes.run("compare", "--output-dir", "made", "--json")
    assert compared.code == 0, compared.err
    arms = load_strictly(compared.out)["tables"][0]["arms"]
    assert (arms[1]["mean_loss_nats"], arms[1]["perplexity"]) == (800.0, None)


@pytest.mark.slow
def test_d6_seeds_that_diverged(processes: Processes, tiny_config: TinyConfig, tmp_path: Path) -> None:
    """One run of an arm of five seeds diverged, and all of another arm, given in two orders; a CSV file
    with a NaN first, in the middle and last.

    Exit 0; the counts are right, the arms marked and named on stderr, and the order of what is
    given changes nothing.
    """
    make_run = maker_of_runs(tiny_config, tmp_path / "outputs")
    names = []
    for seed in range(5):
        names.append(make_run("gelu", seed, 2.0 + 0.01 * seed).run_id)
        names.append(
            make_run("swiglu", seed, None if seed == 0 else 1.8 + 0.01 * seed, diverged=seed == 0).run_id
        )
        names.append(make_run("relu", seed, None, diverged=True).run_id)
    shuffled = random.Random(1).sample(names, len(names))
    first, other = (processes.run("compare", *given) for given in (names, shuffled))
    assert (first.code, first) == (0, other), first.err
    lines = [line for line in first.out.splitlines() if "/5" in line or line.startswith(" gelu")]
    rows = {line.split()[0]: line for line in lines}
    assert "4/5 (1 diverged)" in rows["swiglu"]
    assert "0/5 (5 diverged)" in rows["relu"]
    assert list(rows) == ["swiglu", "gelu", "relu"]
    assert "note: swiglu: the mean is over 4 of 5 runs" in first.err
    assert "note: relu: the mean is over 0 of 5 runs" in first.err
    lines = [
        f"{arm},{seed},{loss}" for seed in range(1, 4) for arm, loss in (("a", 2 + seed), ("b", 1 + seed))
    ]
    said = []
    for at in (0, 3, 6):
        path = tmp_path / "results.csv"
        path.write_text("\n".join(["arm,seed,loss", *lines[:at], "b,0,nan", *lines[at:], ""]))
        ended = processes.run("compare", "--from-csv", "results.csv", "--json")
        assert ended.code == 0, ended.err
        said.append(load_strictly(ended.out)["tables"][0])
    assert said == [said[0]] * 3
    counts = [
        (arm["arm"], arm["n_finished"], arm["n_diverged"], arm["mean_loss_nats"]) for arm in said[0]["arms"]
    ]
    assert counts == [("b", 3, 1, 3.0), ("a", 3, 0, 4.0)]


def test_d7_the_first_held_out_loss_is_nan(
    tiny_words: list[str], here: Here, fault: Fault, tmp_path: Path
) -> None:
    """Of three held-out losses on the way the first is NaN.

    The run completes; the recorded minimum is that of the numbers, and the log is strict JSON with
    null in the place of the NaN.
    """
    words = tiny_command(tiny_words, "train.eval_every=2")
    words.remove("--quiet")
    ended = here(*words, env=fault("eval.after_val:nan:1"))
    assert ended.code == 0, ended.err
    assert "val -" in next(line for line in ended.err.splitlines() if line.startswith("step 2/6"))
    run = find_run(tmp_path / "outputs")
    rows = [load_strictly(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    seen = {row["step"]: row["val_loss_nats"] for row in rows if "val_loss_nats" in row}
    assert list(seen) == [2, 4, 6]
    assert seen.pop(2) is None
    step = min(seen, key=lambda step: seen[step])
    record = load_strictly((run / "result.json").read_text())
    assert (record["best_val_step"], record["best_val_loss_nats"]) == (step, seen[step])


# the real command; in step 60 the head's weights are 32 times as large while loss and gradient are computed
SPIKE = """
import torch
from glu_bench.cli.main import main
from glu_bench.train import loop

backward = loop.Trainer._backward

def spike(self):
    factor = 32.0 if self.progress.step + 1 == 60 else 1.0
    with torch.no_grad():
        self.model.head.weight.mul_(factor)
    loss = backward(self)
    with torch.no_grad():
        self.model.head.weight.div_(factor)
    return loss

loop.Trainer._backward = spike
main()
"""


@pytest.mark.slow
def test_d8_one_loss_spike(processes: Processes, tiny_words: list[str], tmp_path: Path) -> None:
    """At step 60 of 80 the loss jumps by more than 10 standard deviations of the 50 before it.

    The run completes, and `inspect` counts one loss spike, at step 60.
    """
    words = tiny_command(tiny_words, "train.steps=80", "train.checkpoint_every=80")
    ended = processes.run(command=[sys.executable, "-c", SPIKE, *words])
    assert ended.code == 0, ended.err
    run = find_run(tmp_path / "outputs")
    losses = [row["loss_nats"] for row in Run(run).rows()]
    before = losses[59 - N_BEFORE : 59]
    assert losses[59] - statistics.fmean(before) > 10 * statistics.stdev(before)
    inspected = processes.run("inspect", run.name, "--json")
    assert inspected.code == 0, inspected.err
    history = load_strictly(inspected.out)["history"]
    assert (history["n_loss_spikes"], history["loss_spike_steps"]) == (1, [60])


def test_d9_runs_that_differ_in_more_than_the_arm(
    here: Here, tiny_config: TinyConfig, tmp_path: Path
) -> None:
    """`compare` is given runs of different lengths, or on different texts.

    Exit 2 naming the key and both values; with --allow-mixed one table, exit 0.
    """
    make_run = maker_of_runs(tiny_config, tmp_path / "outputs")
    names = [
        make_run("gelu", 0, 2.0).run_id,
        make_run("swiglu", 0, 1.9, "train.steps=7").run_id,
        make_run("swiglu", 0, 1.8, data="other").run_id,
    ]
    for name, said in zip(
        names[1:], ("train.steps is 6 and 7", "data_fingerprint is 'd' and 'other'"), strict=True
    ):
        refused = here("compare", names[0], name)
        assert (refused.code, refused.out) == (2, "")
        assert said in refused.err
        assert "--allow-mixed" in refused.err
    allowed = here("compare", *names, "--allow-mixed", "--json")
    assert allowed.code == 0, allowed.err
    (table,) = load_strictly(allowed.out)["tables"]
    means = {arm["arm"]: arm["mean_loss_nats"] for arm in table["arms"]}
    assert means == {"gelu": 2.0, "swiglu": pytest.approx(1.85)}
