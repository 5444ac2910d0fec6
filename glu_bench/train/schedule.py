"""Learning rate over the steps of a run."""

from __future__ import annotations

import math

from glu_bench import schema


def learning_rate(step: int, n_steps: int, optim: schema.Optim) -> float:
    """The rate of a step, 0 being the first of n_steps.

    Rises linearly over the warm-up, reaches `lr` at its end, and falls to lr * floor_share at the
    last step: as a half cosine, as a line, or (wsd: warm-up, stable, decay) flat and then as a line.
    """
    n_warmup = round(optim.warmup_share * n_steps)
    if step < n_warmup:
        return optim.lr * (step + 1) / n_warmup
    if optim.schedule == "constant":
        return optim.lr
    n_decay = n_steps - n_warmup
    if optim.schedule == "wsd":
        n_decay = min(n_decay, max(1, round(optim.decay_share * n_steps)))
    done = max(0.0, (step - (n_steps - n_decay) + 1) / n_decay)  # 1 at the last step
    height = 0.5 * (1 + math.cos(math.pi * done)) if optim.schedule == "cosine" else 1 - done
    return optim.lr * (optim.floor_share + (1 - optim.floor_share) * height)
