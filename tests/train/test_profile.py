"""Profiles: the run stays as it is, parts are counted as a known clock has them, short runs say so."""

from __future__ import annotations

import gzip
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from glu_bench.errors import ConfigError, DivergedError, InterruptedRunError
from glu_bench.lm.decoder import Decoder, make_decoder
from glu_bench.lm.init import init_weights
from glu_bench.ranks import Ranks
from glu_bench.train import profile as room
from glu_bench.train.events import Finished
from glu_bench.train.profile import Clock, Profile, measure_passes
from glu_bench.train.progress import Progress
from glu_bench.train.run import train_run
from glu_bench.train.stop import StopRequest
from tests.conftest import Command, StopAt, TinyConfig, Train

LONG = ("train.steps=12", "train.eval_every=4")


def run_profiled(config: Any, output_dir: Path, **options: Any) -> Finished:
    (*_, last) = train_run(config, output_dir, StopRequest(), profile=True, **options)
    assert isinstance(last, Finished)
    return last


@dataclass(frozen=True)
class Profiled:
    """A run of 12 steps, and of each whether it was timed."""

    finished: Finished
    timed: list[bool]

    @property
    def profile(self) -> Profile:
        assert self.finished.profile is not None
        return self.finished.profile


@pytest.fixture(scope="module")
def long_run(tiny_config: TinyConfig, tmp_path_factory: pytest.TempPathFactory) -> Profiled:
    """A profiled run that tests only read."""
    timed: list[bool] = []
    plain = Progress.count_step

    def count(self: Progress, loss_nats: float, n_tokens: int, elapsed_s: float, is_timed: bool) -> None:
        timed.append(is_timed)
        plain(self, loss_nats, n_tokens, elapsed_s, is_timed)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Progress, "count_step", count)
        return Profiled(run_profiled(tiny_config(*LONG), tmp_path_factory.mktemp("profiled")), timed)


@pytest.mark.parametrize(
    "words",
    [pytest.param(("optim=muon",), marks=pytest.mark.slow), ("train.grad_accum=2", "model.dropout=0.1")],
    ids=" ".join,
)
def test_a_profile_changes_no_bit(
    words: tuple[str, ...], train: Train, tiny_config: TinyConfig, tmp_path: Path
) -> None:
    plain = train(*LONG, *words, output_dir=tmp_path / "plain")
    found = run_profiled(tiny_config(*LONG, *words), tmp_path / "profiled")
    for key in ("run_id", "parameters_sha256", "blocks_sha256", "train_loss_nats", "steps", "tokens"):
        assert found.record[key] == plain[key], key
    assert set(found.record) == set(plain)
    assert found.profile is not None
    assert set(found.profile.eager_shares) == {"attention", "feed_forward", "head", "other"}


def test_the_profile_is_of_the_sixth_to_the_tenth_step(long_run: Profiled) -> None:
    finished, found = long_run.finished, long_run.profile
    assert (found.first_step, found.last_step, found.compiled, found.note) == (6, 10, False, "")
    assert set(found.shares) == {"data", "forward", "backward", "clip", "optimiser", "other"}
    assert sum(found.shares.values()) == pytest.approx(1)
    assert all(share > 0 for share in (*found.shares.values(), *found.eager_shares.values()))
    path = finished.run.path / "trace.json.gz"
    assert found.trace == str(path)
    with gzip.open(path) as file:
        names = [event.get("name") for event in json.load(file)["traceEvents"]]
    assert names.count("train step") == 5
    assert names.count("optimiser") == 5
    assert len(found.operators) == 10
    assert sorted((each.self_s for each in found.operators), reverse=True) == [
        each.self_s for each in found.operators
    ]
    assert 0 < sum(each.share for each in found.operators) <= 1
    assert not {"train step", "optimiser"} & {each.name for each in found.operators}


