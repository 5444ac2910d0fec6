"""A held-out loss and what is said with it: perplexity and bits per byte."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True)
class HeldOutLoss:
    """What one pass found."""

    split: str
    nats_per_window: NDArray[np.float64]
    tokens_per_window: NDArray[np.int64]
    nats_per_position: NDArray[np.float64]  # a place in the window each
    tokens_per_position: NDArray[np.int64]
    nats_per_id: NDArray[np.float64]  # a token each, as target
    tokens_per_id: NDArray[np.int64]
    n_bytes: int | None  # of text behind the scored tokens; None if only the head was scored
    stride: int

    @property
    def n_tokens(self) -> int:
        """Tokens scored."""
        return int(self.tokens_per_window.sum())

    @property
    def loss_nats(self) -> float:
        """Mean loss in nats per token."""
        return float(self.nats_per_window.sum()) / self.n_tokens

    @property
    def bits_per_byte(self) -> float | None:
        """Bits per byte of the original text, which makes losses under other tokenizers compare."""
        if not self.n_bytes:
            return None
        return float(self.nats_per_window.sum()) / (math.log(2) * self.n_bytes)


def perplexity(loss_nats: float) -> float | None:
    """exp(loss), or None where that overflows a float."""
    return math.exp(loss_nats) if loss_nats < 709 else None  # exp(709.8) is the greatest double
