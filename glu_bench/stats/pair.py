"""Two arms and how far apart they are."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Pair:
    """The difference a - b of two arms' mean losses and whether it could be chance."""

    a: str
    b: str
    difference_nats: float
    ci95: tuple[float, float] | None = None  # None where nothing estimates the noise
    p_raw: float | None = None
    p_holm: float | None = None  # over the table's pairs
    separable: bool = False
    df: float | None = None  # behind the test
    n_shared_seeds: int = 0
    p_paired: float | None = None  # paired t of this pair alone, beside the pooled test
    correlation: float | None = None  # of the two arms over their shared seeds
