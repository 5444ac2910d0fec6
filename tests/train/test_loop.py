"""One run: its numbers, its records, and what stops it."""

from __future__ import annotations

import dataclasses
import itertools
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from glu_bench.config import list_group
from glu_bench.data.order import make_order
from glu_bench.data.prepared import prepare_tokens
from glu_bench.errors import BusyError, ConfigError, DataError, DeviceError, DivergedError
from glu_bench.evaluate.run import evaluate_run
from glu_bench.files import hold_lock
from glu_bench.lm.counts import count_model
from glu_bench.lm.decoder import Decoder, make_decoder
from glu_bench.lm.init import init_weights
from glu_bench.runs.checkpoint import list_checkpoints, load_checkpoint
from glu_bench.runs.folder import Run, list_runs
from glu_bench.train import loop, result
from glu_bench.train.events import Evaluating, Finished, Logged, Started
from glu_bench.train.loop import count_steps
from glu_bench.train.optimizer import Optimizer
from glu_bench.train.progress import Progress
from glu_bench.train.run import train_run
from glu_bench.train.stop import StopRequest
from tests.conftest import TinyConfig, Train


def only_run(output_dir: Path) -> Run:
    (run,) = list_runs(output_dir)
    return run


def test_events_tell_the_run_from_start_to_end(tiny_config: TinyConfig, tmp_path: Path) -> None:
    events = list(train_run(tiny_config(), tmp_path, StopRequest()))
    kinds = [type(event) for event in events]
    assert kinds == [Started, *[Logged] * 6, Evaluating, Evaluating, Finished]
    started, finished = events[0], events[-1]
    assert isinstance(started, Started)
    assert isinstance(finished, Finished)
    assert (started.n_steps, started.resumed_step, finished.reused) == (6, 0, False)
    assert [event.split for event in events if isinstance(event, Evaluating)] == ["val", "test"]


def test_the_record_has_the_keys_that_scripts_rely_on(train: Train) -> None:
    record = train()
    fixed = (
        "run_id status variant model data seed val_loss_nats test_loss_nats test_perplexity "
        "test_bits_per_byte train_loss_nats n_params n_ffn_params match_residual tokens steps "
        "tokens_per_s elapsed_s peak_bytes parameters_sha256"
    )
    assert set(fixed.split()) <= set(record)
    assert record["tokens"] == 6 * 4 * 16
    assert record["match_residual"] == 0
    assert record["test_perplexity"] == math.exp(record["test_loss_nats"])


def test_every_row_says_where_the_run_stands(train: Train, tmp_path: Path) -> None:
    train("train.log_every=2", "train.eval_every=3", "train.steps=7")
    rows = only_run(tmp_path).rows()
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 6, 7]
    assert [row["step"] for row in rows if "val_loss_nats" in row] == [3, 6, 7]
    assert all(row["tokens"] == row["step"] * 64 and row["n_steps"] == 7 for row in rows)


def test_the_first_loss_is_near_that_of_uniform_guessing(train: Train, tmp_path: Path) -> None:
    train("train.batch_size=16", "train.steps=1")
    assert only_run(tmp_path).rows()[0]["loss_nats"] == pytest.approx(math.log(257), rel=0.02)


def test_checkpoints_stand_at_their_steps_and_at_the_last(train: Train, tmp_path: Path) -> None:
    train("train.steps=7", "train.checkpoint_every=3", "train.keep_checkpoints=9")
    names = [path.name for path in list_checkpoints(only_run(tmp_path).checkpoints)]
    assert names == ["step-00000003", "step-00000006", "step-00000007"]


