"""What the losses of some arms show: intervals, tests of every pair, letters, power.

Seeds are the unit of analysis. Where seeds link arms, the seed-blocked model tests them, else
Welch; Holm within two families, the arms against the baseline and all pairs. Source: the
rules are those of Demsar 2006 and Dror et al. 2018 on comparing learners.
"""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from glu_bench.stats.blocked import BlockedFit, Losses, check_spread, fit_blocked
from glu_bench.stats.holm import adjust_holm
from glu_bench.stats.interval import (
    ALPHA,
    Summary,
    find_interval,
    find_mean_interval,
    find_p,
    find_t_quantile,
    summarise,
)
from glu_bench.stats.letters import assign_letters
from glu_bench.stats.pair import Pair
from glu_bench.stats.power import find_detectable, find_n_seeds
from glu_bench.stats.welch import Contrast, contrast_welch


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """One arm: its mean and how it stands to the baseline."""

    arm: str
    n: int
    mean_loss_nats: float
    adjusted_loss_nats: float  # as if it had the seeds of all; what arms are ranked by
    sd_loss_nats: float | None
    ci95: tuple[float, float] | None
    difference_nats: float | None = None
    difference_ci95: tuple[float, float] | None = None
    p_raw: float | None = None
    p_holm: float | None = None
    verdict: str = "insufficient"
    letters: str = ""


@dataclass(frozen=True, kw_only=True)
class Findings:
    """All arms, best first, and all pairs, the lower loss first."""

    baseline: str
    estimates: list[Estimate]
    pairs: list[Pair]
    test: str
    detectable_nats: float | None = None  # with 80 % power at the strictest step of Holm over all pairs
    n_more_seeds: int | None = None  # that would settle the nearest tie with that power; None: over 1,000
    nearest_tie: tuple[str, str] | None = None
    seed_correlation: float | None = None  # of two runs that share a seed: what pairing bought
    warnings: list[str] = field(default_factory=list)


def judge_losses(losses: Losses, baseline: str) -> Findings:
    """Findings from finite losses by arm and seed, each arm with one or more."""
    summaries = {arm: summarise(list(by_seed.values())) for arm, by_seed in losses.items()}
    fit = fit_blocked(losses)
    warnings = []
    noise = fit.sd
    scale = max(abs(summary.mean) for summary in summaries.values())
    if noise is not None and noise <= 1e-12 * scale:
        warnings.append(
            "the losses do not vary over seeds: nothing estimates the noise, so nothing is tested"
        )
        fit, noise = replace(fit, df=0), None
        summaries = {arm: replace(summary, sd=None) for arm, summary in summaries.items()}
    if noise is not None and (spread := check_spread(fit)) and spread.p < ALPHA:
        warnings.append(
            f"the arms do not vary alike: {spread.arm} has a residual sd {spread.ratio:.1f} times that of "
            f"the others (Monte Carlo p = {spread.p:.3f}); each pair's paired t says more than the pooled "
            "test"
        )
    adjusted = _adjust_means(summaries, fit)
    pairs = []
    for a, b in _list_pairs(adjusted):
        shared = sorted(set(losses[a]) & set(losses[b]))
        contrast = fit.contrast(a, b) or contrast_welch(summaries[a], summaries[b])
        linked = fit.is_linked(a, b)
        difference = fit.differ(a, b) if linked else summaries[a].mean - summaries[b].mean
        pair = _make_pair(a, b, difference, contrast)
        at_seeds = [(losses[a][seed], losses[b][seed]) for seed in shared]
        pairs.append(
            replace(
                pair,
                n_shared_seeds=len(shared),
                p_paired=_test_paired([one - other for one, other in at_seeds]),
                correlation=_correlate(at_seeds),
            )
        )
    means = {arm: summary.mean for arm, summary in summaries.items()}
    if any(abs(pair.difference_nats - (means[pair.a] - means[pair.b])) > 1e-9 * scale for pair in pairs):
        warnings.append(
            "not all arms have all seeds: ranks and differences are by least squares, which the means need "
            "not follow"
        )
    linked_pairs = [noise is not None and fit.is_linked(pair.a, pair.b) for pair in pairs]
    within = _pool_within(summaries)
    correlation = None
    if noise is not None and within and len(losses) > 1 and any(pair.n_shared_seeds > 1 for pair in pairs):
        correlation = 1 - noise**2 / within
    test = _name_test(linked_pairs, fit)
    return _conclude(summaries, adjusted, baseline, pairs, test, warnings, correlation)


