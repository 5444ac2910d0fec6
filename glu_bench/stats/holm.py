"""Holm's step-down adjustment: many tests, one chance of 5 % that any of them errs."""

from __future__ import annotations

from collections.abc import Sequence


def adjust_holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Adjusted p-values in the order of the input; None, a test that could not be made, stays so.

    Source: Holm 1979, A simple sequentially rejective multiple test procedure.
    """
    made = sorted((p, at) for at, p in enumerate(p_values) if p is not None)
    adjusted: list[float | None] = [None] * len(p_values)
    greatest = 0.0
    for rank, (p, at) in enumerate(made):
        greatest = max(greatest, min(1.0, p * (len(made) - rank)))
        adjusted[at] = greatest
    return adjusted