def test_what_lies_between_the_steps_is_not_counted(
    long_run: Profiled, tiny_config: TinyConfig, tmp_path: Path
) -> None:
    """The evaluation after step 8 makes as many calls again; the operators' calls stay those of 5 steps."""
    rare = run_profiled(tiny_config("train.steps=12", "train.eval_every=100"), tmp_path).profile
    assert rare is not None
    calls = [{each.name: each.calls for each in found.operators} for found in (rare, long_run.profile)]
    both = set(calls[0]) & set(calls[1])
    assert "aten::mm" in both
    assert {name: calls[0][name] for name in both} == {name: calls[1][name] for name in both}


def test_profiled_steps_do_not_count_as_throughput(long_run: Profiled) -> None:
    assert long_run.timed == [False] * 3 + [True] * 2 + [False] * 5 + [True] * 2


def test_a_short_run_ends_the_window_or_says_that_there_is_none(
    tiny_config: TinyConfig, tmp_path: Path
) -> None:
    found = run_profiled(tiny_config("train.steps=7"), tmp_path).profile
    assert found is not None
    assert (found.first_step, found.last_step) == (6, 7)
    found = run_profiled(tiny_config("train.steps=5"), tmp_path).profile
    assert found == Profile(note=found.note if found else "")
    assert "5 steps were trained" in found.note
    assert not list(tmp_path.glob("runs/*-s0-*/trace.json.gz"))[1:]


def test_a_resumed_run_is_profiled_after_its_own_first_steps(
    train: Train, tiny_config: TinyConfig, tmp_path: Path
) -> None:
    straight = train("train.steps=16", output_dir=tmp_path / "straight")
    with pytest.raises(InterruptedRunError):
        train("train.steps=16", stop=StopAt(4))
    finished = run_profiled(tiny_config("train.steps=16"), tmp_path)
    assert finished.profile is not None
    assert (finished.profile.first_step, finished.profile.last_step) == (10, 14)
    assert finished.record["parameters_sha256"] == straight["parameters_sha256"]


def test_a_finished_run_says_that_nothing_was_profiled(
    train: Train, tiny_config: TinyConfig, tmp_path: Path
) -> None:
    train(*LONG)
    finished = run_profiled(tiny_config(*LONG), tmp_path)
    assert finished.reused
    assert finished.profile is not None
    assert "--restart" in finished.profile.note
    assert finished.profile.step_s is None
    again = run_profiled(tiny_config(*LONG), tmp_path, restart=True)
    assert again.profile is not None
    assert again.profile.first_step == 6
    plain = list(train_run(tiny_config(*LONG), tmp_path, StopRequest(), restart=True))[-1]
    assert isinstance(plain, Finished)
    assert plain.profile is None
    assert not (plain.run.path / "trace.json.gz").exists()


