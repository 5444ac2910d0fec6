"""Loss against budget: a power law with its uncertainty, or lines in log C where that asks too much.

C is whatever the points count: tokens, parameters, FLOPs. The law is L(C) = L_inf + A C^-alpha with
L_inf >= 0, A > 0, alpha > 0. For a given alpha it is linear in L_inf and A, so everything is done
over a grid of alphas, each solved exactly (variable projection): no start values, no local minima.

Intervals are profiles: a value belongs to the interval if some law that has it, within the bounds,
raises the sum of squares over the runs by at most s^2 t^2. s^2 is the residual variance of a run,
t the 97.5 % quantile of Student's t at its degrees of freedom, n runs - 3. Where the means of the
budgets lie off the law by more than the seeds explain (F test, p < 0.05), s^2 is that of the means,
n budgets - 3. Runs count as independent; seeds that budgets share make levels surer than they are
and differences less sure.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from glu_bench.errors import DataError
from glu_bench.stats.interval import find_t_quantile

Floats = NDArray[np.float64]
Limits = tuple[float | None, float | None]  # None: the data set no limit on that side

MIN_BUDGETS = 4  # three parameters, and one budget to see whether they hold
TRUSTED = 2.0  # times the measured range, on either side
ALPHAS = np.geomspace(1e-3, 10.0, 161)  # published exponents of loss lie between 0.03 and 0.8
N_ALPHAS = 101  # over an interval of alpha
N_SCAN = 161  # budgets looked at for an inversion


@dataclass(frozen=True, kw_only=True)
class Point:
    """What was measured at one budget."""

    c: float
    losses: tuple[float, ...]  # nats/token, a run each

    @property
    def mean(self) -> float:
        """Mean loss in nats/token."""
        return math.fsum(self.losses) / len(self.losses)


@dataclass(frozen=True, kw_only=True)
class PowerLaw:
    """L(C) = l_inf_nats + a_nats * C^-alpha, fitted."""

    l_inf_nats: float
    l_inf_ci95: tuple[float, float]
    a_nats: float  # at C = 1, so far outside the data that its interval spans orders of magnitude
    a_ci95: tuple[float, float]
    alpha: float
    alpha_ci95: Limits  # None where no finite exponent is excluded
    residual_sd_nats: float  # of one run
    n_dof: int
    lack_of_fit_p: float | None  # whether the means lie on the law; None without seeds to tell
    points: tuple[Point, ...]
    notes: tuple[str, ...]
    limit: float  # sum of squares up to which a law is in the 95 % region
    alphas: tuple[float, ...]  # over the interval of alpha

    @property
    def trusted(self) -> tuple[float, float]:
        """Budgets that the law is asked about: twice the measured range."""
        return self.points[0].c / TRUSTED, self.points[-1].c * TRUSTED

    def loss_at(self, c: ArrayLike) -> Floats:
        """Expected loss at each budget, in nats/token."""
        return self.l_inf_nats + self.a_nats * np.asarray(c, float) ** -self.alpha

    def band_at(self, c: ArrayLike) -> tuple[Floats, Floats]:
        """95 % limits of the expected loss at each budget, each for itself, in nats/token."""
        x = np.atleast_1d(np.asarray(c, float)) / _scale_of(self.points)
        at_alpha = _solve(self.points, np.array(self.alphas))
        with np.errstate(over="ignore"):
            powers = x[:, None] ** -at_alpha.alpha
        return _extremes(at_alpha, self.limit, 1.0, powers)

    def c_for_loss(self, loss_nats: float) -> float | None:
        """The budget at which the law has this loss; None at or below L_inf."""
        if loss_nats <= self.l_inf_nats:
            return None
        log_c = (math.log(self.a_nats) - math.log(loss_nats - self.l_inf_nats)) / self.alpha
        return math.exp(log_c) if log_c < 700 else None  # exp(709) is the largest double


@dataclass(frozen=True, kw_only=True)
class Interpolation:
    """Mean losses joined by straight lines in log C; it knows nothing outside its points.

    A law is convex in log C, so between the points a line lies above it, a budget read from a loss
    is too large, and no limits here say by how much.
    """

    points: tuple[Point, ...]
    n_dof: int  # of the variance within budgets
    sd_nats: float | None  # of one run, pooled over the budgets; None if no budget has two
    notes: tuple[str, ...] = (
        "three budgets: read between them in log C, which flatters the arm as the curve bends",
    )

    @property
    def trusted(self) -> tuple[float, float]:
        """The measured range."""
        return self.points[0].c, self.points[-1].c

    def loss_at(self, c: ArrayLike) -> Floats:
        """Loss at each budget, in nats/token; outside the points that of the nearest."""
        at = np.log(np.asarray(c, float))
        log_c = [math.log(point.c) for point in self.points]
        return np.asarray(np.interp(at, log_c, [point.mean for point in self.points]))

    def band_at(self, c: ArrayLike) -> tuple[Floats, Floats] | None:
        """95 % limits of that from the noise of its two neighbours; None without a variance."""
        if self.sd_nats is None:
            return None
        at = np.atleast_1d(np.log(np.asarray(c, float)))
        log_c = [math.log(point.c) for point in self.points]
        # share of each point in the value at C: a hat function
        share = np.stack([np.interp(at, log_c, row) for row in np.eye(len(log_c))], axis=1)
        n = np.array([len(point.losses) for point in self.points])
        half = find_t_quantile(self.n_dof) * self.sd_nats * np.sqrt((share**2 / n).sum(axis=1))
        loss = np.atleast_1d(self.loss_at(c))
        return loss - half, loss + half

    def c_for_loss(self, loss_nats: float) -> float | None:
        """The budget with this loss, None outside the measured losses."""
        means = [point.mean for point in self.points]
        if not means[-1] <= loss_nats <= means[0]:
            return None
        log_c = [math.log(point.c) for point in self.points]
        return math.exp(float(np.interp(-loss_nats, [-mean for mean in means], log_c)))


Curve = PowerLaw | Interpolation


@dataclass(frozen=True, kw_only=True)
class Needed:
    """The budget that reaches a loss, as far as the curve is trusted."""

    c: float | None  # None outside the trusted range, or where the curve never gets there
    low: float | None  # it is more than this, 97.5 % sure; None if that is not known
    high: float | None  # it is less than this
    certain: bool  # whether the limits take chance into account; without it there are none
    beyond: str = ""  # "above" or "below" the trusted range, or "never", where c is None


def collect_points(measured: Iterable[tuple[float, float]]) -> tuple[Point, ...]:
    """Points from (C, loss) of runs in any order, by rising C; order changes nothing, to the bit.

    Raises: DataError for a loss or budget that is not finite, or a budget of zero or less.
    """
    losses: dict[float, list[float]] = {}
    for c, loss in measured:
        if not (math.isfinite(c) and c > 0):
            raise DataError(f"a budget of {c}: a number above zero")
        if not math.isfinite(loss):
            raise DataError(f"a loss of {loss} at {c:g}: leave diverged runs out")
        losses.setdefault(float(c), []).append(float(loss))
    return tuple(Point(c=c, losses=tuple(sorted(losses[c]))) for c in sorted(losses))


def make_curve(points: Sequence[Point]) -> Curve:
    """The law from four budgets or more, lines in log C through three.

    Raises: DataError with fewer, or if loss does not fall as the budget grows.
    """
    return fit_power_law(points) if len(points) >= MIN_BUDGETS else interpolate(points)


def interpolate(points: Sequence[Point]) -> Interpolation:
    """Lines in log C through the mean losses.

    Raises: DataError with fewer than three budgets, or if loss does not fall from each to the next.
    """
    points = collect_points((point.c, loss) for point in points for loss in point.losses)
    if len(points) < 3:
        raise DataError(f"{_count(points)}: three to interpolate, {MIN_BUDGETS} to fit")
    means = [point.mean for point in points]
    if any(after >= before for before, after in pairwise(means)):
        raise DataError("loss does not fall from each budget to the next")
    squares, n_dof = pure_error(points)
    return Interpolation(points=points, n_dof=n_dof, sd_nats=math.sqrt(squares / n_dof) if n_dof else None)


def fit_power_law(points: Sequence[Point]) -> PowerLaw:
    """The law by least squares over all runs, so that a budget weighs as its number of seeds.

    Raises: DataError with fewer than four budgets, a value that is not finite, or losses that no
    falling law describes better than a constant.
    """
    points = collect_points((point.c, loss) for point in points for loss in point.losses)
    if len(points) < MIN_BUDGETS:
        raise DataError(f"{_count(points)}: a fit takes {MIN_BUDGETS}")
    alpha = _best_alpha(points)
    best = _solve(points, np.array([alpha]))
    squares = float(best.squares[0])
    slope, level = float(best.a[0]), float(best.l_inf[0])
    if slope <= 0:
        raise DataError("loss does not fall as the budget grows: no law to fit")
    scale = _scale_of(points)
    notes = []
    if level == 0.0:
        notes.append("L_inf at 0, its bound")
    if alpha >= ALPHAS[-1] * 0.999:
        notes.append(f"alpha at {ALPHAS[-1]:g}, the greatest tried: loss falls once and no more")

    within, n_within = pure_error(points)
    n_runs = sum(len(point.losses) for point in points)
    variance, n_dof = (squares + within) / (n_runs - 3), n_runs - 3
    lack_of_fit_p = None
    n_between = len(points) - 3
    if n_within and within > 0:
        ratio = (squares / n_between) / (within / n_within)
        lack_of_fit_p = float(special.fdtrc(n_between, n_within, ratio))
        if lack_of_fit_p < 0.05:
            variance, n_dof = squares / n_between, n_between
            notes.append("the means lie off the law by more than the seeds explain; intervals are from that")
    limit = squares + variance * find_t_quantile(n_dof) ** 2

    low, high = _alpha_limits(points, alpha, limit)
    alphas = np.unique(np.append(np.geomspace(low, high, N_ALPHAS), alpha))
    region = _solve(points, alphas)
    one = np.ones((1, len(alphas)))
    l_low, l_high = _extremes(region, limit, 1.0, 0.0 * one)
    a_low, a_high = _extremes(region, limit, 0.0, scale**alphas * one)
    return PowerLaw(
        l_inf_nats=level,
        l_inf_ci95=(float(l_low[0]), float(l_high[0])),
        a_nats=slope * scale**alpha,
        a_ci95=(float(a_low[0]), float(a_high[0])),
        alpha=alpha,
        alpha_ci95=(None if low <= ALPHAS[0] else low, None if high >= ALPHAS[-1] else high),
        residual_sd_nats=math.sqrt(variance),
        n_dof=n_dof,
        lack_of_fit_p=lack_of_fit_p,
        points=points,
        notes=tuple(notes),
        limit=limit,
        alphas=tuple(float(each) for each in alphas),
    )


def pure_error(points: Sequence[Point]) -> tuple[float, int]:
    """Sum of squares within budgets, in nats squared, and its degrees of freedom."""
    squares = math.fsum((loss - point.mean) ** 2 for point in points for loss in point.losses)
    return squares, sum(len(point.losses) - 1 for point in points)


def find_budget(curve: Curve, loss_nats: float, loss_ci95: tuple[float, float] | None) -> Needed:
    """The budget at which the curve reaches a loss, with 95 % limits within the trusted range.

    At each budget C the difference of curve and loss gets limits from both intervals by square
    and add: its lower limit lies below it by sqrt((curve - its lower)^2 + (upper of loss - loss)^2).
    C is too small where that limit is above zero, too large where the upper one is below.
    `loss_ci95` of (loss, loss) gives the curve's uncertainty alone, None no limits.
    Source: Zou and Donner 2008, Statistics in Medicine 27, for the limits of a difference.
    """
    first, last = curve.trusted
    found = curve.c_for_loss(loss_nats)
    beyond = ""
    if found is None or not first <= found <= last:
        beyond = "above" if loss_nats < float(curve.loss_at(last)) else "below"
        if isinstance(curve, PowerLaw) and loss_nats <= curve.l_inf_nats:
            beyond = "never"
        found = None
    if loss_ci95 is None or curve.band_at(first) is None:
        return Needed(c=found, low=None, high=None, certain=False, beyond=beyond)
    below, above = loss_nats - loss_ci95[0], loss_ci95[1] - loss_nats

    def differ(c: ArrayLike) -> tuple[Floats, Floats]:
        """Lower and upper limit of curve - loss."""
        band = curve.band_at(c)
        assert band is not None
        loss = np.atleast_1d(curve.loss_at(c))
        gap = loss - loss_nats
        return gap - np.hypot(loss - band[0], above), gap + np.hypot(band[1] - loss, below)

    grid = np.geomspace(first, last, N_SCAN)
    if found is not None:
        grid = np.unique(np.append(grid, found))
    lower, upper = differ(grid)
    too_small, too_large = np.flatnonzero(lower > 0), np.flatnonzero(upper < 0)
    low = high = None
    if len(too_small):
        at = int(too_small[-1])
        low = float(grid[at])
        if at + 1 < len(grid):
            low = _find_root(lambda c: float(differ(c)[0][0]), grid[at], grid[at + 1])
    if len(too_large):
        at = int(too_large[0])
        high = float(grid[at])
        if at > 0:
            high = _find_root(lambda c: float(differ(c)[1][0]), grid[at - 1], grid[at])
    return Needed(c=found, low=low, high=high, certain=True, beyond=beyond)


@dataclass(frozen=True)
class _Solved:
    """The bounded least-squares law for each alpha, C counted in `_scale_of` the points."""

    alpha: Floats
    l_inf: Floats
    a: Floats
    squares: Floats  # of the means around the law, weighted
    free_l_inf: Floats  # without the bounds
    free_a: Floats
    free_squares: Floats
    weight: float  # number of runs
    mean_power: Floats
    spread: Floats  # weighted squares of the powers around their mean


def _count(points: Sequence[Point]) -> str:
    return f"{len(points)} budget" + ("" if len(points) == 1 else "s")


def _scale_of(points: Sequence[Point]) -> float:
    """The geometric mean of the budgets: powers stay near 1."""
    return math.exp(math.fsum(math.log(point.c) for point in points) / len(points))


def _solve(points: Sequence[Point], alpha: Floats) -> _Solved:
    x = np.array([point.c for point in points]) / _scale_of(points)
    n = np.array([len(point.losses) for point in points], float)
    y = np.array([point.mean for point in points])
    weight = float(n.sum())
    mean = float(n @ y) / weight
    power = x ** -alpha[:, None]  # alphas x points
    mean_power = power @ n / weight
    deviation = power - mean_power[:, None]
    spread = (deviation**2) @ n
    free_a = (deviation * (y - mean)) @ n / spread
    free_l = mean - free_a * mean_power

    def squares_of(l_inf: Floats, a: Floats) -> Floats:
        residual = y - l_inf[:, None] - a[:, None] * power
        return np.asarray((residual**2) @ n)

    # a minimum outside the quadrant moves to the edge that it crossed
    through_zero = (power * y) @ n / (power**2 @ n)
    rising = free_a < 0
    l_inf = np.where(rising, mean, np.maximum(free_l, 0.0))
    a = np.where(rising, 0.0, np.where(free_l < 0, through_zero, free_a))
    return _Solved(
        alpha=alpha,
        l_inf=l_inf,
        a=a,
        squares=squares_of(l_inf, a),
        free_l_inf=free_l,
        free_a=free_a,
        free_squares=squares_of(free_l, free_a),
        weight=weight,
        mean_power=mean_power,
        spread=spread,
    )


def _best_alpha(points: Sequence[Point]) -> float:
    """The alpha of least squares: a coarse grid, then ever finer ones around its best."""
    grid = ALPHAS
    for _ in range(7):  # steps of 6 % shrink 20-fold a turn, to less than rounding
        at = int(np.argmin(_solve(points, grid).squares))
        best = float(grid[at])
        grid = np.geomspace(grid[max(at - 1, 0)], grid[min(at + 1, len(grid) - 1)], 41)
    return best


def _alpha_limits(points: Sequence[Point], alpha: float, limit: float) -> tuple[float, float]:
    """The outermost alphas with a law in the region, at most those of the grid."""

    def excess(value: float) -> float:
        return float(_solve(points, np.array([value])).squares[0]) - limit

    grid = np.unique(np.append(ALPHAS, alpha))
    inside = np.flatnonzero((_solve(points, grid).squares <= limit) | (grid == alpha))
    ends = []
    for at, further in ((int(inside[0]), -1), (int(inside[-1]), 1)):
        outside = at + further
        if not 0 <= outside < len(grid) or excess(float(grid[at])) >= 0:
            ends.append(float(grid[at]))
        else:
            ends.append(_find_root(excess, float(grid[at]), float(grid[outside])))
    return ends[0], ends[1]


def _find_root(function: Callable[[float], float], a: float, b: float) -> float:
    """Where a function changes sign between two places."""
    from scipy import optimize  # here: a comparison without a curve does not wait for it

    return float(optimize.brentq(function, a, b))


def _extremes(at: _Solved, limit: float, of_l_inf: float, of_a: Floats) -> tuple[Floats, Floats]:
    """Least and greatest `of_l_inf` * L_inf + `of_a` * A over all laws in the region.

    For one alpha the region is an ellipse around the free minimum, cut by L_inf >= 0 and A >= 0.
    A linear function takes its extremes where a tangent touches the ellipse, if the bounds allow
    that, or on a bound.
    Shapes: of_a has a row a function and a column an alpha.
    """
    room = limit - at.free_squares  # squares left for deviations
    radius = np.sqrt(np.maximum(room, 0.0))
    candidates: list[Floats] = []

    def offer(l_inf: Any, a: Any, allowed: Any) -> None:
        value = of_l_inf * l_inf + of_a * a
        candidates.append(np.where(allowed, value, np.nan))

    slope = of_a - of_l_inf * at.mean_power
    size = np.sqrt(of_l_inf**2 / at.weight + slope**2 / at.spread)
    with np.errstate(invalid="ignore", divide="ignore"):
        d_l = (of_l_inf / at.weight - slope * at.mean_power / at.spread) / size
        d_a = slope / at.spread / size
    for sign in (-1.0, 1.0):
        l_inf, a = at.free_l_inf + sign * radius * d_l, at.free_a + sign * radius * d_a
        offer(l_inf, a, (room >= 0) & (l_inf >= 0) & (a >= 0))

    second = at.spread + at.weight * at.mean_power**2  # weighted squares of the powers
    middle = at.free_a + at.weight * at.mean_power * at.free_l_inf / second
    left = room - at.free_l_inf**2 * at.weight * at.spread / second
    half = np.sqrt(np.maximum(left, 0.0) / second)
    for a in (np.maximum(middle - half, 0.0), middle + half):
        offer(0.0, a, (left >= 0) & (middle + half >= 0))

    middle = at.free_l_inf + at.mean_power * at.free_a
    left = room - at.free_a**2 * at.spread
    half = np.sqrt(np.maximum(left, 0.0) / at.weight)
    for l_inf in (np.maximum(middle - half, 0.0), middle + half):
        offer(l_inf, 0.0, (left >= 0) & (middle + half >= 0))

    # the best law itself is in the region, whatever rounding says of an exact fit
    offer(at.l_inf, at.a, at.squares <= at.squares.min())
    stacked = np.concatenate(candidates, axis=1)
    return np.nanmin(stacked, axis=1), np.nanmax(stacked, axis=1)
