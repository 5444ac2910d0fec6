"""Welch's t: two means whose arms share no seed, each with a variance of its own."""

from __future__ import annotations

import math
from dataclasses import dataclass

from glu_bench.stats.interval import Summary


@dataclass(frozen=True, kw_only=True)
class Contrast:
    """A difference of two arms, its standard error and the degrees of freedom behind it."""

    difference: float
    standard_error: float
    df: float


def contrast_welch(a: Summary, b: Summary) -> Contrast | None:
    """a - b with Satterthwaite's degrees of freedom; None if an arm has no variance to go by.

    Source: Welch 1947, The generalization of Student's problem.
    """
    one, other = a.standard_error, b.standard_error
    if one is None or other is None or one + other == 0:
        return None
    larger = max(one, other)  # fourth powers of small numbers vanish
    u, v = (one / larger) ** 2, (other / larger) ** 2
    df = (u + v) ** 2 / (u**2 / (a.n - 1) + v**2 / (b.n - 1))
    return Contrast(difference=a.mean - b.mean, standard_error=math.hypot(one, other), df=df)
