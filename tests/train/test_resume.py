"""A run that was stopped goes on to the bits of one that was not."""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from glu_bench.data.order import make_order
from glu_bench.data.prepared import prepare_tokens
from glu_bench.errors import ConfigError, DataError, InterruptedRunError
from glu_bench.files import sha256_file
from glu_bench.runs import environment
from glu_bench.runs.checkpoint import list_checkpoints
from glu_bench.runs.folder import Run, list_runs
from glu_bench.train import loop, progress
from glu_bench.train.events import Logged, Started
from glu_bench.train.optimizer import Optimizer
from glu_bench.train.progress import Progress
from glu_bench.train.run import train_run
from glu_bench.train.stop import StopRequest
from tests.conftest import StopAt, TinyConfig, Train, make_text

TIMES = ("elapsed_s", "tokens_per_s", "peak_bytes", "files_sha256")  # the last of rows that hold times


def without_times(record: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in record.items() if name not in TIMES}


def only_run(output_dir: Path) -> Run:
    (run,) = list_runs(output_dir)
    return run


def edit_state(run: Run, **values: Any) -> None:
    """Put values into its last checkpoint's state, without those that are None; its checksum is put right."""
    path = list_checkpoints(run.checkpoints)[-1]
    state = path / "state.json"
    edited = {**json.loads(state.read_text()), **values}
    state.write_text(json.dumps({name: edited[name] for name in edited if values.get(name, "") is not None}))
    manifest = json.loads((path / "manifest.json").read_text())
    manifest["sha256"]["state.json"] = sha256_file(state)
    (path / "manifest.json").write_text(json.dumps(manifest))


def rows_of(output_dir: Path) -> list[dict[str, Any]]:
    return [without_times(row) for row in only_run(output_dir).rows()]


SLOW = pytest.mark.slow

Resume = Callable[..., dict[str, Any]]


@pytest.fixture
def resume(train: Train, tmp_path: Path) -> Resume:
    """Trains to the end with stops after so many steps of each start."""

    def run(*words: str, stops: tuple[int, ...] = (2, 3)) -> dict[str, Any]:
        for n_steps in stops:
            with pytest.raises(InterruptedRunError) as caught:
                train(*words, stop=StopAt(n_steps), output_dir=tmp_path / "resumed")
            assert caught.value.exit_code == 143
        return train(*words, output_dir=tmp_path / "resumed")

    return run


SETTINGS = [
    ("variant=xielu",),  # every other in the matrix of faults, row A2
    ("variant=reglu2_norm",),
    ("model.dropout=0.1",),
    ("train.grad_accum=2",),
    ("variant=relu", "model.dropout=0.1", "train.grad_accum=2"),
    ("variant=gelu", "model.dropout=0.1", "train.grad_accum=4"),
    ("optim.schedule=wsd", "model.ffn_bias=true"),
    ("model.tied_embeddings=true",),
    ("optim=muon",),
    ("optim=muon", "variant=relu", "model.ffn_bias=true", "model.tied_embeddings=true"),
    ("optim=adafactor",),
    ("optim=adafactor", "variant=relu", "model.ffn_bias=true", "model.tied_embeddings=true"),
    ("variant=relu2", "init=moment"),
    ("variant=swiglu_oai", "variant.learned=[gate.beta]", "variant.learned_per_unit=[offset]"),
]


@pytest.mark.parametrize("words", SETTINGS, ids=" ".join)
def test_stopping_twice_changes_no_bit(
    words: tuple[str, ...], train: Train, resume: Resume, tmp_path: Path
) -> None:
    straight = train(*words, "train.steps=8", output_dir=tmp_path / "straight")
    stopped = resume(*words, "train.steps=8")
    assert without_times(stopped) == without_times(straight)
    assert rows_of(tmp_path / "resumed") == rows_of(tmp_path / "straight")


