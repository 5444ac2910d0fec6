"""What a number of seeds can see, and how many would see a difference."""

from __future__ import annotations

import math
from collections.abc import Callable

from scipy import special

from glu_bench.stats.interval import ALPHA, POWER, find_t_quantile

MAX_SEEDS = 1000


def find_power(effect: float, df: float, alpha: float = ALPHA) -> float:
    """Probability that a two-sided t test rejects, `effect` >= 0 in standard errors."""
    critical = find_t_quantile(df, alpha)
    above = 1 - float(special.nctdtr(df, effect, critical))
    # the other side needs a mean of `effect` below 0: at 5 less than 3e-7, and scipy has NaN further out
    below = float(special.nctdtr(df, effect, -critical)) if effect < 5 else 0.0
    return above + below


def find_detectable(standard_error: float, df: float, alpha: float = ALPHA) -> float:
    """The smallest true difference that the test sees with probability POWER, in units of the error."""
    low, high = 0.0, 1.0
    while find_power(high, df, alpha) < POWER:
        high *= 2
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (low, middle) if find_power(middle, df, alpha) >= POWER else (middle, high)
    return high * standard_error


def find_n_seeds(
    difference: float,
    sd: float,
    find_df: Callable[[int], float],
    *,
    n_now: int,
    alpha: float = ALPHA,
) -> int | None:
    """Seeds in all, more than `n_now`, that would see a true difference of this size; None beyond 1,000.

    `sd` is of one run's difference to another at one seed; `find_df` gives the degrees of
    freedom at a number of seeds.
    """

    def sees(n: int) -> bool:
        return find_power(abs(difference) / sd * math.sqrt(n), find_df(n), alpha) >= POWER

    if difference == 0 or not sees(MAX_SEEDS):
        return None
    low, high = max(1, n_now), MAX_SEEDS  # power grows with n
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if sees(middle) else (middle, high)
    return high
