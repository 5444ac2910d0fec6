"""Group A: a run that was stopped goes on to the bits of one that was not."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from glu_bench.config import list_group
from glu_bench.data.prepared import prepare_tokens
from glu_bench.errors import InterruptedRunError
from glu_bench.runs.checkpoint import list_checkpoints, load_checkpoint
from glu_bench.runs.folder import Run
from glu_bench.train.result import hash_weights
from tests.conftest import Ended, StopAt, TinyConfig, Train, make_text
from tests.faults.conftest import (
    Fault,
    Here,
    Processes,
    TinyTrain,
    find_run,
    newest_checkpoint,
    snapshot,
    tiny_command,
    worth_of,
)

# a rate that rises until it is too high: held-out loss is least before the last stop, and the
# training loss ends above its start; dropout makes the generator matter
WORDS = (
    *("model.dropout=0.1", "train.grad_accum=2", "train.steps=30", "train.eval_every=5"),
    *("train.checkpoint_every=10", "optim.lr=2", "optim.warmup_share=0.9"),
)
STOPS = (9, 17)


def train_in_pieces(start: Callable[..., Ended], fault: Fault, *words: str, stops: tuple[int, ...]) -> None:
    """Train with a SIGTERM while each of these steps is computed, each start a process, then to the end."""
    came_from = 0
    for stop in stops:
        ended = start(*words, env=fault(f"step.after_backward:term:{stop - came_from}"))
        assert (ended.code, f"saved at step {stop}" in ended.err) == (143, True), ended.err
        came_from = stop
    ended = start(*words)
    assert ended.code == 0, ended.err


def replace_words(words: Sequence[str], *others: str) -> tuple[str, ...]:
    """The words with these added, or in the place of those of the same key."""
    return tuple({word.split("=", 1)[0]: word for word in (*words, *others)}.values())


def list_differences(one: dict[str, Any], other: dict[str, Any]) -> set[str]:
    """The parts in which two runs are worth something else."""
    return {part for part in one if one[part] != other[part]}


@pytest.fixture(scope="module")
def straight_30(tiny_words: list[str], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a run of 30 steps is worth that nothing stops."""
    folder = tmp_path_factory.mktemp("straight-30")
    ended = Processes(folder).run(*tiny_command(tiny_words, *WORDS))
    assert ended.code == 0, ended.err
    return worth_of(find_run(folder / "outputs"))


@pytest.mark.slow
def test_a1_stopped_twice(
    tiny_train: TinyTrain, fault: Fault, straight_30: dict[str, Any], tmp_path: Path
) -> None:
    """30 steps in three processes: stopped at step 9, resumed to step 17, resumed to the end.

    Exit codes 143, 143, 0; parameters, optimiser, generators, every logged row, every held-out
    window and the final record, times apart, are those of a run in one process.
    """
    train_in_pieces(tiny_train, fault, *WORDS, stops=STOPS)
    assert list_differences(straight_30, worth_of(find_run(tmp_path / "outputs"))) == set()


EVERY = [(f"variant={name}",) for name in list_group("variant")]
GRID = [
    (f"variant={variant}", f"model.dropout={dropout}", f"train.grad_accum={n_micro}")
    for variant in ("relu", "swiglu", "xielu")
    for dropout in (0, 0.1)
    for n_micro in (1, 3)
]


@pytest.mark.slow
@pytest.mark.parametrize("words", [*EVERY, *GRID], ids=" ".join)
def test_a2_stopped_twice_for_every_variant(words: tuple[str, ...], train: Train, tmp_path: Path) -> None:
    """As A1 in this process, for every variant, and for three with and without dropout and accumulation.

    Nothing differs but times.
    """
    words = (
        *words,
        "train.batch_size=6",
        "train.steps=30",
        "train.eval_every=15",
        "train.checkpoint_every=15",
    )
    train(*words, output_dir=tmp_path / "straight")
    for n_steps in (9, 17 - 9):
        with pytest.raises(InterruptedRunError):
            train(*words, stop=StopAt(n_steps), output_dir=tmp_path / "stopped")
    train(*words, output_dir=tmp_path / "stopped")
    straight, stopped = (worth_of(find_run(tmp_path / name)) for name in ("straight", "stopped"))
    assert list_differences(straight, stopped) == set()


