"""How much baseline training would reach an arm's loss, over what the arm took.

In tokens it is C_needed / C: C_needed from the baseline's curve at the arm's mean loss, C what the
arm was trained on. In compute each side's tokens count their FLOPs, so it is that times the
baseline's FLOPs per token over the arm's, which is 1 to rounding where parameters are matched. In
wall clock it is the ratio in tokens (not in compute) times the arm's tokens/s over the baseline's:
(C_needed / baseline tokens/s) / (C / arm tokens/s).

The limits join the t interval of the arm's mean loss and the curve's own interval by square and
add (see `find_budget`). Seeds that arm and baseline share make them wider than they need be.
Tokens/s and FLOPs are taken as exact.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from glu_bench.errors import DataError
from glu_bench.stats.fit import TRUSTED, Limits, Point, PowerLaw, collect_points, find_budget, make_curve
from glu_bench.stats.interval import find_mean_interval, find_t_quantile, summarise
from glu_bench.stats.welch import contrast_welch


@dataclass(frozen=True, kw_only=True)
class Speedup:
    """Ratios above 1 say that the arm gets there with less; None in limits: no limit on that side.

    Either the ratios are there, or their bounds ("at least", "at most"), or neither; `note` says why.
    """

    compute: float | None  # in FLOPs
    compute_ci95: Limits | None
    wall: float | None  # in seconds
    wall_ci95: Limits | None
    tokens: float | None = None
    tokens_ci95: Limits | None = None
    compute_bounds: Limits | None = None  # at least, at most, where there is no ratio
    wall_bounds: Limits | None = None
    tokens_bounds: Limits | None = None
    method: str = ""  # law, interpolation, or empty where only single budgets were compared
    note: str = ""


def measure_speedup(
    baseline: Sequence[Point],
    arm: Point,
    *,
    flops_ratio: float | None = 1.0,
    rate_ratio: float | None = None,
) -> Speedup:
    """The effective speedup of an arm from the baseline's losses at its budgets, C in tokens.

    `flops_ratio` is the baseline's FLOPs per token over the arm's, `rate_ratio` the arm's tokens/s
    over the baseline's; None where not known.
    Raises: DataError for a loss or budget that is not finite, or a point without runs.
    """
    if not arm.losses or not all(point.losses for point in baseline):
        raise DataError("a budget without a finished run")
    (arm,) = collect_points((arm.c, loss) for loss in arm.losses)
    baseline = collect_points((point.c, loss) for point in baseline for loss in point.losses)
    bounds: Limits
    try:
        curve = make_curve(baseline)
    except DataError as error:
        bounds, note = _bound(baseline, arm)
        return _scale((None, None, bounds), flops_ratio, rate_ratio, "", f"baseline: {error}; {note}")
    found = find_budget(curve, arm.mean, find_mean_interval(summarise(arm.losses)))
    limits: Limits = (_over(found.low, arm.c), _over(found.high, arm.c))
    method = "law" if isinstance(curve, PowerLaw) else "interpolation"
    span = "the measured range" if method == "interpolation" else f"{TRUSTED:g} times the measured range"
    notes = list(curve.notes)
    if found.c is not None:
        if not found.certain:
            notes.append("one seed: no interval")
        ratio = found.c / arm.c, limits if found.certain else None, None
        return _scale(ratio, flops_ratio, rate_ratio, method, "; ".join(notes))
    if found.beyond == "never":
        notes.append("the loss is at or below the law's L_inf, which it never reaches")
    else:
        notes.append(f"the budget needed lies {found.beyond} {span}")
    if not found.certain:
        # without an interval the end of the range stands, as the means have it
        first, last = (c / arm.c for c in curve.trusted)
        bounds = (None, first) if found.beyond == "below" else (last, None)
        notes.append("a bound of the means, one seed says nothing of chance")
    else:
        bounds = (None, limits[1]) if found.beyond == "below" else (limits[0], None)
        notes.append("no bound, the noise is too great" if bounds == (None, None) else "a bound, 97.5 % sure")
    return _scale((None, None, bounds), flops_ratio, rate_ratio, method, "; ".join(notes))


def _bound(baseline: Sequence[Point], arm: Point) -> tuple[Limits, str]:
    """Ratios in tokens that single budgets of the baseline allow, and how sure that is.

    At a budget where the baseline's loss is surely higher, it needs more; surely lower, less.
    Sure: the 95 % interval of the difference, Welch's, leaves zero out.
    """
    at_least = at_most = None
    tested = len(arm.losses) > 1 and all(len(point.losses) > 1 for point in baseline)
    for point in baseline:
        gap = point.mean - arm.mean
        margin = _welch_margin(point.losses, arm.losses) if tested else 0.0
        if gap > margin:
            at_least = point.c / arm.c
        elif gap < -margin and at_most is None:
            at_most = point.c / arm.c
    if at_least is not None and at_most is not None and at_least >= at_most:
        return (None, None), "and its budgets contradict one another"
    if not tested:
        return (at_least, at_most), "a bound of the means, one seed says nothing of chance"
    if at_least is None and at_most is None:
        return (None, None), "no bound either, the losses are not separable"
    return (at_least, at_most), "a bound, 97.5 % sure"


def _welch_margin(a: Sequence[float], b: Sequence[float]) -> float:
    """Half the 95 % interval of the difference of two means; 0 where neither varies."""
    contrast = contrast_welch(summarise(a), summarise(b))
    return 0.0 if contrast is None else find_t_quantile(contrast.df) * contrast.standard_error


def _over(needed: float | None, c: float) -> float | None:
    return None if needed is None else needed / c


def _scale(
    in_tokens: tuple[float | None, Limits | None, Limits | None],
    flops_ratio: float | None,
    rate_ratio: float | None,
    method: str,
    note: str,
) -> Speedup:
    """The same in tokens, FLOPs and seconds."""
    value, limits, bounds = in_tokens
    bounds = None if bounds == (None, None) else bounds

    def times(factor: float | None) -> tuple[float | None, Limits | None, Limits | None]:
        if factor is None:
            return None, None, None

        def each(pair: Limits | None) -> Limits | None:
            if pair is None:
                return None
            low, high = pair
            return None if low is None else low * factor, None if high is None else high * factor

        return None if value is None else value * factor, each(limits), each(bounds)

    compute, wall = times(flops_ratio), times(rate_ratio)
    return Speedup(
        tokens=value,
        tokens_ci95=limits,
        tokens_bounds=bounds,
        compute=compute[0],
        compute_ci95=compute[1],
        compute_bounds=compute[2],
        wall=wall[0],
        wall_ci95=wall[1],
        wall_bounds=wall[2],
        method=method,
        note=note,
    )
