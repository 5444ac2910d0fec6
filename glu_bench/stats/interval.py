"""Means of a few values and the intervals that Student's t gives them.

scipy.special alone: importing scipy.stats takes longer than a whole comparison.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from scipy import special

ALPHA = 0.05
POWER = 0.8


@dataclass(frozen=True, kw_only=True)
class Summary:
    """An arm's results as papers print them."""

    n: int
    mean: float
    sd: float | None  # over n - 1; None with one value, or where a paper gives none

    @property
    def standard_error(self) -> float | None:
        """Of the mean, or None where nothing estimates it."""
        return None if self.sd is None or self.n < 2 else self.sd / math.sqrt(self.n)


def summarise(values: Sequence[float]) -> Summary:
    """Count, mean and standard deviation of values, whatever their order.

    Raises: ValueError without a value.
    """
    if not values:
        raise ValueError("no value to summarise")
    ordered = sorted(values)
    sd = statistics.stdev(ordered) if len(ordered) > 1 else None
    return Summary(n=len(ordered), mean=statistics.fmean(ordered), sd=sd)


def find_t_quantile(df: float, alpha: float = ALPHA) -> float:
    """What |t| exceeds with probability alpha, two-sided."""
    return float(special.stdtrit(df, 1 - alpha / 2))


def find_p(t: float, df: float) -> float:
    """Two-sided probability of a |t| this large or larger."""
    return float(2 * special.stdtr(df, -abs(t)))


def find_interval(centre: float, standard_error: float, df: float) -> tuple[float, float]:
    """Where the true value lies with confidence 1 - ALPHA, 95 %."""
    half = find_t_quantile(df) * standard_error
    return centre - half, centre + half


def find_mean_interval(summary: Summary) -> tuple[float, float] | None:
    """95 % t interval of a mean, or None with one value."""
    error = summary.standard_error
    return None if error is None else find_interval(summary.mean, error, summary.n - 1)
