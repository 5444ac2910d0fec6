"""Several processes train the run that one would: numbers, checkpoints, resuming."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from glu_bench.data.order import make_order
from glu_bench.data.prepared import prepare_tokens
from glu_bench.errors import ConfigError
from glu_bench.evaluate.perplexity import cut_windows, evaluate_stream
from glu_bench.evaluate.run import evaluate_run
from glu_bench.lm.decoder import Decoder, make_decoder
from glu_bench.lm.init import init_weights
from glu_bench.ranks import ALONE, Ranks, count_ranks, is_spread, spread_like
from glu_bench.runs.checkpoint import list_checkpoints, load_checkpoint
from glu_bench.runs.folder import Run, list_runs
from glu_bench.train.shards import Shards, make_shards
from tests.conftest import Ended, TinyConfig, Train, command_env, command_line

STEPS = ("train.steps=20", "train.batch_size=8", "train.eval_every=10", "train.checkpoint_every=5")
TWO = ("parallel.devices=2", "parallel.timeout_s=8")
DDP, FSDP = ("parallel=ddp", *TWO), ("parallel=fsdp", *TWO)
FOUR = ("parallel=ddp", "parallel.devices=4", "parallel.timeout_s=30")

Launch = Callable[..., Ended]


@pytest.fixture
def launch(tiny_words: list[str], tmp_path: Path) -> Launch:
    """Trains by command in processes of its own, quietly, at most 90 s."""

    def run(
        *words: str, output_dir: Path = tmp_path, env: dict[str, str] | None = None, program: Any = None
    ) -> Ended:
        settings = {word.split("=", 1)[0]: word for word in (*tiny_words, *STEPS, *words)}
        command = [*(program or command_line()), "train", *settings.values()]
        command += ["--quiet", "--output-dir", str(output_dir)]
        done = subprocess.run(
            command, env=command_env(**(env or {})), capture_output=True, text=True, timeout=90, check=False
        )
        return Ended(done.returncode, done.stdout, done.stderr)

    return run


def only_run(output_dir: Path) -> Run:
    (run,) = list_runs(output_dir)
    return run


def numbers_of(run: Run) -> list[tuple[float, float]]:
    return [(row["loss_nats"], row["grad_norm"]) for row in run.rows()]


def check_equal(run: Run, alone: Run, atol: float = 1e-5) -> None:
    """Losses and gradient norms of all steps and the end of two runs agree."""
    assert len(numbers_of(run)) == len(numbers_of(alone)) == 20
    np.testing.assert_allclose(numbers_of(run), numbers_of(alone), rtol=0, atol=atol)
    for key in ("val_loss_nats", "test_loss_nats", "train_loss_nats"):
        assert run.result()[key] == pytest.approx(alone.result()[key], abs=atol)
    assert run.run_id == alone.run_id


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [
        (*DDP, "train.grad_accum=2"),
        (*FSDP, "train.grad_accum=2"),
        (*FSDP, "variant=swish_beta", "model.tied_embeddings=true", "train.grad_accum=2"),
        (*FSDP, "variant=relu", "model.ffn_bias=true", "parallel.activation_checkpointing=true"),
        (*DDP, "optim=muon", "parallel.activation_checkpointing=true"),
        (*DDP, "optim=adafactor", "variant=xswiglu", "train.grad_accum=2"),
    ],
    ids=" ".join,
)
def test_every_way_of_sharing_trains_the_run_of_one(
    words: tuple[str, ...], launch: Launch, train: Train, tmp_path: Path
) -> None:
    own = [word for word in words if not word.startswith("parallel")]
    train(*STEPS, *own, output_dir=tmp_path / "alone")
    ended = launch(*words, output_dir=tmp_path / "two")
    assert ended.code == 0, ended.err
    # torch's Muon orthogonalises in bf16, where another order of a sum is a difference of 2^-9
    atol = 2e-3 if "optim=muon" in words else 1e-5
    check_equal(only_run(tmp_path / "two"), only_run(tmp_path / "alone"), atol)


@pytest.mark.slow
@pytest.mark.parametrize("mode", [DDP, FSDP], ids=["ddp", "fsdp"])
def test_a_checkpoint_of_two_is_read_by_one(mode: tuple[str, ...], launch: Launch, tmp_path: Path) -> None:
    assert launch(*mode, "variant=swish_beta").code == 0
    run = only_run(tmp_path)
    record = run.result()
    blocks = load_file(run.path / "blocks.safetensors")
    for split in ("val", "test"):  # the windows that ranks shared out are those of one process
        found = evaluate_run(run, split=split)
        assert found.loss_nats == record[f"{split}_loss_nats"]
        assert np.array_equal(found.nats_per_window, blocks[f"{split}/nats"])
        assert np.allclose(found.nats_per_id, blocks[f"{split}/nats_per_id"], rtol=1e-12)
        assert np.array_equal(found.tokens_per_position, blocks[f"{split}/tokens_per_position"])
    from glu_bench.train.result import collect_weights, hash_weights

    model = run.load_model()
    assert hash_weights(collect_weights(model)) == record["parameters_sha256"]
    assert not any(is_spread(parameter) for parameter in model.parameters())
    done = subprocess.run(
        command_line("sample", str(run.path), "--tokens", "20", "--json"),
        env=command_env(),
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0


STOP_AT = {"GLU_BENCH_TESTING": "1", "GLU_BENCH_FAULT_RANK": "1"}


def stop_at(nth: int) -> dict[str, str]:
    return STOP_AT | {"GLU_BENCH_FAULT": f"step.after_backward:term:{nth}"}


@pytest.mark.slow
@pytest.mark.parametrize("mode", [DDP, FSDP, FOUR], ids=["ddp", "fsdp", "ddp of four"])
def test_processes_resume_to_the_bits_of_as_many_undisturbed(
    mode: tuple[str, ...], launch: Launch, tmp_path: Path
) -> None:
    words = (*mode, "model.dropout=0.1", "train.grad_accum=2")
    assert launch(*words, output_dir=tmp_path / "straight").code == 0
    for nth in (7, 5):
        ended = launch(*words, output_dir=tmp_path / "resumed", env=stop_at(nth))
        assert ended.code == 143, ended.err
    assert launch(*words, output_dir=tmp_path / "resumed").code == 0
    straight, resumed = only_run(tmp_path / "straight"), only_run(tmp_path / "resumed")
    assert numbers_of(resumed) == numbers_of(straight)
    for key in ("parameters_sha256", "test_loss_nats", "exact"):
        assert resumed.result()[key] == straight.result()[key]


@pytest.mark.slow
def test_another_way_of_sharing_is_not_called_exact(launch: Launch, tmp_path: Path) -> None:
    assert launch(*DDP, env=stop_at(7)).code == 143
    refused = launch(*FSDP)
    assert refused.code == 2
    assert "parallel=ddp, this process has fsdp" in refused.err


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("g++"), reason="torch.compile needs a compiler")
@pytest.mark.parametrize("mode", [DDP, FSDP], ids=["ddp", "fsdp"])
def test_compiled_blocks_can_be_shared(
    mode: tuple[str, ...], launch: Launch, train: Train, tmp_path: Path
) -> None:
    train(*STEPS, output_dir=tmp_path / "alone")
    words = ("train.compile=true", "parallel.timeout_s=60")
    assert launch(*mode[:-1], *words, output_dir=tmp_path / "two").code == 0
    alone, two = numbers_of(only_run(tmp_path / "alone")), numbers_of(only_run(tmp_path / "two"))
    np.testing.assert_allclose(two, alone, rtol=0, atol=1e-4)


@pytest.mark.slow
def test_torchrun_starts_the_ranks_as_well(launch: Launch, train: Train, tmp_path: Path) -> None:
    train(*STEPS, output_dir=tmp_path / "alone")
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "glu_bench"]
    ended = launch("--json", output_dir=tmp_path / "two", program=torchrun)  # without a word on parallel
    assert ended.code == 0, ended.err
    assert json.loads(ended.out)["status"] == "complete"
    check_equal(only_run(tmp_path / "two"), only_run(tmp_path / "alone"))
    assert not list((tmp_path / "two" / ".ranks").iterdir())


TAKEN_APART = """
import os
from glu_bench.cli.main import main

