"""What a sweep will cost before it starts: FLOPs by counting, time by a short calibration, disk by sums."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from glu_bench import schema
from glu_bench.allocator import keep_freed_memory
from glu_bench.cache import keep_compiled_graphs
from glu_bench.config import load_config
from glu_bench.data.order import make_order
from glu_bench.data.prepared import TokenSet, prepare_tokens
from glu_bench.device import make_autocast, resolve_train
from glu_bench.host import count_cores
from glu_bench.lm.compiled import compile_decoder
from glu_bench.lm.counts import Counts, count_model
from glu_bench.lm.decoder import make_decoder
from glu_bench.lm.init import init_weights
from glu_bench.study.plan import Plan
from glu_bench.train.loop import count_steps
from glu_bench.train.optimizer import make_optimizer

STEPS = 3  # timed ones, after one that warms up
STATE_SHARE = {"adamw": 2.0, "muon": 2.0, "adafactor": 0.1}  # tensors of the optimiser over the weights
SMALL_PARAMS = 20_000_000  # above it a step keeps all cores busy by itself
GAIN = 1.1  # what going side by side must bring before it is chosen


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """One run's cost."""

    flops: int  # of training: forward and backward of every step
    elapsed_s: float | None  # alone on this machine; None without calibration
    disk_bytes: int  # its checkpoints


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A plan, and the cost of those of its runs that are left."""

    stage: str
    planned: int  # runs
    pending: int  # of them
    flops: int
    elapsed_s: float | None  # one by one on this machine; None without calibration
    disk_bytes: int


def estimate_stages(
    plans: Mapping[str, Plan], config_dir: Path | None = None, calibrate: bool = True
) -> list[Stage]:
    """What is left of each plan; all are estimated together, so every shape is timed once."""
    pending = [
        (stage, planned)
        for stage, plan in plans.items()
        for planned in plan.runs
        if plan.run(planned).outcome() not in ("complete", "diverged")
    ]
    configs = [planned.config or load_config(planned.words, config_dir) for _, planned in pending]
    estimates = estimate_runs(configs, calibrate=calibrate)
    return [
        sum_stage(
            stage,
            len(plan.runs),
            [found for (of, _), found in zip(pending, estimates, strict=True) if of == stage],
            calibrate,
        )
        for stage, plan in plans.items()
    ]


def sum_stage(stage: str, n_planned: int, estimates: Sequence[Estimate], calibrate: bool) -> Stage:
    """A stage of so many runs, of which those with an estimate are left."""
    return Stage(
        stage=stage,
        planned=n_planned,
        pending=len(estimates),
        flops=sum(found.flops for found in estimates),
        elapsed_s=sum(found.elapsed_s or 0.0 for found in estimates) if calibrate else None,
        disk_bytes=sum(found.disk_bytes for found in estimates),
    )


def estimate_runs(configs: Sequence[schema.Config], calibrate: bool = True) -> list[Estimate]:
    """The cost of each run. One run of each shape is timed for a few steps, the others follow by FLOPs.

    Configurations that differ in variant and seed alone share a shape.
    """
    counts: dict[str, tuple[Counts, int]] = {}
    rates: dict[str, float] = {}
    texts: dict[str, TokenSet] = {}  # prepared once: even to find one prepared takes half a second
    estimates = []
    for config in configs:
        key = repr(dataclasses.replace(config, seed=0))
        if key not in counts:
            text = repr((config.data, config.tokenizer))
            if text not in texts:
                texts[text] = prepare_tokens(config)
            counts[key] = _count(config, texts[text])
        found, n_steps = counts[key]
        flops = found.flops_per_token * n_steps * config.train.batch_size * config.model.seq_len
        shape = repr((config.model, config.optim.name, config.train, config.tokenizer))
        if calibrate and shape not in rates:
            rates[shape] = measure_rate(config, found)
        weights_bytes = 4 * found.n_params
        state_bytes = int(STATE_SHARE[config.optim.name] * weights_bytes)
        estimates.append(
            Estimate(
                flops=flops,
                elapsed_s=flops / rates[shape] if calibrate else None,
                disk_bytes=config.train.keep_checkpoints * (weights_bytes + state_bytes),
            )
        )
    return estimates


def measure_rate(config: schema.Config, counts: Counts, compiled: bool | None = None) -> float:
    """FLOPs a second of training steps of this configuration on random tokens, on its device.

    `compiled` overrides the configuration's own choice.
    """
    keep_freed_memory()
    keep_compiled_graphs()
    train, _ = resolve_train(config.train)
    device = torch.device(train.device)
    vocab_size = prepare_tokens(config).tokenizer.vocab_size
    model = make_decoder(config, vocab_size, train.fast)
    init_weights(model, config.seed, config.init)
    model.to(device)
    optimizer = make_optimizer(model, config.optim)
    optimizer.set_rate(0.0)
    nats = (
        compile_decoder(model) if (train.compile == "true" if compiled is None else compiled) else model.nats
    )
    n_sequences = train.batch_size // train.grad_accum
    tokens_BT = torch.randint(0, vocab_size, (n_sequences, config.model.seq_len + 1), device=device)

    def step() -> None:
        for _ in range(train.grad_accum):
            with make_autocast(train.device, train.precision):
                loss = nats(tokens_BT[:, :-1], tokens_BT[:, 1:]).mean()
            loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), config.optim.clip_norm).item()  # waits for a GPU
        optimizer.step()
        optimizer.zero_grad()

    step()
    began = time.perf_counter()
    for _ in range(STEPS):
        step()
    elapsed_s = time.perf_counter() - began
    return STEPS * counts.flops_per_token * train.batch_size * config.model.seq_len / elapsed_s


def choose_parallel(config: schema.Config, n_runs: int) -> tuple[int, float | None]:
    """How many runs of this shape to train side by side on the CPU, and what that gains over one.

    A small model's step does not fill the cores: measured as all cores times the rate of one
    thread, over the rate of all threads. The gain is None where nothing was to be measured.
    """
    n_cores = count_cores()
    train, _ = resolve_train(config.train)
    counts = count_model(config, prepare_tokens(config).tokenizer.vocab_size)
    if train.device != "cpu" or train.threads is not None or n_cores < 2 or n_runs < 2:
        return 1, None
    if counts.n_params > SMALL_PARAMS:
        return 1, None
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = measure_rate(config, counts, compiled=False)
        torch.set_num_threads(n_cores)
        together = measure_rate(config, counts, compiled=False)
    finally:
        torch.set_num_threads(before)
    gain = one * n_cores / together
    return (min(n_cores, n_runs), gain) if gain > GAIN else (1, gain)


def _count(config: schema.Config, tokens: TokenSet) -> tuple[Counts, int]:
    order = make_order(tokens.stream("train"), config.model.seq_len, config.train.batch_size, config.seed)
    return count_model(config, tokens.tokenizer.vocab_size), count_steps(config, order)