# the real command, and beside it a log of what it is trained on: a line a sequence
NOTE_BATCHES = """
import hashlib, sys
from glu_bench.cli.main import main
from glu_bench.train import feed

take = feed.Feed.take

def note(self, step):
    batch = take(self, step)
    with open("batches.log", "a") as log:
        log.writelines(hashlib.sha256(row.numpy().tobytes()).hexdigest() + "\\n" for row in batch)
    return batch

feed.Feed.take = note
main()
"""


@pytest.mark.slow
def test_a3_stopped_around_the_end_of_an_epoch(
    processes: Processes, fault: Fault, tiny_words: list[str], tiny_config: TinyConfig, tmp_path: Path
) -> None:
    """A text of 7 blocks in batches of 3, stopped before a step that spans two epochs and at an epoch's end.

    Nothing differs from a run in one process, and the log of what was trained on holds each
    block once an epoch, in the same order.
    """
    text = tmp_path / "short.txt"
    text.write_text(make_text(28))
    own = (f"data.files={text}", "train.batch_size=3", "train.steps=10", "model.dropout=0.1")
    seq_len = (len(prepare_tokens(tiny_config(*own)).stream("train").ids) - 1) // 7
    words = (*own, f"model.seq_len={seq_len}")
    logs = {}

    def start(*words: str, env: dict[str, str | None] | None = None) -> Ended:
        command = [sys.executable, "-c", NOTE_BATCHES, *tiny_command(tiny_words, *words)]
        return processes.run(command=command, env=env)

    for name, stops in (("straight", ()), ("stopped", (2, 7))):
        train_in_pieces(start, fault, *words, "--output-dir", name, stops=stops)
        logs[name] = (tmp_path / "batches.log").read_text().splitlines()
        (tmp_path / "batches.log").unlink()
    assert list_differences(*(worth_of(find_run(tmp_path / name)) for name in logs)) == set()
    assert logs["stopped"] == logs["straight"]
    assert len(logs["stopped"]) == 10 * 3
    epochs = [set(logs["stopped"][at : at + 7]) for at in range(0, 28, 7)]
    assert len(epochs[0]) == 7
    assert epochs == [epochs[0]] * 4


@pytest.fixture
def complete_here(finished_run: Run, tmp_path: Path) -> Run:
    """A copy of a complete tiny run under this test's outputs."""
    shutil.copytree(finished_run.path.parent, tmp_path / "outputs" / "runs")
    return Run(tmp_path / "outputs" / "runs" / finished_run.path.name)


def test_a5_a_complete_run_once_more(complete_here: Run, tiny_words: list[str], here: Here) -> None:
    """The command of a run that is complete.

    Exit 0 and "already complete"; no file of the run has another content or another time.
    """
    before, times = snapshot(complete_here.path), list_times(complete_here.path)
    ended = here("train", *tiny_words)
    assert ended.code == 0, ended.err
    assert "already complete" in ended.err
    assert "test perplexity" in ended.out
    assert snapshot(complete_here.path) == before
    assert list_times(complete_here.path) == times


def list_times(folder: Path) -> dict[str, int]:
    """When each file under a folder was last written, in ns; the lock is no file of the run."""
    return {
        str(path.relative_to(folder)): path.stat().st_mtime_ns
        for path in folder.rglob("*")
        if path.is_file() and path.name != ".lock"
    }