class Marker:
    def __del__(self, write=os.write):
        write(2, b"taken apart")

marker = Marker()
main()
"""


@pytest.mark.slow
def test_a_rank_does_not_take_the_interpreter_apart(launch: Launch, tmp_path: Path) -> None:
    # a thread of gloo that wants the interpreter by then would abort a process that is done
    script = tmp_path / "marked.py"
    script.write_text(TAKEN_APART, encoding="utf-8")
    assert "taken apart" in launch(output_dir=tmp_path / "alone", program=[sys.executable, str(script)]).err
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", str(script)]
    ended = launch(*DDP, output_dir=tmp_path / "two", program=torchrun)
    assert "taken apart" not in ended.err
    assert ended.code == 0, ended.err
    assert only_run(tmp_path / "two").result()["status"] == "complete"


CHUNKED = """
from glu_bench.cli.main import main
from glu_bench.lm import head

head.CHUNK_BYTES = 4 * 257 * 5  # five tokens; a micro-batch of a rank has 32
main()
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "words", [("parallel=ddp",), ("parallel=fsdp", "model.tied_embeddings=true")], ids=" ".join
)
def test_a_loss_in_chunks_can_be_shared(
    words: tuple[str, ...], launch: Launch, train: Train, tmp_path: Path
) -> None:
    own = (*words[1:], "train.grad_accum=2")
    train(*STEPS, *own, output_dir=tmp_path / "alone")
    script = tmp_path / "chunked.py"
    script.write_text(CHUNKED, encoding="utf-8")
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", str(script)]
    ended = launch(words[0], *own, output_dir=tmp_path / "two", program=torchrun)
    assert ended.code == 0, ended.err
    check_equal(only_run(tmp_path / "two"), only_run(tmp_path / "alone"))