def test_stopping_around_the_end_of_an_epoch_changes_no_bit(
    train: Train, resume: Resume, tiny_config: TinyConfig, tmp_path: Path
) -> None:
    path = tmp_path / "short.txt"
    path.write_text(make_text(28))
    words = (f"data.files={path}", "model.seq_len=64", "train.batch_size=3", "train.steps=12")
    order = make_order(prepare_tokens(tiny_config(*words)).stream("train"), 64, 3, 0)
    assert 5 <= order.n_blocks <= 15
    assert order.n_blocks % 3
    at_wrap = order.n_blocks // 3 + 1
    straight = train(*words, output_dir=tmp_path / "straight")
    stopped = resume(*words, stops=(at_wrap - 1, 1, 1))
    assert without_times(stopped) == without_times(straight)


def _drop_optimizer(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(progress, "unpack_optimizer", lambda *arguments: None)


def _drop_generators(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(torch, "set_rng_state", lambda state: None)


def _drop_learned(patch: pytest.MonkeyPatch) -> None:
    restore = progress.load_weights

    def forget(model: torch.nn.Module, *arguments: Any) -> None:
        learned = {n: p.detach().clone() for n, p in model.named_parameters() if ".learned." in n}
        restore(model, *arguments)  # type: ignore[arg-type]
        model.load_state_dict(learned, strict=False)

    patch.setattr(progress, "load_weights", forget)


def _drop_state_of_learned(patch: pytest.MonkeyPatch) -> None:
    unpack = progress.unpack_optimizer

    def forget(optimizer: Any, tensors: dict[str, Any]) -> None:
        unpack(optimizer, {name: t for name, t in tensors.items() if ".learned." not in name})

    patch.setattr(progress, "unpack_optimizer", forget)


@pytest.mark.parametrize(
    "variant",
    ["xielu", *[pytest.param(name, marks=SLOW) for name in ("swiglu_mult", "reglu2_norm", "polyrelu")]],
)
@pytest.mark.parametrize("mutilate", [_drop_learned, _drop_state_of_learned])
def test_a_loader_that_forgets_learned_arguments_is_noticed(
    mutilate: Callable[[pytest.MonkeyPatch], None],
    variant: str,
    train: Train,
    resume: Resume,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    words = (f"variant={variant}", "optim.lr=0.02", "train.steps=6")
    straight = train(*words, output_dir=tmp_path / "straight")
    mutilate(monkeypatch)
    assert resume(*words)["parameters_sha256"] != straight["parameters_sha256"]


def _drop_step(patch: pytest.MonkeyPatch) -> None:
    restore = progress.restore_progress

    def forget(*arguments: Any) -> Progress:
        return dataclasses.replace(restore(*arguments), step=0)

    patch.setattr(loop, "restore_progress", forget)


def _drop_nothing(patch: pytest.MonkeyPatch) -> None:
    pass


@pytest.mark.parametrize(
    ("mutilate", "forgets"),
    [
        pytest.param(_drop_nothing, False, id="nothing"),
        pytest.param(_drop_optimizer, True, id="optimiser"),
        pytest.param(_drop_generators, True, id="generators"),
        pytest.param(_drop_step, True, id="step", marks=SLOW),  # more in the matrix of faults, row A4
    ],
)
def test_a_loader_that_forgets_something_is_noticed(
    mutilate: Callable[[pytest.MonkeyPatch], None],
    forgets: bool,
    train: Train,
    resume: Resume,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # a rising rate that ends too high: the least held-out loss and the greatest training loss come early
    words = (
        "model.dropout=0.1",
        "train.eval_every=2",
        "optim.lr=2",
        "optim.warmup_share=0.9",
        "train.steps=8",
    )
    straight = train(*words, output_dir=tmp_path / "straight")
    assert straight["best_val_step"] < 5
    assert straight["unstable"]
    mutilate(monkeypatch)
    stopped = resume(*words)
    shown = {**without_times(stopped), "rows": rows_of(tmp_path / "resumed"), "first": first_loss(tmp_path)}
    expected = {
        **without_times(straight),
        "rows": rows_of(tmp_path / "straight"),
        "first": rows_of(tmp_path / "straight")[0]["loss_nats"],
    }
    assert (shown != expected) == forgets


STATE = {
    "adamw": ("exp_avg", "exp_avg_sq", "step"),
    "muon": ("momentum_buffer", "exp_avg", "exp_avg_sq", "step"),
    "adafactor": ("row_var", "col_var", "variance", "step"),
}


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        pytest.param(name, kind, marks=[SLOW] if number else [])
        for name, kinds in STATE.items()
        for number, kind in enumerate(kinds)
    ],
)
def test_state_of_an_optimiser_that_comes_back_wrong_is_noticed(
    name: str, kind: str, train: Train, resume: Resume, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = (f"optim={name}", "train.steps=6")
    straight = train(*words, output_dir=tmp_path / "straight")
    restore, seen = progress.unpack_optimizer, []

    def spoil(optimizer: Optimizer, tensors: dict[str, torch.Tensor]) -> None:
        spoiled = [key for key in tensors if key.startswith(f"{kind}/")]
        seen.extend(spoiled)
        restore(optimizer, {**tensors, **{key: torch.zeros_like(tensors[key]) for key in spoiled}})

    monkeypatch.setattr(progress, "unpack_optimizer", spoil)
    assert resume(*words)["parameters_sha256"] != straight["parameters_sha256"]
    assert seen


def first_loss(tmp_path: Path) -> float:
    last = list_checkpoints(only_run(tmp_path / "resumed").checkpoints)[-1]
    return float(json.loads((last / "state.json").read_text())["first_loss_nats"])


def test_a_run_killed_after_its_checkpoint_writes_each_row_once(
    train: Train, tiny_config: TinyConfig, tmp_path: Path
) -> None:
    straight = train(output_dir=tmp_path / "straight")
    events = train_run(tiny_config(), tmp_path / "resumed", StopRequest())
    for event in events:
        if isinstance(event, Logged) and event.row["step"] == 5:
            break
    events.close()  # type: ignore[attr-defined]
    run = only_run(tmp_path / "resumed")
    assert [path.name for path in list_checkpoints(run.checkpoints)] == ["step-00000002", "step-00000004"]
    with run.metrics_path.open("a") as file:
        file.write('{"step": 6, "lo')
    resumed = train(output_dir=tmp_path / "resumed")
    assert [row["step"] for row in run.rows()] == [1, 2, 3, 4, 5, 6]
    assert rows_of(tmp_path / "resumed") == rows_of(tmp_path / "straight")
    assert without_times(resumed) == without_times(straight)


def flip_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def test_a_corrupt_newest_checkpoint_costs_only_the_steps_since_the_one_before(
    train: Train, tiny_config: TinyConfig, tmp_path: Path
) -> None:
    straight = train(output_dir=tmp_path / "straight")
    with pytest.raises(InterruptedRunError):
        train(output_dir=tmp_path / "resumed", stop=StopAt(5))
    run = only_run(tmp_path / "resumed")
    newest = list_checkpoints(run.checkpoints)[-1]
    flip_byte(newest / "model.safetensors")
    events = list(train_run(tiny_config(), tmp_path / "resumed", StopRequest()))
    started = events[0]
    assert isinstance(started, Started)
    assert started.resumed_step == 4
    assert any("step-00000005" in remark for remark in started.remarks)
    assert (run.checkpoints / "corrupt-step-00000005").is_dir()
    assert without_times(run.result()) == without_times(straight)


def test_if_every_checkpoint_is_corrupt_nothing_is_trained_until_restarted(
    train: Train, tmp_path: Path
) -> None:
    with pytest.raises(InterruptedRunError):
        train(stop=StopAt(3))
    run = only_run(tmp_path)
    for path in list_checkpoints(run.checkpoints):
        flip_byte(path / "model.safetensors")
    for _ in range(2):
        with pytest.raises(DataError, match="--restart"):
            train()
    assert train(restart=True)["status"] == "complete"


@pytest.fixture
def _one_thread_after() -> Iterator[None]:
    yield
    torch.set_num_threads(1)


@pytest.mark.usefixtures("_one_thread_after")
def test_another_number_of_threads_is_refused_or_recorded_as_inexact(train: Train) -> None:
    with pytest.raises(InterruptedRunError):
        train(stop=StopAt(3))
    with pytest.raises(ConfigError, match=r"n_threads=1, this process has 2.*--resume-inexact"):
        train("train.threads=2")
    assert train("train.threads=2", resume_inexact=True)["exact"] is False


def test_another_instruction_set_is_refused(
    train: Train, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with pytest.raises(InterruptedRunError):
        train(stop=StopAt(3))
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "DEFAULT")
    with pytest.raises(ConfigError, match="this process has DEFAULT"):
        train()
    (run,) = list_runs(tmp_path)
    assert run.status() == "interrupted"  # it is the command that failed


@pytest.mark.parametrize(("reader", "name"), [("_read_cpu_name", "cpu"), ("_read_compiler", "compiler")])
def test_another_processor_or_compiler_is_refused(
    train: Train, monkeypatch: pytest.MonkeyPatch, reader: str, name: str
) -> None:
    monkeypatch.setattr(progress, "read_numerics", lambda device, _: environment.read_numerics(device, True))
    with pytest.raises(InterruptedRunError):
        train(stop=StopAt(3))
    monkeypatch.setattr(environment, reader, lambda: "another")
    with pytest.raises(ConfigError, match=f"with {name}=.*, this process has another"):
        train()
    assert train(resume_inexact=True)["exact"] is False


def test_another_kind_of_device_is_refused_and_its_facts_are_no_part_of_progress(
    train: Train, tmp_path: Path
) -> None:
    with pytest.raises(InterruptedRunError):
        train(stop=StopAt(3))
    edit_state(only_run(tmp_path), device="cuda", gpu="H100", cuda="13", cudnn=9)
    with pytest.raises(ConfigError, match="device=cuda, this process has cpu"):
        train()
    assert train(resume_inexact=True)["exact"] is False


def test_a_checkpoint_that_does_not_know_a_name_is_taken_for_made_here(train: Train, tmp_path: Path) -> None:
    with pytest.raises(InterruptedRunError):
        train(stop=StopAt(3))
    edit_state(only_run(tmp_path), device=None, cpu=None, peak_bytes=None)
    assert train()["exact"] is True


def test_the_memory_of_who_trained_before_counts(train: Train, tmp_path: Path) -> None:
    with pytest.raises(InterruptedRunError):
        train(stop=StopAt(3))
    edit_state(only_run(tmp_path), peak_bytes=10**15)
    assert train()["peak_bytes"] == 10**15


@pytest.mark.usefixtures("_one_thread_after")
def test_a_run_begun_anew_names_the_threads_it_is_trained_with(train: Train, tmp_path: Path) -> None:
    with pytest.raises(InterruptedRunError):
        train(stop=StopAt(3))
    train("train.threads=2", restart=True)
    assert only_run(tmp_path).environment()["n_threads"] == 2


def test_a_run_once_inexact_stays_so(train: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InterruptedRunError):
        train(stop=StopAt(2))
    with monkeypatch.context() as patch:
        patch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "DEFAULT")
        with pytest.raises(InterruptedRunError):
            train(stop=StopAt(2), resume_inexact=True)
        assert train()["exact"] is False


def test_times_on_disk_and_a_clock_set_back_do_not_matter(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    straight = train(output_dir=tmp_path / "straight")
    with pytest.raises(InterruptedRunError):
        train(output_dir=tmp_path / "resumed", stop=StopAt(5))
    checkpoints = list_checkpoints(only_run(tmp_path / "resumed").checkpoints)
    for path, moment in zip(checkpoints, (2e9, 0), strict=True):
        os.utime(path, (moment, moment))
    backwards = itertools.count(1e9, -3600)
    monkeypatch.setattr("time.time", lambda: next(backwards))
    resumed = train(output_dir=tmp_path / "resumed")
    assert without_times(resumed) == without_times(straight)
    assert resumed["elapsed_s"] >= 0


def test_state_that_this_version_does_not_know_is_refused(train: Train, tmp_path: Path) -> None:
    with pytest.raises(InterruptedRunError):
        train(stop=StopAt(1))
    edit_state(only_run(tmp_path), _target_="os.system")
    with pytest.raises(DataError, match=r"state\.json"):
        train()


def test_a_stop_at_the_last_step_loses_nothing(train: Train, tmp_path: Path) -> None:
    straight = train(output_dir=tmp_path / "straight")
    with pytest.raises(InterruptedRunError):
        train(output_dir=tmp_path / "resumed", stop=StopAt(6))
    assert without_times(train(output_dir=tmp_path / "resumed")) == without_times(straight)