def test_a_run_that_breaks_inside_the_window_leaves_no_profiler_on(
    tiny_config: TinyConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GLU_BENCH_TESTING", "1")
    monkeypatch.setenv("GLU_BENCH_FAULT", "step.after_backward:nan:8")
    with pytest.raises(DivergedError):
        run_profiled(tiny_config(*LONG), tmp_path)
    monkeypatch.delenv("GLU_BENCH_FAULT")
    assert not torch.autograd._profiler_enabled()


def test_several_processes_are_refused(tiny_config: TinyConfig, tmp_path: Path) -> None:
    ranks = Ranks(mode="ddp", rank=0, size=2)
    with pytest.raises(ConfigError, match="--profile"):
        run_profiled(tiny_config(), tmp_path, ranks=ranks)


class Costly(torch.autograd.Function):
    """The identity, which takes a known time each way on the test's own clock."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, now: list[float], forward_s: float, backward_s: float) -> Tensor:
        ctx.now, ctx.backward_s = now, backward_s
        now[0] += forward_s
        return x.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        ctx.now[0] += ctx.backward_s
        return gradient, None, None, None


class Slow(nn.Module):
    """A module that takes a known time more."""

    def __init__(self, inner: nn.Module, now: list[float], forward_s: float, backward_s: float) -> None:
        super().__init__()
        self.inner, self.now, self.costs = inner, now, (forward_s, backward_s)

    def forward(self, x: Tensor, *others: Tensor) -> Any:
        return Costly.apply(self.inner(x, *others), self.now, *self.costs)


@pytest.fixture
def slow_model(tiny_config: TinyConfig, monkeypatch: pytest.MonkeyPatch) -> Decoder:
    """Two layers; attention takes 2 + 3, feed-forward 4 + 8, the last norm (head) 1 + 5, a block's norm 6."""
    now = [0.0]
    monkeypatch.setattr(room.time, "perf_counter", lambda: now[0])
    model = make_decoder(tiny_config("model.n_layers=2"), 257)
    init_weights(model, 0)
    for block in model.blocks:
        block.attention = Slow(block.attention, now, 2, 3)
        block.ffn = Slow(block.ffn, now, 4, 8)
    model.blocks[1].ffn_norm = Slow(model.blocks[1].ffn_norm, now, 6, 0)
    model.norm = Slow(model.norm, now, 1, 5)  # type: ignore[assignment]
    return model


def test_the_parts_of_a_pass_are_those_of_a_known_clock(slow_model: Decoder, tiny_config: TinyConfig) -> None:
    total_s = 2 * (2 + 3) + 2 * (4 + 8) + (1 + 5) + 6
    tokens = torch.randint(0, 257, (2, 17))
    state = torch.get_rng_state()
    pass_s, shares = measure_passes(slow_model, tiny_config().train, tokens)
    assert pass_s == pytest.approx(total_s)
    assert shares == pytest.approx(
        {"attention": 10 / total_s, "feed_forward": 24 / total_s, "head": 6 / total_s, "other": 6 / total_s}
    )
    assert torch.equal(torch.get_rng_state(), state)
    assert all(parameter.grad is None for parameter in slow_model.parameters())
    kinds = ("_forward_pre_hooks", "_forward_hooks", "_backward_pre_hooks", "_backward_hooks")
    assert not any(getattr(module, kind) for module in slow_model.modules() for kind in kinds)


def test_a_gpu_is_waited_for_at_both_ends_of_a_part(monkeypatch: pytest.MonkeyPatch) -> None:
    waited = []
    monkeypatch.setattr(torch.cuda, "synchronize", waited.append)
    clock = Clock("cuda:0")
    clock.start()
    clock.stop("forward")
    assert waited == [torch.device("cuda:0")] * 2
    Clock("cpu").start()
    assert len(waited) == 2


def test_recomputed_blocks_have_no_eager_shares(tiny_config: TinyConfig, tmp_path: Path) -> None:
    words = (*LONG, "parallel.activation_checkpointing=true")
    found = run_profiled(tiny_config(*words), tmp_path).profile
    assert found is not None
    assert found.step_s is not None
    assert (found.eager_s, found.eager_shares) == (None, {})
    assert "recomputed" in found.note


@pytest.mark.slow
def test_the_command_prints_it_and_gives_it_as_json(
    call_command: Command, tiny_words: list[str], tmp_path: Path
) -> None:
    words = [word for word in tiny_words if not word.startswith("train.steps")]
    words += ["train.steps=12", "--profile", "--output-dir", str(tmp_path)]
    ended = call_command("train", *words)
    assert ended.code == 0, ended.err
    for expected in ("steps 6 to 10, eager", "optimiser", "feed-forward", "aten::mm", "trace.json.gz"):
        assert expected in ended.out
    assert "USDT" not in ended.err
    found = json.loads(call_command("train", *words, "--restart", "--json").out)["profile"]
    assert found["first_step"] == 6
    assert {"name", "calls", "self_s", "share"} == set(found["operators"][0])
    reused = call_command("train", *words)
    assert "nothing was profiled: the run was complete" in reused.out