def test_blocks_computed_twice_give_the_same_bits(train: Train, tmp_path: Path) -> None:
    words = ("model.dropout=0.1", "train.grad_accum=2")
    calls = []
    forward = Decoder.stream

    def count(self: Decoder, tokens_BT: torch.Tensor, *rest: Any) -> torch.Tensor:
        calls.append(bool(rest))
        return forward(self, tokens_BT, *rest)

    once = train(*words, output_dir=tmp_path / "once")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Decoder, "stream", count)
        twice = train(*words, "parallel.activation_checkpointing=true", output_dir=tmp_path / "twice")
    assert any(calls)
    assert twice["parameters_sha256"] == once["parameters_sha256"]
    assert twice["run_id"] == once["run_id"]


def test_recomputed_blocks_keep_only_what_goes_into_them(tiny_config: TinyConfig) -> None:
    config = tiny_config("model.n_layers=4")
    model = make_decoder(config, 257)
    init_weights(model, 0)
    tokens_BT = torch.zeros(8, 16, dtype=torch.int64)
    kept = []
    for recompute in (False, True):
        n_numbers = [0]

        def count(tensor: torch.Tensor, total: list[int] = n_numbers) -> torch.Tensor:
            total[0] += tensor.numel()
            return tensor

        nats = make_shards(model, config.train, ALONE, recompute).nats
        with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
            nats(tokens_BT, tokens_BT)
        kept.append(n_numbers[0])
    assert kept[1] < kept[0] / 4


@pytest.mark.parametrize("n_ranks", [2, 3, 5])
def test_ranks_share_out_the_windows_and_lose_none(n_ranks: int, tiny_config: TinyConfig) -> None:
    config = tiny_config()
    stream = prepare_tokens(config).stream("val")
    model = make_decoder(config, 257)
    init_weights(model, 0)
    model.eval()
    whole = evaluate_stream(model.nats, stream, seq_len=16, batch_size=4)
    n_batches = sum(1 for _ in cut_windows(stream.ids, 16, 16, 4))
    assert n_batches % n_ranks or n_ranks == 2
    total, n_calls = np.zeros_like(whole.nats_per_window), []
    for rank in range(n_ranks):
        seen: list[int] = []

        def nats(tokens_BT: Any, targets_BT: Any, seen: list[int] = seen) -> torch.Tensor:
            seen.append(1)
            return model.nats(tokens_BT, targets_BT)

        ranks = Ranks(rank=rank, size=n_ranks)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Ranks, "add_up", lambda self, numbers: numbers)
            part = evaluate_stream(nats, stream, seq_len=16, batch_size=4, ranks=ranks)
        assert np.array_equal(part.tokens_per_window, whole.tokens_per_window)
        total += part.nats_per_window
        n_calls.append(len(seen))
    assert np.array_equal(total, whole.nats_per_window)
    assert len(set(n_calls)) == 1, "every rank must call the model as often: its weights may be spread"