def judge_summaries(summaries: Mapping[str, Summary], baseline: str) -> Findings:
    """Findings from counts, means and standard deviations alone: Welch for every pair."""
    means = {arm: summary.mean for arm, summary in summaries.items()}
    pairs = []
    for a, b in _list_pairs(means):
        contrast = contrast_welch(summaries[a], summaries[b])
        pairs.append(_make_pair(a, b, means[a] - means[b], contrast))
    return _conclude(summaries, means, baseline, pairs, _name_test([False] * len(pairs), None), [], None)


def judge_means(
    summaries: Mapping[str, Summary], noise_sd: float, noise_df: float, baseline: str
) -> Findings:
    """Findings from means whose noise is assumed: the sd of one run, known to these degrees of freedom."""
    means = {arm: summary.mean for arm, summary in summaries.items()}
    pairs = []
    for a, b in _list_pairs(means):
        one, other = summaries[a], summaries[b]
        error = noise_sd * math.sqrt(1 / one.n + 1 / other.n)
        contrast = Contrast(difference=one.mean - other.mean, standard_error=error, df=noise_df)
        pairs.append(_make_pair(a, b, contrast.difference, contrast))
    test = f"t with an assumed sd of {noise_sd:g}, {noise_df:g} degrees of freedom"
    return _conclude(summaries, means, baseline, pairs, test, [], None)


def _adjust_means(summaries: Mapping[str, Summary], fit: BlockedFit) -> dict[str, float]:
    """Means as if each arm had the seeds of all that seeds link it to; with all seeds shared, the means."""
    effects = dict(zip(fit.arms, fit.effects.tolist(), strict=True))
    components: dict[int, list[str]] = {}
    for arm, component in zip(fit.arms, fit.component, strict=True):
        components.setdefault(component, []).append(arm)
    adjusted: dict[str, float] = {}
    for arms in components.values():
        level = statistics.fmean(summaries[arm].mean - effects[arm] for arm in arms)
        adjusted |= {arm: level + effects[arm] for arm in arms}
    return adjusted


def _rank(losses: Mapping[str, float]) -> list[str]:
    """Arms by loss, those that differ by rounding alone by name."""
    return sorted(losses, key=lambda arm: (round(losses[arm], 12), arm))


def _list_pairs(losses: Mapping[str, float]) -> list[tuple[str, str]]:
    return list(itertools.combinations(_rank(losses), 2))


def _make_pair(a: str, b: str, difference: float, contrast: Contrast | None) -> Pair:
    """The pair, the arm that is lower by what is tested first."""
    if contrast is None:
        return Pair(a=a, b=b, difference_nats=difference)
    if contrast.difference > 0:  # arms that no seeds link are ranked by other means than Welch's
        a, b, contrast = b, a, replace(contrast, difference=-contrast.difference)
    return Pair(
        a=a,
        b=b,
        difference_nats=contrast.difference,
        ci95=find_interval(contrast.difference, contrast.standard_error, contrast.df),
        p_raw=find_p(contrast.difference / contrast.standard_error, contrast.df),
        df=contrast.df,
    )


def _test_paired(differences: list[float]) -> float | None:
    """p of the paired t, or None with fewer than two differences or none that vary."""
    if len(differences) < 2 or not (sd := statistics.stdev(differences)) > 0:
        return None
    return find_p(statistics.fmean(differences) / sd * math.sqrt(len(differences)), len(differences) - 1)


def _correlate(at_seeds: list[tuple[float, float]]) -> float | None:
    """Of two arms over three shared seeds or more: two points always lie on a line."""
    if len(at_seeds) < 3:
        return None
    try:
        return statistics.correlation(*zip(*at_seeds, strict=True))
    except statistics.StatisticsError:  # one of them is constant
        return None


def _pool_within(summaries: Mapping[str, Summary]) -> float | None:
    """The variance of a run about its arm's mean, seeds not taken out."""
    known = [(s.n - 1, s.sd) for s in summaries.values() if s.sd is not None]
    df = sum(n for n, _ in known)
    return sum(n * sd**2 for n, sd in known) / df if df else None


def _name_test(linked: list[bool], fit: BlockedFit | None) -> str:
    welch = "Welch's t"
    if fit is None or not any(linked):
        return welch
    blocked = f"seed-blocked two-way model, {fit.df} degrees of freedom"
    return blocked if all(linked) else f"{blocked}; {welch} where no seeds link two arms"


