"""Which blocks of tokens make up which batch: a pure function of (seed, step).

Nothing is drawn while training, so resuming needs no position, and every arm that shares a
seed sees the same bytes in the same order.
"""

from __future__ import annotations

import functools
import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from glu_bench.data.prepared import TokenStream
from glu_bench.data.tokenizers import Ids
from glu_bench.errors import DataError


@functools.lru_cache(maxsize=4)
def shuffle_blocks(seed: int, epoch: int, n_blocks: int) -> NDArray[np.int64]:
    """A permutation of range(n_blocks) keyed by (seed, epoch).

    Ranks of raw Philox words: NumPy keeps that stream the same from version to version.
    """
    digest = hashlib.sha256(f"order/{seed}/{epoch}".encode()).digest()
    words = np.random.Philox(key=int.from_bytes(digest[:16], "big")).random_raw(n_blocks)
    return np.argsort(words, kind="stable")


@dataclass(frozen=True)
class BatchOrder:
    """Batches of blocks of seq_len tokens (and one more, the last target), without overlap."""

    ids: Ids
    seq_len: int
    batch_size: int
    seed: int

    @property
    def n_blocks(self) -> int:
        """Whole blocks in the stream; each target needs the token after it."""
        return (len(self.ids) - 1) // self.seq_len

    def blocks_of(self, step: int) -> list[int]:
        """Block numbers of a step, 0 being the first; epochs follow one another without a gap."""
        first = step * self.batch_size
        return [
            int(shuffle_blocks(self.seed, at // self.n_blocks, self.n_blocks)[at % self.n_blocks])
            for at in range(first, first + self.batch_size)
        ]

    def batch(self, step: int) -> NDArray[np.int64]:
        """Tokens of a step, inputs in [:, :-1] and targets in [:, 1:]. Shape: (B, T + 1)."""
        width = self.seq_len + 1
        rows = [self.ids[b * self.seq_len : b * self.seq_len + width] for b in self.blocks_of(step)]
        return np.stack(rows).astype(np.int64)


def make_order(stream: TokenStream, seq_len: int, batch_size: int, seed: int) -> BatchOrder:
    """The order of a split's batches.

    Raises: DataError if the split has not one whole block.
    """
    if len(stream.ids) < seq_len + 1:
        raise DataError(
            f"the {stream.split} split has {len(stream.ids):,} tokens, one block needs {seq_len + 1:,}: "
            "give more text, or a smaller model.seq_len"
        )
    return BatchOrder(stream.ids, seq_len, batch_size, seed)