@pytest.mark.parametrize("n_ranks", [1, 2, 4])
def test_the_rows_of_all_ranks_are_the_batch(n_ranks: int, tiny_config: TinyConfig) -> None:
    config = tiny_config()
    order = make_order(prepare_tokens(config).stream("train"), 16, 8, 0)
    rows = [order.batch(3)[Ranks(rank=rank, size=n_ranks).slice_rows(8)] for rank in range(n_ranks)]
    assert np.array_equal(np.concatenate(rows), order.batch(3))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ("parallel=ddp", "parallel.devices=3"),
            "which 3 processes cannot share; 1, 2, 4",
        ),
        (("parallel=ddp", "parallel.devices=4", "train.grad_accum=2"), "2 sequences at a time"),
        (("parallel=single", "parallel.devices=2"), "parallel=single is one process"),
        (("parallel=fsdp", "optim=muon"), "needs whole matrices"),
        (("parallel=fsdp", "optim=adafactor"), "needs whole matrices"),
        (("parallel=ddp", "parallel.timeout_s=null"), "needs seconds"),
    ],
)
def test_what_processes_cannot_share_is_refused(
    words: tuple[str, ...], message: str, tiny_config: TinyConfig
) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        tiny_config(*words)
    assert "\n" not in str(caught.value)


def test_without_a_gpu_the_number_of_processes_must_be_said(
    tiny_config: TinyConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(ConfigError, match=r"parallel\.devices=2"):
        count_ranks(tiny_config("parallel=ddp").parallel)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    assert count_ranks(tiny_config("parallel=ddp").parallel) == 4
    assert count_ranks(tiny_config().parallel) == 1


def test_each_rank_gets_a_device_or_its_part_of_the_cores(
    tiny_config: TinyConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("glu_bench.ranks.count_cores", lambda: 8)
    ranks = Ranks(mode="ddp", rank=5, size=8, local_rank=1, local_size=4)
    train = dataclasses.replace(tiny_config().train, batch_size=16)
    assert ranks.place(train).threads == 2
    assert ranks.place(dataclasses.replace(train, threads=3)).threads == 3
    placed = ranks.place(dataclasses.replace(train, device="cuda"))
    assert (placed.device, placed.threads) == ("cuda:1", None)
    with pytest.raises(ConfigError, match="one device for 8 processes"):
        ranks.place(dataclasses.replace(train, device="cuda:0"))
    assert ALONE.place(train) is train


@pytest.mark.parametrize("mode", ["ddp", "fsdp"])
def test_gradients_are_exchanged_in_the_last_micro_batch_alone(mode: str, tiny_config: TinyConfig) -> None:
    silent: list[bool] = []

    class Wrapper:
        def no_sync(self) -> contextlib.AbstractContextManager[None]:
            silent.append(True)
            return contextlib.nullcontext()

        def set_requires_gradient_sync(self, needed: bool) -> None:
            silent.append(not needed)

    model = make_decoder(tiny_config(), 257)
    shards = Shards(
        model=model,
        nats=model.nats,
        eval_nats=model.nats,
        ranks=Ranks(mode=mode, size=2),
        wrapped=Wrapper(),
    )
    for last in (False, False, True):
        with shards.accumulating(last):
            pass
    assert silent == ([True, True] if mode == "ddp" else [True, True, False])


def test_a_whole_tensor_stays_whole() -> None:
    tensor = torch.arange(4.0)
    assert spread_like(tensor, torch.zeros(4)) is tensor
    assert ALONE.collect([("a", tensor)])["a"].equal(tensor)


def test_checkpoints_of_one_process_say_nothing_of_ranks(finished_run: Run) -> None:
    state = load_checkpoint(list_checkpoints(finished_run.checkpoints)[-1]).state
    assert "n_ranks" not in state