def _conclude(
    summaries: Mapping[str, Summary],
    losses: Mapping[str, float],
    baseline: str,
    pairs: list[Pair],
    test: str,
    warnings: list[str],
    correlation: float | None,
) -> Findings:
    """Adjust within families, then letters, power and the nearest tie; `losses` rank the arms."""
    p_holm = adjust_holm([pair.p_raw for pair in pairs])
    pairs = [
        replace(pair, p_holm=p, separable=p is not None and p <= ALPHA)
        for pair, p in zip(pairs, p_holm, strict=True)
    ]
    made = [pair for pair in pairs if pair.p_raw is not None]
    ranked = _rank(losses)
    tested = [arm for arm in ranked if any(arm in (pair.a, pair.b) for pair in made)]
    letters = assign_letters(tested, [(pair.a, pair.b) for pair in pairs if pair.separable])
    alpha = ALPHA / len(made) if made else ALPHA
    tie, n_more = _find_nearest_tie(made, ranked[0], summaries, alpha)
    return Findings(
        baseline=baseline,
        estimates=_estimate(ranked, losses, summaries, baseline, pairs, letters),
        pairs=pairs,
        test=test,
        detectable_nats=_find_detectable(made, alpha),
        n_more_seeds=n_more,
        nearest_tie=tie,
        seed_correlation=correlation,
        warnings=warnings,
    )


def _estimate(
    ranked: list[str],
    losses: Mapping[str, float],
    summaries: Mapping[str, Summary],
    baseline: str,
    pairs: list[Pair],
    letters: dict[str, str],
) -> list[Estimate]:
    """The arms against the baseline, a family of its own."""
    against = {(p.b if p.a == baseline else p.a): p for p in pairs if baseline in (p.a, p.b)}
    p_holm = dict(zip(against, adjust_holm([pair.p_raw for pair in against.values()]), strict=True))
    rows = []
    for arm in ranked:
        row = Estimate(
            arm=arm,
            n=summaries[arm].n,
            mean_loss_nats=summaries[arm].mean,
            adjusted_loss_nats=losses[arm],
            sd_loss_nats=summaries[arm].sd,
            ci95=find_mean_interval(summaries[arm]),
            letters=letters.get(arm, ""),
        )
        if arm == baseline:
            row = replace(row, verdict="baseline", difference_nats=0.0)
        elif arm in against:
            pair, sign = against[arm], 1 if against[arm].a == arm else -1
            low, high = pair.ci95 or (math.nan, math.nan)
            p = p_holm[arm]
            difference = sign * pair.difference_nats
            row = replace(
                row,
                difference_nats=difference,
                difference_ci95=None if pair.ci95 is None else (low, high) if sign > 0 else (-high, -low),
                p_raw=pair.p_raw,
                p_holm=p,
                verdict="insufficient"
                if p is None
                else "not_separable"
                if p > ALPHA
                else ("better" if difference < 0 else "worse"),
            )
        rows.append(row)
    return rows


def _error_of(pair: Pair) -> float:
    assert pair.ci95 is not None
    assert pair.df is not None
    return (pair.ci95[1] - pair.ci95[0]) / 2 / find_t_quantile(pair.df)


def _find_detectable(made: list[Pair], alpha: float) -> float | None:
    """Of a pair in the middle, where pairs differ in their errors."""
    if not made:
        return None
    dfs = [pair.df for pair in made if pair.df is not None]
    return find_detectable(statistics.median(map(_error_of, made)), statistics.median(dfs), alpha)


def _find_nearest_tie(
    made: list[Pair], best: str, summaries: Mapping[str, Summary], alpha: float
) -> tuple[tuple[str, str] | None, int | None]:
    """Of the ties with the best arm, or else of all, the one that fewest more seeds would settle.

    Takes each difference as measured for the true one, and as many seeds for every arm.
    """
    ties = [pair for pair in made if not pair.separable]
    if not ties:
        return None, None
    ties = [pair for pair in ties if best in (pair.a, pair.b)] or ties
    nearest = max(ties, key=lambda pair: (abs(pair.difference_nats) / _error_of(pair), pair.a, pair.b))
    assert nearest.df is not None
    n_now = min(summaries[nearest.a].n, summaries[nearest.b].n)
    # as if every arm had n_now seeds: an error over sqrt(n), degrees of freedom in proportion to n - 1
    per_seed = nearest.df / max(1, n_now - 1)
    n = find_n_seeds(
        nearest.difference_nats,
        _error_of(nearest) * math.sqrt(n_now),
        lambda n: per_seed * (n - 1) if n > 1 else per_seed,
        n_now=n_now,
        alpha=alpha,
    )
    return (nearest.a, nearest.b), None if n is None else n - n_now
