"""How far the fast paths of a training step are from the plain one: the loss and every gradient.

Plain is `train.fast=false`, not compiled: attention, feed-forward and loss as their formulas
stand. The fast paths that a preset does not take by itself are taken at its widths: torch's
attention by a window beyond the length where it is chosen, the loss in chunks by a vocabulary.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from glu_bench import schema
from glu_bench.cost.parity import find_difference, take_gradients
from glu_bench.device import find_missing_compiler, make_autocast
from glu_bench.lm.attention import MAX_MATMUL_LEN
from glu_bench.lm.compiled import compile_decoder
from glu_bench.lm.decoder import Decoder, make_decoder
from glu_bench.lm.init import init_weights

VOCAB_SIZE = 257  # 256 bytes and the end of a document
LARGE_VOCAB_SIZE = 32_768
N_TOKENS = 1024

Nats = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True, kw_only=True)
class StepParity:
    """One fast path against plain: greatest relative difference in norm, of the loss and each gradient."""

    name: str  # preset and path
    fp32: float | None  # None where a number is not finite
    bf16: float | None  # plain bf16 being the measure
    bf16_rounding: float | None  # of plain bf16 from plain fp32, to read the former by


def measure_step_parity(preset: str, config: schema.Config) -> list[StepParity]:
    """Rows of a preset: its step eager, compiled where a compiler is; torch's attention; loss in chunks."""
    longer = copy.deepcopy(config)
    longer.model.seq_len = 2 * MAX_MATMUL_LEN
    paths: list[tuple[str, schema.Config, int, bool]] = [("eager", config, VOCAB_SIZE, False)]
    if find_missing_compiler("cpu") is None:
        paths.append(("compiled", config, VOCAB_SIZE, True))
    paths.append((f"torch's attention, T={longer.model.seq_len}", longer, VOCAB_SIZE, False))
    paths.append((f"loss in chunks, V={LARGE_VOCAB_SIZE:,}", config, LARGE_VOCAB_SIZE, False))
    return [
        _compare(f"{preset} / {path}", each, vocab_size, compiled)
        for path, each, vocab_size, compiled in paths
    ]


def _compare(name: str, config: schema.Config, vocab_size: int, compiled: bool) -> StepParity:
    plain, fast = (make_decoder(config, vocab_size, fast=each) for each in (False, True))
    init_weights(plain, seed=0)
    fast.load_state_dict(plain.state_dict())
    nats = compile_decoder(fast) if compiled else fast.nats
    exact, rounded = (_run(plain, plain.nats, precision) for precision in ("fp32", "bf16"))
    return StepParity(
        name=name,
        fp32=find_difference(_run(fast, nats, "fp32"), exact),
        bf16=find_difference(_run(fast, nats, "bf16"), rounded),
        bf16_rounding=find_difference(rounded, exact),
    )


def _run(model: Decoder, nats: Nats, precision: str) -> list[Tensor]:
    """The loss of a few windows and the gradient of every parameter."""
    seq_len = model.config.seq_len
    n_rows = max(1, N_TOKENS // seq_len)
    generator = torch.Generator().manual_seed(0)
    tokens_BT = torch.randint(model.vocab_size, (n_rows, seq_len + 1), generator=generator)
    with make_autocast("cpu", precision):
        loss = nats(tokens_BT[:, :-1], tokens_BT[:, 1:]).mean()
    loss.backward()  # type: ignore[no-untyped-call]
    return [loss.detach(), *take_gradients(model.parameters())]
