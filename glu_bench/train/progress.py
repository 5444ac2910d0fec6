"""How far a run has come, and its way into a checkpoint and back."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from glu_bench.errors import ConfigError, DataError
from glu_bench.lm.decoder import Decoder
from glu_bench.ranks import ALONE, Ranks
from glu_bench.runs.checkpoint import Checkpoint
from glu_bench.runs.environment import read_numerics
from glu_bench.runs.fields import STATE, check_fields
from glu_bench.runs.folder import load_weights
from glu_bench.train.optimizer import Optimizer, pack_optimizer, unpack_optimizer

N_RECENT = 100  # steps whose mean loss is reported as the training loss


@dataclass(kw_only=True)
class Progress:
    """What a checkpoint remembers beside tensors."""

    step: int = 0
    tokens: int = 0
    first_loss_nats: float | None = None
    recent_losses_nats: list[float] = field(default_factory=list)
    best_val_loss_nats: float | None = None  # for information; comparisons use the last
    best_val_step: int | None = None
    elapsed_s: float = 0.0
    timed_tokens: int = 0
    timed_elapsed_s: float = 0.0
    peak_bytes: int = 0
    exact: bool = True

    @property
    def tokens_per_s(self) -> float | None:
        """Training throughput after the first steps of each start, evaluation and saving left out."""
        return self.timed_tokens / self.timed_elapsed_s if self.timed_elapsed_s else None

    @property
    def train_loss_nats(self) -> float:
        """Mean batch loss over the last N_RECENT steps."""
        return math.fsum(self.recent_losses_nats) / len(self.recent_losses_nats)

    def count_step(self, loss_nats: float, n_tokens: int, elapsed_s: float, timed: bool) -> None:
        """Add one optimiser step; `timed` if it counts towards tokens/s."""
        self.step += 1
        self.tokens += n_tokens
        self.elapsed_s += elapsed_s
        if timed:
            self.timed_tokens += n_tokens
            self.timed_elapsed_s += elapsed_s
        if self.first_loss_nats is None:
            self.first_loss_nats = loss_nats
        self.recent_losses_nats = [*self.recent_losses_nats, loss_nats][-N_RECENT:]

    def count_evaluation(self, val_loss_nats: float) -> None:
        """Remember the least finite held-out loss and its step."""
        best = self.best_val_loss_nats
        if math.isfinite(val_loss_nats) and (best is None or val_loss_nats < best):
            self.best_val_loss_nats, self.best_val_step = val_loss_nats, self.step


def restore_progress(
    checkpoint: Checkpoint,
    model: Decoder,
    optimizer: Optimizer,
    resume_inexact: bool,
    ranks: Ranks = ALONE,
    compiled: bool = False,
) -> Progress:
    """Put a checkpoint back into model, optimiser and generators; returns the rest.

    Raises: ConfigError if this process sums otherwise (device, threads, instruction set, torch, compiler,
    number of processes) and `resume_inexact` is not given; DataError if the checkpoint does not fit.
    """
    state = dict(checkpoint.state)
    where = checkpoint.path / "state.json"
    check_fields(where, state, STATE, ("step",))
    if state["step"] != checkpoint.step:
        raise DataError(f"{where}: is of step {state['step']}, its folder of step {checkpoint.step}")
    exact = True
    device = next(model.parameters()).device
    numerics = _ALONE | _read_numerics(device, compiled, ranks)
    for name, here in numerics.items():
        saved = state.pop(name, _ALONE.get(name, here))  # older checkpoints know fewer names
        if saved != here:
            exact = False
            if not resume_inexact:
                raise ConfigError(
                    f"{checkpoint.path}: was trained with {name}={saved}, this process has {here}, "
                    "which changes the last bits; use the same, or --resume-inexact"
                )
    state = {name: value for name, value in state.items() if name not in _OF_DEVICES}
    load_weights(model, checkpoint.model, str(checkpoint.path))
    generators = {name: t for name, t in checkpoint.optimizer.items() if name.startswith("generator/")}
    unpack_optimizer(
        optimizer, {name: t for name, t in checkpoint.optimizer.items() if name not in generators}
    )
    try:
        for name, tensor in generators.items():
            if name == ranks.name("generator/cpu"):
                torch.set_rng_state(tensor)
            elif name == ranks.name("generator/cuda") and torch.cuda.is_available():
                torch.cuda.set_rng_state(tensor, device)
    except (RuntimeError, TypeError) as error:  # of another size, or of another dtype
        raise DataError(f"{checkpoint.path}: not a random generator ({error})") from None
    try:
        progress = Progress(**state)
    except TypeError as error:
        raise DataError(f"{where}: {error}") from None
    progress.exact = progress.exact and exact
    return progress


def pack_tensors(model: Decoder, optimizer: Optimizer, ranks: Ranks = ALONE) -> dict[str, Tensor]:
    """What a checkpoint keeps beside the weights: optimiser state and random generators.

    Whole on the rank that writes; all ranks call it together.
    """
    device = next(model.parameters()).device
    packed = pack_optimizer(optimizer, ranks)
    states = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device)
    for kind, state in states.items():
        packed |= {
            f"generator/{kind}" + (f"/{rank}" if rank else ""): part
            for rank, part in enumerate(ranks.gather_tensors(state))
        }
    return packed


def pack_state(
    progress: Progress, device: torch.device, compiled: bool, ranks: Ranks = ALONE
) -> dict[str, Any]:
    """What a checkpoint keeps as JSON: progress, and what changes the last bits here."""
    return dataclasses.asdict(progress) | _read_numerics(device, compiled, ranks)


# what a state that does not say so was made with
_ALONE = {"n_ranks": 1, "parallel": "single", "deterministic": False}
# facts of one kind of device, which another has no counterpart of; "device" itself is compared
_OF_DEVICES = ("cpu", "compiler", "gpu", "cuda", "cudnn")


def _read_numerics(device: torch.device, compiled: bool, ranks: Ranks) -> dict[str, Any]:
    """What changes the last bits of a sum: a resume under other values is not exact."""
    in_ranks = {"n_ranks": ranks.size, "parallel": ranks.mode} if ranks.size > 1 else {}
    return read_numerics(str(device), compiled) | in_ranks
