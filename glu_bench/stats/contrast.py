"""A weighted sum of arms' means, such as two gates against a third, and what it is known to."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass

from glu_bench.stats.blocked import BlockedFit, Losses, check_spread, fit_blocked
from glu_bench.stats.interval import ALPHA, summarise
from glu_bench.stats.welch import Contrast

NO_NOISE = 1e-12  # of the largest value: rounding, not chance


@dataclass(frozen=True, kw_only=True)
class Weighed:
    """The sum over arms of weight times mean, in the unit of the values."""

    difference: float
    contrast: Contrast | None  # None where nothing estimates the noise
    n_seeds: int  # that all weighted arms share
    test: str  # in words; why there is none, where there is none


def weigh_arms(values: Losses, weights: Mapping[str, float]) -> Weighed:
    """The weighted sum with its standard error over seeds; weights name arms that have values.

    Weights that sum to 0 are tested by the seed-blocked model of all arms; where these do not vary
    alike, and for other weights, by the t of each shared seed's own sum.
    """
    shared = sorted(set.intersection(*(set(values[arm]) for arm in weights)))
    sums = [math.fsum(weight * values[arm][seed] for arm, weight in weights.items()) for seed in shared]
    scale = max(abs(value) for by_seed in values.values() for value in by_seed.values())
    if abs(math.fsum(weights.values())) < NO_NOISE:
        fit = fit_blocked(values)
        noisy = fit.sd is not None and fit.sd > NO_NOISE * scale
        linked = len({fit.component[fit.arms.index(arm)] for arm in weights}) == 1
        spread = check_spread(fit) if noisy and linked else None
        if noisy and linked and not (spread is not None and spread.p < ALPHA):
            contrast = _contrast(fit, weights)
            test = f"seed-blocked, {fit.df} degrees of freedom"
            return Weighed(difference=contrast.difference, contrast=contrast, n_seeds=len(shared), test=test)
    if not shared:
        means = {arm: statistics.fmean(values[arm][seed] for seed in sorted(values[arm])) for arm in weights}
        difference = math.fsum(weight * means[arm] for arm, weight in weights.items())
        return Weighed(difference=difference, contrast=None, n_seeds=0, test="no seed in common")
    summary = summarise(sums)
    if summary.sd is None:
        return Weighed(
            difference=summary.mean, contrast=None, n_seeds=1, test="one seed gives no measure of chance"
        )
    error = summary.standard_error
    if error is None or summary.sd <= NO_NOISE * scale:
        test = "the same at every seed: nothing estimates the noise"
        return Weighed(difference=summary.mean, contrast=None, n_seeds=summary.n, test=test)
    return Weighed(
        difference=summary.mean,
        contrast=Contrast(difference=summary.mean, standard_error=error, df=summary.n - 1),
        n_seeds=summary.n,
        test=f"t of each seed's own difference, {summary.n - 1} degrees of freedom",
    )


def _contrast(fit: BlockedFit, weights: Mapping[str, float]) -> Contrast:
    """w'b with variance sd^2 w'(X'X)^-1 w, the weights of other arms being 0."""
    w = [weights.get(arm, 0.0) for arm in fit.arms]
    assert fit.sd is not None
    return Contrast(
        difference=float(fit.effects @ w),
        standard_error=fit.sd * math.sqrt(float(w @ fit.inverse @ w)),
        df=fit.df,
    )
