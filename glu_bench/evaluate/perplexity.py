"""One deterministic pass over held-out tokens, every token but the stream's first scored once.

Windows of T tokens advance by `stride`. The first window scores all its targets, each later
one only those that no window before it has scored, so with stride < T every token but a few
has at least T - stride tokens of context. Source: held-out log-perplexity, Shazeer 2020,
section 3; the sliding window as in transformers' guide to perplexity.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from glu_bench.data.prepared import TokenStream
from glu_bench.data.tokenizers import Ids
from glu_bench.errors import DataError
from glu_bench.evaluate.loss import HeldOutLoss
from glu_bench.ranks import ALONE, Ranks

Nats = Callable[[Tensor, Tensor], Tensor]  # (tokens_BT, targets_BT) -> nats_BT, fp32


@dataclass(frozen=True)
class Windows:
    """Some windows of a stream as one batch.

    Shapes: tokens_BT and targets_BT int64; scored_BT is 1.0 where a target counts here, else 0.0.
    """

    tokens_BT: NDArray[np.int64]
    targets_BT: NDArray[np.int64]
    scored_BT: NDArray[np.float64]


def cut_windows(ids: Ids, seq_len: int, stride: int, batch_size: int) -> Iterator[Windows]:
    """All windows of a stream in batches of equal shape; the last is filled up with unscored ones."""
    n_targets = len(ids) - 1
    starts = [0]
    while starts[-1] + seq_len < n_targets:
        starts.append(starts[-1] + stride)
    for first in range(0, len(starts), batch_size):
        tokens = np.zeros((batch_size, seq_len), dtype=np.int64)
        targets = np.zeros((batch_size, seq_len), dtype=np.int64)
        scored = np.zeros((batch_size, seq_len), dtype=np.float64)
        for row, start in enumerate(starts[first : first + batch_size]):
            piece = np.asarray(ids[start : start + seq_len + 1], dtype=np.int64)
            width = len(piece) - 1
            tokens[row, :width] = piece[:-1]
            targets[row, :width] = piece[1:]
            already = seq_len - stride if start > 0 else 0
            scored[row, already:width] = 1.0
        yield Windows(tokens, targets, scored)


@torch.no_grad()
def evaluate_stream(
    nats: Nats,
    stream: TokenStream,
    *,
    seq_len: int,
    batch_size: int,
    stride: int | None = None,
    max_tokens: int | None = None,
    device: str | torch.device = "cpu",
    ranks: Ranks = ALONE,
) -> HeldOutLoss:
    """Loss of every token of a split but the first, given those before it in its window.

    `max_tokens` keeps only the head of the stream. Ranks take whole batches in turns and all
    get the result, window by window that of a process alone.
    Raises: DataError if no token can be scored.
    """
    stride = seq_len if stride is None else stride
    ids = stream.ids if max_tokens is None else stream.ids[: max_tokens + 1]
    if len(ids) < 2:
        raise DataError(f"the {stream.split} split has {len(ids)} tokens, nothing can be scored")
    sums, counts = [], []
    n_ids = int(ids.max()) + 1
    at_position = np.zeros((2, seq_len))  # nats, tokens
    at_id = np.zeros((2, n_ids))
    for number, windows in enumerate(cut_windows(ids, seq_len, stride, batch_size)):
        counts.append(windows.scored_BT.sum(axis=1).astype(np.int64))
        if number % ranks.size != ranks.rank:
            sums.append(np.zeros(batch_size))
            continue
        tokens_BT = torch.from_numpy(windows.tokens_BT).to(device)
        targets_BT = torch.from_numpy(windows.targets_BT).to(device)
        nats_BT = nats(tokens_BT, targets_BT).cpu().double().numpy()
        nats_BT = nats_BT * windows.scored_BT
        sums.append(nats_BT.sum(axis=1))
        for total, weights_BT in zip(range(2), (nats_BT, windows.scored_BT), strict=True):
            at_position[total] += weights_BT.sum(axis=0)
            at_id[total] += np.bincount(windows.targets_BT.ravel(), weights_BT.ravel(), n_ids)
    if ranks.rank >= len(counts) % ranks.size > 0:  # no batch left in the last turn
        idle_BT = torch.zeros(batch_size, seq_len, dtype=torch.int64, device=device)
        nats(idle_BT, idle_BT)  # the others need this rank's share of the weights
    at_position, at_id = ranks.add_up(at_position), ranks.add_up(at_id)
    tokens_per_window = np.concatenate(counts)
    real = tokens_per_window > 0  # the filling of the last batch has none
    return HeldOutLoss(
        split=stream.split,
        nats_per_window=ranks.add_up(np.concatenate(sums))[real],
        tokens_per_window=tokens_per_window[real],
        nats_per_position=at_position[0],
        tokens_per_position=at_position[1].astype(np.int64),
        nats_per_id=at_id[0],
        tokens_per_id=at_id[1].astype(np.int64),
        n_bytes=stream.n_bytes - stream.n_first_bytes if len(ids) == len(stream.ids) else None,
        stride=stride,
    )
