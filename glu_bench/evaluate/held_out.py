"""The first tokens of a split, in windows, as batches of any size: what inspections look at."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from glu_bench.data.prepared import TokenStream
from glu_bench.errors import DataError
from glu_bench.evaluate.perplexity import cut_windows

N_TOKENS = 65_536  # 100 times the widest unit count of nano: a spectrum of noise is then 1 % off
CHUNK_TOKENS = 4096  # at a time: 4096 x 2048 hidden numbers are 67 MB in fp64


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Some windows; `real_BT` is False where the last one is filled up.

    Shapes: all (B, T); tokens and targets int64, real bool.
    """

    tokens_BT: Tensor
    targets_BT: Tensor
    real_BT: Tensor


@dataclass(frozen=True, kw_only=True)
class HeldOutTokens:
    """The first tokens of a split that has a successor each."""

    stream: TokenStream
    n_tokens: int
    seq_len: int
    chunk_tokens: int = CHUNK_TOKENS
    device: str | torch.device = "cpu"

    def batches(self) -> Iterator[Batch]:
        """All windows in order, about `chunk_tokens` at a time; windows do not overlap."""
        n_windows = -(-self.n_tokens // self.seq_len)  # no batch is filled up beyond these
        per_batch = min(n_windows, max(1, self.chunk_tokens // self.seq_len))
        ids = self.stream.ids[: self.n_tokens + 1]
        for windows in cut_windows(ids, self.seq_len, self.seq_len, per_batch):
            yield Batch(
                tokens_BT=torch.from_numpy(windows.tokens_BT).to(self.device),
                targets_BT=torch.from_numpy(windows.targets_BT).to(self.device),
                real_BT=torch.from_numpy(windows.scored_BT > 0).to(self.device),
            )


def take_head(
    stream: TokenStream,
    *,
    seq_len: int,
    n_least: int,
    n_tokens: int = N_TOKENS,
    chunk_tokens: int = CHUNK_TOKENS,
    device: str | torch.device = "cpu",
) -> HeldOutTokens:
    """The first `n_tokens` tokens of a split, or all if it has fewer.

    Raises: DataError if these are fewer than `n_least`.
    """
    n_there = max(0, min(n_tokens, len(stream.ids) - 1))
    if n_there < n_least:
        raise DataError(
            f"{n_there} tokens of the {stream.split} split: too few, at least {n_least} are needed here"
            + (f" and it has {len(stream.ids) - 1}" if n_tokens < n_least else "")
        )
    return HeldOutTokens(
        stream=stream, n_tokens=n_there, seq_len=seq_len, chunk_tokens=chunk_tokens, device=device
    )


def widen(tensor: Tensor) -> Tensor:
    """The tensor in fp64, on the CPU if it lies on an Apple GPU, which has none."""
    return tensor.cpu().double() if tensor.device.type == "mps" else tensor.double()


def finite(value: float | Tensor) -> float | None:
    """The number as a float; None for NaN and infinities, which no record may hold."""
    number = float(value)
    return number if abs(number) < float("inf") else None
