"""What a training step takes of memory: by length of context, and at the head of a large vocabulary.

Ours is the model as it trains, the peer the same model with train.fast=false, which is plain
eager PyTorch. Each stands in a process of its own; its peak is what forward and backward add to
the process that has made the model.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from glu_bench.config import load_config
from glu_bench.cost.alone import run_alone
from glu_bench.cost.row import Row
from glu_bench.ffn.saved import list_kept
from glu_bench.lm.decoder import Decoder, make_decoder
from glu_bench.lm.init import init_weights
from glu_bench.train.result import read_peak_bytes

MB = 10**6
PRESET = "pico"
LENGTHS = (256, 512, 1024, 2048, 4096)
N_TOKENS = 4096  # of every row: at linear growth the rows of all lengths are equal
BYTES_VOCAB_SIZE = 257
LARGE_VOCAB_SIZE = 32_768
LARGE_WIDTH = 192
SEED = 0


def bench_memory(lengths: Sequence[int] = LENGTHS) -> list[Row]:
    """Rows: bytes that a token keeps for the backward pass and the step's peak, by length; the head's peak.

    All on the CPU, with bf16 autocast unless the row says fp32.
    """
    kept, peaks = [], []
    for seq_len in sorted(set(lengths)):
        ours, peer = (run_alone(measure_step, seq_len, fast) for fast in (True, False))
        kept.append(_row(f"{PRESET}, T={seq_len}, kept for backward", ours[0], peer[0], "B/token"))
        peaks.append(_row(f"{PRESET}, T={seq_len}, peak of a step", ours[1] / MB, peer[1] / MB, "MB"))
    heads = []
    for precision in ("bf16", "fp32"):
        ours, peer = (run_alone(measure_head, fast, precision) for fast in (True, False))
        name = f"head, V={LARGE_VOCAB_SIZE:,}, {precision}"
        heads.append(_row(f"{name}, kept for backward", ours[0], peer[0], "B/token"))
        heads.append(_row(f"{name}, peak", ours[1] / MB, peer[1] / MB, "MB"))
    return [*kept, *peaks, *heads]


def measure_step(seq_len: int, fast: bool, n_tokens: int = N_TOKENS) -> tuple[float, float]:
    """Bytes that a token keeps for the backward pass, and the peak of forward and backward in bytes.

    Windows of `seq_len`, as many as `n_tokens` fill, at least one.
    """
    config = load_config([f"model={PRESET}", f"model.seq_len={seq_len}"])
    model = make_decoder(config, BYTES_VOCAB_SIZE, fast)
    init_weights(model, SEED)
    tokens_BT = _draw_tokens(BYTES_VOCAB_SIZE, max(1, n_tokens // seq_len), seq_len)
    return _measure(model, tokens_BT, "bf16", None)


def measure_head(fast: bool, precision: str, n_tokens: int = N_TOKENS) -> tuple[float, float]:
    """The same of the norm, the head and the loss alone, over a large vocabulary."""
    words = (f"model={PRESET}", f"model.d_model={LARGE_WIDTH}", "model.n_layers=1")
    model = make_decoder(load_config(words), LARGE_VOCAB_SIZE, fast)
    init_weights(model, SEED)
    tokens_BT = _draw_tokens(LARGE_VOCAB_SIZE, 1, n_tokens)
    generator = torch.Generator().manual_seed(SEED)
    x_BTD = torch.randn(1, n_tokens, LARGE_WIDTH, generator=generator).requires_grad_()
    return _measure(model, tokens_BT, precision, x_BTD)


def _measure(model: Decoder, tokens_BT: Tensor, precision: str, x_BTD: Tensor | None) -> tuple[float, float]:
    """Bytes kept a token, peak in bytes; of what follows the residual stream `x_BTD` if one is given."""

    def forward(n_tokens: int) -> Tensor:
        targets_BT = tokens_BT[:, :n_tokens]
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            if x_BTD is None:
                return model.nats(targets_BT, targets_BT).mean()
            return model.nats_from(x_BTD[:, :n_tokens], targets_BT).mean()

    forward(2).backward()  # type: ignore[no-untyped-call]  # threads and kernels
    model.zero_grad()
    before = read_peak_bytes("cpu")
    forward(tokens_BT.shape[1]).backward()  # type: ignore[no-untyped-call]
    peak_bytes = read_peak_bytes("cpu") - before
    model.zero_grad()
    own = {tensor.untyped_storage().data_ptr() for tensor in [*model.parameters(), *model.buffers()]}
    storages = [tensor.untyped_storage() for tensor in list_kept(lambda: forward(tokens_BT.shape[1]))]
    kept_bytes = sum(storage.nbytes() for storage in storages if storage.data_ptr() not in own)
    return kept_bytes / tokens_BT.numel(), peak_bytes


def _draw_tokens(vocab_size: int, n_rows: int, seq_len: int) -> Tensor:
    return torch.randint(vocab_size, (n_rows, seq_len), generator=torch.Generator().manual_seed(SEED))


def _row(name: str, ours: float, peer: float, unit: str) -> Row:
    return Row(name=name, ours=ours, peer=peer, ratio=ours / peer if peer else None, unit=unit)
