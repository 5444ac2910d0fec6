"""An arm's loss against what the baseline would have reached for the same FLOPs or seconds.

At equal tokens the two means are compared as they are. Where a token of the arm costs more, the
baseline could have had more of them for that cost; its curve over budgets says where it would be.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from glu_bench.errors import DataError
from glu_bench.stats.fit import Point, collect_points, make_curve
from glu_bench.stats.interval import find_mean_interval, summarise


@dataclass(frozen=True, kw_only=True)
class EqualCost:
    """The arm's mean loss less the baseline's at the same cost, in nats per token."""

    difference_nats: float
    ci95: tuple[float, float] | None  # None with one seed


def compare_at_equal_cost(baseline: Sequence[Point], arm: Point, cost_ratio: float) -> EqualCost | None:
    """The difference at the arm's cost; `cost_ratio` is the arm's cost per token over the baseline's.

    The baseline then has `cost_ratio` times the arm's tokens. None if its losses give no curve, or
    that budget lies outside twice the range they were measured in. The interval joins the arm's t
    interval and the curve's band by square and add; shared seeds make it wider than it need be.
    Source of square and add: Zou and Donner 2008.
    """
    try:
        curve = make_curve(collect_points((point.c, loss) for point in baseline for loss in point.losses))
    except DataError:
        return None
    c = arm.c * cost_ratio
    first, last = curve.trusted
    if not first <= c <= last:
        return None
    reached = float(np.ravel(curve.loss_at(c))[0])
    difference = arm.mean - reached
    own, band = find_mean_interval(summarise(arm.losses)), curve.band_at(c)
    if own is None or band is None:
        return EqualCost(difference_nats=difference, ci95=None)
    low, high = (float(np.ravel(end)[0]) for end in band)
    return EqualCost(
        difference_nats=difference,
        ci95=(
            difference - math.hypot(arm.mean - own[0], high - reached),
            difference + math.hypot(own[1] - arm.mean, reached - low),
        ),
    )