@pytest.mark.slow
def test_a6_resumed_under_other_numerics(tiny_train: TinyTrain, fault: Fault, tmp_path: Path) -> None:
    """A run is resumed with another number of threads, instruction set, or number of processes.

    Exit 2 naming what differs and both values, and what the run has is untouched; with
    --resume-inexact exit 0, and the record says exact: false.
    """
    assert tiny_train(env=fault("step.after_backward:term:3")).code == 143
    run = find_run(tmp_path / "outputs")
    before = snapshot(run)
    here = json.loads((newest_checkpoint(run) / "state.json").read_text())["cpu_capability"]
    assert here != "DEFAULT"
    changes: tuple[tuple[str, tuple[str, ...], dict[str, str | None]], ...] = (
        ("n_threads=1, this process has 2", ("train.threads=2",), {}),
        (f"cpu_capability={here}, this process has DEFAULT", (), {"ATEN_CPU_CAPABILITY": "default"}),
        ("n_ranks=1, this process has 2", ("parallel=ddp", "parallel.devices=2", "train.threads=1"), {}),
    )
    for at, (difference, words, env) in enumerate(changes):
        copied = f"copied-{at}"
        shutil.copytree(tmp_path / "outputs", tmp_path / copied)
        refused = tiny_train(*words, env=env)
        assert refused.code == 2, refused.err
        assert difference in refused.err
        assert "--resume-inexact" in refused.err
        assert before.items() <= snapshot(run).items()
        allowed = tiny_train(*words, "--resume-inexact", "--output-dir", copied, env=env)
        assert allowed.code == 0, allowed.err
        assert find_run(tmp_path / copied).name == run.name
        assert json.loads((find_run(tmp_path / copied) / "result.json").read_text())["exact"] is False