@pytest.mark.parametrize("words", [(), ("model.dropout=0.1",)])
def test_how_often_a_run_looks_and_saves_changes_no_bit_of_it(
    words: tuple[str, ...], train: Train, tmp_path: Path
) -> None:
    often = train(*words, "train.eval_every=1", "train.checkpoint_every=1", output_dir=tmp_path / "often")
    rare = ("train.eval_every=99", "train.log_every=99", "train.checkpoint_every=99")
    seldom = train(*words, *rare, output_dir=tmp_path / "seldom")
    assert often["parameters_sha256"] == seldom["parameters_sha256"]
    assert often["test_loss_nats"] == seldom["test_loss_nats"]
    assert often["run_id"] == seldom["run_id"]


def test_every_fast_path_can_be_turned_off(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The plain formulas lead to the same losses."""
    fast = train(output_dir=tmp_path / "fast")

    def refuse(*_arguments: object) -> Tensor:
        raise AssertionError("fast")

    monkeypatch.setattr("glu_bench.lm.head.CHUNK_BYTES", 4 * 257 * 8)  # eight tokens of a batch's 64
    names = ("ffn.feedforward.lean_feedforward", "lm.attention.attend_lean", "lm.decoder.chunked_nats")
    for name in names:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(f"glu_bench.{name}", refuse)
            with pytest.raises(AssertionError, match="fast"):
                train(output_dir=tmp_path / name)
    for name in names:
        monkeypatch.setattr(f"glu_bench.{name}", refuse)
    plain = train("train.fast=false", output_dir=tmp_path / "plain")
    again = evaluate_run(only_run(tmp_path / "plain"))
    assert again.loss_nats == plain["test_loss_nats"]
    assert plain["run_id"] != fast["run_id"]
    assert plain["test_loss_nats"] == pytest.approx(fast["test_loss_nats"], abs=1e-4)
    assert plain["ffn_saved_bytes_per_token"] > fast["ffn_saved_bytes_per_token"]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_plain_paths_can_be_compiled(train: Train, tmp_path: Path) -> None:
    torch.compiler.reset()
    eager = train("train.fast=false", output_dir=tmp_path / "eager")
    compiled = train("train.fast=false", "train.compile=true", output_dir=tmp_path / "compiled")
    assert compiled["test_loss_nats"] == pytest.approx(eager["test_loss_nats"], abs=1e-4)


def test_the_same_command_twice_gives_the_same_bits(train: Train, tmp_path: Path) -> None:
    hashes = {
        train("model.dropout=0.1", output_dir=tmp_path / name)["parameters_sha256"] for name in ("one", "two")
    }
    assert len(hashes) == 1


def test_another_seed_gives_other_weights(train: Train) -> None:
    assert train("seed=0")["parameters_sha256"] != train("seed=1")["parameters_sha256"]


def test_a_finished_run_is_returned_and_no_file_is_touched(
    train: Train, tiny_config: TinyConfig, tmp_path: Path
) -> None:
    record = train()
    files = [path for path in tmp_path.rglob("*") if path.is_file() and not path.name.startswith(".lock")]
    before = {path: path.stat().st_mtime_ns for path in files}
    (event,) = train_run(tiny_config(), tmp_path, StopRequest())
    assert isinstance(event, Finished)
    assert event.reused
    assert event.record == record
    assert {path: path.stat().st_mtime_ns for path in files} == before


def test_restart_trains_a_finished_run_anew(train: Train, tiny_config: TinyConfig, tmp_path: Path) -> None:
    record = train()
    events = list(train_run(tiny_config(), tmp_path, StopRequest(), restart=True))
    assert isinstance(events[-1], Finished)
    assert not events[-1].reused
    assert events[-1].record["parameters_sha256"] == record["parameters_sha256"]
    assert [row["step"] for row in only_run(tmp_path).rows()] == [1, 2, 3, 4, 5, 6]


def test_accumulated_gradients_are_those_of_the_whole_batch(train: Train, tmp_path: Path) -> None:
    rows = []
    for n_micro in (1, 2, 4):
        folder = tmp_path / str(n_micro)
        train(f"train.grad_accum={n_micro}", output_dir=folder)
        rows.append([(row["loss_nats"], row["grad_norm"]) for row in only_run(folder).rows()])
    for other in rows[1:]:
        assert [number for row in other for number in row] == pytest.approx(
            [number for row in rows[0] for number in row], rel=1e-4
        )


def test_gradients_are_clipped_to_the_norm_that_was_asked_for(train: Train, tmp_path: Path) -> None:
    seen: list[float] = []
    step = torch.optim.AdamW.step

    def spy(self: torch.optim.AdamW, closure: Any = None) -> Any:
        grads = [p.grad for group in self.param_groups for p in group["params"] if p.grad is not None]
        seen.append(torch.cat([grad.flatten() for grad in grads]).norm().item())
        return step(self, closure)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.optim.AdamW, "step", spy)
        train("optim.clip_norm=0.01")
    assert seen == pytest.approx([0.01] * 6, rel=1e-3)
    assert all(row["grad_norm"] > 0.01 for row in only_run(tmp_path).rows())


@pytest.mark.parametrize(("name", "ratio"), [("adamw", 1), ("muon", 1), ("muon", 3), ("adafactor", 1)])
def test_the_rate_of_every_step_is_that_of_the_schedule(
    name: str, ratio: int, train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    used: list[float] = []
    step = Optimizer.step

    def spy(self: Optimizer) -> None:
        used.append(self.param_groups[-1]["lr"])
        step(self)

    monkeypatch.setattr(Optimizer, "step", spy)
    words = [f"optim.lr_ratio={ratio}"] if name == "muon" else []
    shape = ("optim.schedule=linear", "optim.warmup_share=0.5", "optim.floor_share=0")
    train(f"optim={name}", *words, *shape, "optim.lr=0.3")
    assert [row["lr"] for row in only_run(tmp_path).rows()] == pytest.approx([0.1, 0.2, 0.3, 0.2, 0.1, 0.0])
    assert used == pytest.approx([ratio * rate for rate in (0.1, 0.2, 0.3, 0.2, 0.1, 0.0)])


def test_a_longer_run_learns_the_text(train: Train) -> None:
    record = train("train.steps=60", "train.batch_size=8", "optim.lr=1e-2", "train.eval_every=60")
    assert record["test_loss_nats"] < 3.0
    assert not record["unstable"]


def initial_weights(variant: str, tiny_config: TinyConfig, seed: int = 0) -> dict[str, Tensor]:
    # with match=width a gated arm draws half as many FFN weights again, so a shared stream would shift
    model = make_decoder(tiny_config(f"variant={variant}", "match=width"), 257)
    init_weights(model, seed)
    return {name: parameter.detach() for name, parameter in model.named_parameters()}


def test_all_arms_of_a_seed_share_every_weight_outside_the_ffn(tiny_config: TinyConfig) -> None:
    first, *others = list_group("variant")
    weights = initial_weights(first, tiny_config)
    shared = {name for name in weights if ".ffn." not in name}
    assert len(shared) == 3 + 2 * 4
    for other in others:
        theirs = initial_weights(other, tiny_config)
        assert shared == {name for name in theirs if ".ffn." not in name}, other
        assert all(torch.equal(weights[name], theirs[name]) for name in shared), other


def test_arms_of_two_seeds_share_no_matrix(tiny_config: TinyConfig) -> None:
    weights, others = (initial_weights("relu", tiny_config, seed) for seed in (0, 1))
    assert not any(torch.equal(weights[name], others[name]) for name in weights if weights[name].dim() == 2)


def make_diverge(patch: pytest.MonkeyPatch, at_step: int, kind: str) -> None:
    """Spoils the loss or the gradient of one training step."""
    nats, counted = Decoder.nats, itertools.count(1)

    def spoiled(self: Decoder, tokens_BT: Tensor, targets_BT: Tensor) -> Tensor:
        nats_BT = nats(self, tokens_BT, targets_BT)
        if self.training and next(counted) == at_step:
            if kind == "gradient":
                nats_BT.register_hook(lambda grad: grad * math.nan)
            else:
                nats_BT = nats_BT * (math.nan if kind == "nan" else math.inf)
        return nats_BT

    patch.setattr(Decoder, "nats", spoiled)


@pytest.mark.parametrize("kind", ["nan", "inf", "gradient"])
@pytest.mark.parametrize("rarely", [(), ("train.log_every=99", "train.eval_every=99")])
def test_a_loss_or_gradient_that_is_no_number_ends_the_run_before_the_update(
    kind: str, rarely: tuple[str, ...], train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        make_diverge(patch, 4, kind)
        with pytest.raises(DivergedError, match="diverged at step 4") as caught:
            train("train.checkpoint_every=1", "train.keep_checkpoints=9", *rarely)
    assert caught.value.exit_code == 4
    run = only_run(tmp_path)
    assert run.status() == "diverged"
    checkpoints = [load_checkpoint(path) for path in list_checkpoints(run.checkpoints)]
    assert [checkpoint.step for checkpoint in checkpoints] == [1, 2, 3]
    assert all(tensor.isfinite().all() for c in checkpoints for tensor in c.model.values())
    assert not (run.path / "result.json").exists()


def test_weights_that_an_update_made_infinite_are_never_saved(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    update, n_updates = Optimizer.step, []

    def overflow(optimizer: Optimizer) -> None:
        update(optimizer)
        n_updates.append(1)
        if len(n_updates) == 4:
            with torch.no_grad():
                optimizer.pieces[0].tensor.view(-1)[0] = math.inf

    monkeypatch.setattr(Optimizer, "step", overflow)
    with pytest.raises(DivergedError, match=r"diverged at step 4, \S+ holds numbers that are not finite"):
        train()
    run = only_run(tmp_path)
    assert [path.name for path in list_checkpoints(run.checkpoints)] == ["step-00000002"]
    assert run.status() == "diverged"


def test_a_final_loss_that_is_no_number_is_no_result(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measure = loop.evaluate_stream

    def spoil(*arguments: Any, **options: Any) -> Any:
        found = measure(*arguments, **options)
        whole = options["max_tokens"] is None and found.split == "test"
        return dataclasses.replace(found, nats_per_window=found.nats_per_window * (math.nan if whole else 1))

    monkeypatch.setattr(loop, "evaluate_stream", spoil)
    with pytest.raises(DivergedError, match="diverged at step 6, test loss is nan"):
        train()
    assert only_run(tmp_path).status() == "diverged"
    assert not (only_run(tmp_path).path / "result.json").exists()


def test_a_diverged_run_is_not_tried_again_unless_restarted(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        make_diverge(patch, 4, "nan")
        with pytest.raises(DivergedError):
            train()
    with pytest.raises(DivergedError, match=r"diverged at step 4.*--restart"):
        train()
    assert train(restart=True)["status"] == "complete"
    assert only_run(tmp_path).failure() is None


def test_a_run_that_breaks_says_how_and_goes_on_later(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Decoder, "nats", lambda *arguments: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            train()
    run = only_run(tmp_path)
    assert run.status() == "failed"
    assert run.failure() == {"status": "failed", "reason": "ZeroDivisionError: division by zero"}
    assert train()["status"] == "complete"
    assert run.failure() is None


def test_a_run_that_ends_above_its_start_is_marked_unstable(train: Train) -> None:
    assert train("optim.lr=3", "optim.warmup_share=0", "train.steps=12")["unstable"]


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (("model.seq_len=60000",), DataError),
        (("match.multiple_of=256",), ConfigError),
        (("train.device=cuda:7",), DeviceError),
        (("train.device=mps",), DeviceError),
    ],
)
def test_a_run_that_cannot_work_leaves_no_folder(
    words: tuple[str, ...], error: type[Exception], train: Train, tmp_path: Path
) -> None:
    with pytest.raises(error):
        train(*words)
    assert not (tmp_path / "runs").exists()


def test_an_unmatched_arm_runs_if_that_is_allowed(train: Train) -> None:
    assert abs(train("match.multiple_of=100", allow_unmatched=True)["match_residual"]) > 0.005


def test_a_file_in_the_place_of_the_output_folder_is_refused(train: Train, tmp_path: Path) -> None:
    (tmp_path / "outputs").write_text("x")
    with pytest.raises(ConfigError, match="cannot write there"):
        train(output_dir=tmp_path / "outputs")


def test_a_run_that_is_held_elsewhere_is_busy_and_untouched(train: Train, tmp_path: Path) -> None:
    train()
    run = only_run(tmp_path)
    before = {path: path.stat().st_mtime_ns for path in run.path.rglob("*.json*")}
    with hold_lock(run.path), pytest.raises(BusyError):
        train()
    assert {path: path.stat().st_mtime_ns for path in run.path.rglob("*.json*")} == before


@pytest.mark.parametrize(
    ("budget", "n_steps"),
    [
        ({"steps": 9}, 9),
        ({"tokens": 640}, 10),
        ({"tokens": 700}, 11),
        ({"tokens": 1}, 1),
        ({"epochs": 1.0}, None),
        ({"epochs": 0.001}, 1),
    ],
)
def test_a_budget_becomes_whole_steps(
    budget: dict[str, Any], n_steps: int | None, tiny_config: TinyConfig
) -> None:
    config = tiny_config()
    order = make_order(prepare_tokens(config).stream("train"), 16, 4, 0)
    config.train = dataclasses.replace(config.train, **{"steps": None, **budget})
    assert count_steps(config, order) == (n_steps or round(order.n_blocks / 4))


def test_a_changed_text_is_another_run(train: Train, tmp_path: Path, text_path: Path) -> None:
    path = tmp_path / "own.txt"
    path.write_bytes(text_path.read_bytes())
    first = train(f"data.files={path}")
    content = bytearray(path.read_bytes())
    content[5] ^= 1
    path.write_bytes(content)
    assert train(f"data.files={path}")["run_id"] != first["run_id"]
    assert len(list_runs(tmp_path)) == 2


def test_fp32_stays_fp32_and_the_run_says_so(train: Train, tmp_path: Path) -> None:
    torch.set_float32_matmul_precision("medium")
    train("train.steps=1")
    assert torch.get_float32_matmul_precision() == "highest"
    assert only_run(tmp_path).environment()["fp32_matmul"] == "ieee"


def test_utilisation_is_the_share_of_the_peak(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FLOPs a token times tokens a second over the peak of all devices; null where it is not known."""
    assert train("train.steps=8", output_dir=tmp_path / "unknown")["mfu"] is None
    asked = []

    def find_peak(device: str, precision: str) -> float:
        asked.append((device, precision))
        return 1e9

    monkeypatch.setattr(result, "find_peak", find_peak)
    record = train("train.steps=8", output_dir=tmp_path / "known")
    assert record["mfu"] == pytest.approx(record["flops_per_token"] * record["tokens_per_s"] / 1e9)
    assert asked == [("cpu", "fp32")]
    # three steps are not timed, so two give no throughput and no share
    assert train("train.steps=2", output_dir=tmp_path / "short")["mfu"] is None
    counts = count_model(only_run(tmp_path / "known").config(), 257)
    progress = Progress(timed_tokens=100, timed_elapsed_s=2.0)
    train_keys = only_run(tmp_path / "known").config().train
    alone = result.find_utilisation(train_keys, counts, progress, n_devices=1)
    assert alone is not None
    assert alone == pytest.approx(counts.flops_per_token * 50 / 1e9)
    assert result.find_utilisation(train_keys, counts, progress, n_devices=4) == pytest.approx(alone / 4)


def test_memory_is_the_allocators_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: {"cuda:1": 123}[device])
    assert result.read_peak_bytes("cuda:1") == 123
    assert result.read_peak_bytes("cpu") > 2**25
