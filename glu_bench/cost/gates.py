"""What noting the gates costs a training step: train.diagnostics=light against off."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from functools import partial

import numpy as np
import torch

from glu_bench.cache import keep_compiled_graphs
from glu_bench.cost.race import Step, race
from glu_bench.cost.row import Row
from glu_bench.cost.step import load_preset, make_our_step
from glu_bench.cost.step_parity import VOCAB_SIZE
from glu_bench.data.prepared import TokenStream
from glu_bench.lm.decoder import make_decoder
from glu_bench.lm.init import init_weights
from glu_bench.ranks import ALONE
from glu_bench.train.diagnostics import make_diagnostics


def bench_gates(presets: Sequence[str], *, batch_size: int = 16, rounds: int = 7) -> list[Row]:
    """Seconds of a compiled training step on CPU with light diagnostics and without, a row a preset.

    Noting is timed by itself, in turns with the step, and shared out over the steps between, at
    log_every and eval_every of train=default. Seconds are medians over rounds.
    Raises: ConfigError for an unknown preset.
    """
    keep_compiled_graphs()
    return [_bench_preset(preset, batch_size, rounds) for preset in presets]


def _bench_preset(preset: str, batch_size: int, rounds: int) -> Row:
    config = load_preset(preset, "train.device=cpu")
    step = make_our_step(config, batch_size)
    model = make_decoder(config, VOCAB_SIZE)  # beside the step's own, which keeps no gradient
    init_weights(model, seed=0)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    ids = np.random.default_rng(0).integers(0, VOCAB_SIZE, 2**16).astype(np.uint16)
    noting, _ = make_diagnostics(config, TokenStream("val", ids, 1, 1, 1), model.d_ff, ALONE)
    parts: dict[str, Step] = {
        "step": step,
        "gradients": partial(noting.read_gradients, model),
        "units": partial(noting.read_units, model),
    }
    seconds = race(parts, rounds, 1)
    train = config.train
    shares = [
        (gradients / train.log_every + units / train.eval_every) / whole
        for whole, gradients, units in zip(*(seconds[name] for name in parts), strict=True)
    ]
    without, ratio = statistics.median(seconds["step"]), 1 + statistics.median(shares)
    return Row(name=preset, ours=without * ratio, peer=without, ratio=ratio, unit="s")