@pytest.mark.slow
def test_a7_one_byte_of_the_text_changes(
    processes: Processes, tiny_train: TinyTrain, text_path: Path, tmp_path: Path
) -> None:
    """One byte of the text changes, and the same command is given again; then the first run is measured.

    It is another run with another id, and the first one's folder is untouched; `eval` of the
    first exits 3 and says that the fingerprint differs.
    """
    text = tmp_path / "words.txt"
    shutil.copy(text_path, text)
    words = (f"data.files={text}", "train.steps=1")
    assert tiny_train(*words).code == 0
    first = find_run(tmp_path / "outputs")
    before = snapshot(first)
    content = bytearray(text.read_bytes())
    content[len(content) // 2] ^= 1
    text.write_bytes(content)
    again = tiny_train(*words)
    assert again.code == 0, again.err
    names = {path.name for path in (tmp_path / "outputs" / "runs").iterdir()}
    assert len(names) == 2
    assert {name.rpartition("-")[0] for name in names} == {first.name.rpartition("-")[0]}
    assert snapshot(first) == before
    measured = processes.run("eval", first.name)
    assert measured.code == 3
    assert measured.out == ""
    assert "fingerprint differs" in measured.err
    assert snapshot(first) == before


def test_a8_the_configuration_was_edited_by_hand(
    complete_here: Run, tiny_words: list[str], here: Here, tmp_path: Path
) -> None:
    """Two keys of a run's config.yaml are edited, and the run's command is given again.

    Exit 3 naming the first key that differs, with both values; nothing is written.
    """
    path = complete_here.path / "config.yaml"
    text = path.read_text()
    for old, new in (("lr: 0.002", "lr: 0.003"), ("batch_size: 4", "batch_size: 8")):
        assert text.count(old) == 1
        text = text.replace(old, new)
    path.write_text(text)
    before = snapshot(complete_here.path)
    ended = here("train", *tiny_words)
    assert ended.code == 3
    assert "optim.lr is 0.003 there and 0.002 in this command" in ended.err
    assert str(path.relative_to(tmp_path)) in ended.err
    assert snapshot(complete_here.path) == before


@pytest.mark.slow
def test_a9_the_least_held_out_loss_came_before_the_stop(
    tiny_train: TinyTrain, fault: Fault, tmp_path: Path
) -> None:
    """The held-out loss is least at step 10 and rises from there; the run is stopped at step 20 and resumed.

    The recorded minimum is still that of step 10; losses that are compared are the last ones.
    """
    rising = ("optim.lr=1.2", "optim.warmup_share=0.97")
    words = replace_words(WORDS, "train.eval_every=10", *rising)
    train_in_pieces(tiny_train, fault, *words, stops=(20,))
    run = find_run(tmp_path / "outputs")
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    losses = {row["step"]: row["val_loss_nats"] for row in rows if "val_loss_nats" in row}
    assert list(losses) == [10, 20, 30]
    assert losses[10] < min(losses[20], losses[30])
    result = json.loads((run / "result.json").read_text())
    assert (result["best_val_step"], result["best_val_loss_nats"]) == (10, losses[10])
    assert result["val_loss_nats"] > losses[10]


@pytest.mark.slow
def test_a10_rows_past_the_checkpoint(tiny_train: TinyTrain, fault: Fault, tmp_path: Path) -> None:
    """SIGKILL in step 15, the last checkpoint being of step 10, and the same command again.

    Every step stands in metrics.jsonl exactly once, and steps 1 to 14 as they stood before.
    """
    words = ("train.steps=16", "train.checkpoint_every=10")
    assert tiny_train(*words, env=fault("step.after_backward:kill9:15")).code == -9
    run = find_run(tmp_path / "outputs")
    assert newest_checkpoint(run).name == "step-00000010"
    before = read_losses(run)
    assert [step for step, _ in before] == list(range(1, 15))
    ended = tiny_train(*words)
    assert ended.code == 0, ended.err
    after = read_losses(run)
    assert [step for step, _ in after] == list(range(1, 17))
    assert after[:14] == before


def read_losses(run: Path) -> list[tuple[int, float]]:
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [(row["step"], row["loss_nats"]) for row in rows]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's compiler uses what torch deprecates
def test_a11_saved_while_compiled_and_loaded_eagerly(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run under torch.compile, whose wrapper would put _orig_mod into names, is loaded eagerly.

    Every name in a checkpoint is one of the eager model's, and the eager model has the hash of
    the final record.
    """
    monkeypatch.setattr("glu_bench.device.find_missing_compiler", lambda device: None)
    compile_, n_compiled = torch.compile, []

    def compile_quickly(function: Any, **options: Any) -> Any:
        n_compiled.append(function)
        return compile_(function, **options | {"backend": "eager"})

    monkeypatch.setattr(torch, "compile", compile_quickly)
    with pytest.raises(InterruptedRunError):
        train("train.compile=true", stop=StopAt(3))
    record = train("train.compile=true")
    assert n_compiled
    run = Run(find_run(tmp_path))
    model = run.load_model()
    eager = dict(model.named_parameters())
    for path in list_checkpoints(run.checkpoints):
        checkpoint = load_checkpoint(path)
        assert set(checkpoint.model) == set(eager)
        assert not any("_orig_mod" in name for name in (*checkpoint.model, *checkpoint.optimizer))
    assert (
        hash_weights({name: tensor.detach() for name, tensor in eager.items()}) == record["parameters_sha256"]
    )


# as on a GPU: the next batch is gathered while a step computes
PREFETCH = """
from glu_bench.cli.main import main
from glu_bench.train import feed, loop

feed._pin = lambda batch: batch.clone()
loop.make_feed = lambda order, rows, device: feed.Feed(order, rows, device, ahead=True)
main()
"""


@pytest.mark.slow
def test_a12_resumed_with_other_habits(
    processes: Processes,
    fault: Fault,
    straight_30: dict[str, Any],
    tiny_words: list[str],
    tiny_train: TinyTrain,
    tmp_path: Path,
) -> None:
    """A resume that gathers batches ahead, as on a GPU, and logs, evaluates and saves at other steps.

    There are no loader processes whose number could change. It is the same run, and parameters,
    optimiser, generators and final losses are those of one that never changed its habits.
    """
    assert tiny_train(*WORDS, env=fault("step.after_backward:term:9")).code == 143
    habits = (
        *("train.log_every=7", "train.eval_every=4", "train.eval_tokens=32", "train.diagnostics=full"),
        *("train.checkpoint_every=3", "train.keep_checkpoints=1"),
    )
    words = replace_words(WORDS, *habits)
    command = [sys.executable, "-c", PREFETCH, *tiny_command(tiny_words, *words)]
    ended = processes.run(command=command)
    assert ended.code == 0, ended.err
    changed = worth_of(find_run(tmp_path / "outputs"))
    assert list_differences(straight_30, changed) <= {"state", "result", "rows"}
    assert list_differences(straight_30["state"], changed["state"]) <= MINIMUM
    assert list_differences(straight_30["result"], changed["result"]) <= MINIMUM


MINIMUM = {"best_val_loss_nats", "best_val_step"}  # of the steps looked at
