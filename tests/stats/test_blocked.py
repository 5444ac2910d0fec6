"""The seed-blocked model against textbook formulas, scipy and simulation."""

from __future__ import annotations

import math
import statistics

import numpy as np
import pytest
from scipy import stats

from glu_bench.stats.blocked import Losses, check_spread, fit_blocked
from glu_bench.stats.findings import judge_losses

RNG = np.random.default_rng(7)


def draw(
    k: int, n: int, rng: np.random.Generator, effects: tuple[float, ...] = (), sd: float = 1.0
) -> Losses:
    """Losses of k arms that share n seeds; seeds vary ten times as much as the residual."""
    of_seed, noise = 10 * rng.standard_normal(n), sd * rng.standard_normal((k, n))
    shift = np.array([*effects, *[0.0] * (k - len(effects))])
    values = 100 + shift[:, None] + of_seed + noise
    return {f"arm{i}": {j: float(values[i, j]) for j in range(n)} for i in range(k)}


def test_two_arms_are_a_paired_t() -> None:
    losses = draw(2, 5, RNG)
    pair = judge_losses(losses, "arm0").pairs[0]
    witness = stats.ttest_rel([*losses[pair.a].values()], [*losses[pair.b].values()])
    assert pair.p_raw == pytest.approx(witness.pvalue)
    assert pair.p_paired == pytest.approx(witness.pvalue)
    assert pair.ci95 == pytest.approx(tuple(witness.confidence_interval()))


def test_complete_blocks_have_the_textbooks_residual() -> None:
    losses = draw(4, 3, RNG)
    table = np.array([[*by_seed.values()] for by_seed in losses.values()])
    residual = table - table.mean(1, keepdims=True) - table.mean(0, keepdims=True) + table.mean()
    mean_square = (residual**2).sum() / (3 * 2)
    fit = fit_blocked(losses)
    assert fit.df == 6
    assert fit.sd == pytest.approx(math.sqrt(mean_square))
    contrast = fit.contrast("arm0", "arm3")
    assert contrast is not None
    assert contrast.difference == pytest.approx(table[0].mean() - table[3].mean())
    assert contrast.standard_error == pytest.approx(math.sqrt(2 * mean_square / 3))


def test_missing_runs_are_fitted_by_least_squares() -> None:
    losses = {arm: dict(by_seed) for arm, by_seed in draw(4, 4, RNG).items()}
    del losses["arm0"][1], losses["arm2"][3]
    # a witness of full rank: intercept, arms 1 to 3, seeds 1 to 3
    cells = [(int(arm[3:]), seed, loss) for arm, by_seed in losses.items() for seed, loss in by_seed.items()]
    x = np.array([[1.0, *(a == i for i in (1, 2, 3)), *(s == j for j in (1, 2, 3))] for a, s, _ in cells])
    y = np.array([loss for *_, loss in cells])
    beta, squares, *_ = np.linalg.lstsq(x, y, rcond=None)
    covariance = np.linalg.inv(x.T @ x) * squares[0] / (14 - 7)
    fit = fit_blocked(losses)
    contrast = fit.contrast("arm1", "arm2")
    assert contrast is not None
    assert fit.df == 7
    assert contrast.difference == pytest.approx(beta[1] - beta[2])
    variance = covariance[1, 1] + covariance[2, 2] - 2 * covariance[1, 2]
    assert contrast.standard_error == pytest.approx(math.sqrt(variance))


@pytest.mark.parametrize(("n", "paired", "pooled"), [(3, 13.6, 2.2), (5, 3.3, 1.5)])
def test_what_pooling_buys(n: int, paired: float, pooled: float) -> None:
    """The least |difference|/sd of differences that Holm's first step over 28 pairs lets through."""
    alpha = 0.05 / 28
    assert stats.t.isf(alpha / 2, n - 1) / math.sqrt(n) == pytest.approx(paired, abs=0.05)
    df = fit_blocked(draw(8, n, RNG)).df
    assert stats.t.isf(alpha / 2, df) / math.sqrt(n) == pytest.approx(pooled, abs=0.05)


def test_arms_that_seeds_link_through_others_are_compared() -> None:
    losses: Losses = {"a": {0: 1.0, 1: 2.0}, "b": {1: 2.5, 2: 3.1, 0: 1.6}, "c": {2: 3.0, 3: 4.0}}
    fit = fit_blocked(losses)
    assert fit.is_linked("a", "c")
    # a and c share no seed: c - b at seed 2, b - a at seeds 0 and 1
    assert fit.differ("c", "a") == pytest.approx((3.0 - 3.1) + ((1.6 - 1.0) + (2.5 - 2.0)) / 2)


def test_arms_without_a_common_seed_are_tested_by_welch() -> None:
    losses: Losses = {"a": {0: 1.0, 1: 1.2, 2: 1.1}, "b": {3: 1.5, 4: 1.8, 5: 1.6}}
    found = judge_losses(losses, "a")
    witness = stats.ttest_ind([1.0, 1.2, 1.1], [1.5, 1.8, 1.6], equal_var=False)
    assert found.pairs[0].p_raw == pytest.approx(witness.pvalue)
    assert found.test == "Welch's t"


def test_two_groups_of_seeds_say_where_welch_was_used() -> None:
    losses: Losses = {
        **{arm: {0: 1.0 + at, 1: 1.2 + at**2, 2: 1.3} for at, arm in enumerate("ab")},
        **{arm: {5: 2.0 + at, 6: 2.2 + at**2, 7: 2.1} for at, arm in enumerate("cd")},
    }
    found = judge_losses(losses, "a")
    assert "seed-blocked" in found.test
    assert "Welch" in found.test
    (pair,) = (pair for pair in found.pairs if {pair.a, pair.b} == {"a", "c"})
    witness = stats.ttest_ind([*losses["a"].values()], [*losses["c"].values()], equal_var=False)
    assert pair.p_raw == pytest.approx(witness.pvalue)


def test_one_seed_gives_an_order_and_no_test() -> None:
    found = judge_losses({"a": {0: 1.0}, "b": {0: 2.0}, "c": {0: 1.5}}, "b")
    assert [row.arm for row in found.estimates] == ["a", "c", "b"]
    assert {row.verdict for row in found.estimates} == {"baseline", "insufficient"}
    assert [row.letters for row in found.estimates] == ["", "", ""]
    assert found.estimates[0].difference_nats == pytest.approx(-1.0)
    assert found.estimates[0].ci95 is None
    assert found.detectable_nats is None


def test_losses_that_do_not_vary_are_not_tested() -> None:
    found = judge_losses({"a": dict.fromkeys(range(3), 1.0), "b": dict.fromkeys(range(3), 2.0)}, "a")
    assert found.pairs[0].p_raw is None
    assert any("do not vary" in warning for warning in found.warnings)


def test_a_loud_arm_is_named() -> None:
    losses = {arm: dict(by_seed) for arm, by_seed in draw(6, 6, np.random.default_rng(0), sd=0.1).items()}
    loud = np.random.default_rng(1).standard_normal(6)
    losses["arm4"] = {seed: loss + 3 * float(loud[seed]) for seed, loss in losses["arm4"].items()}
    spread = check_spread(fit_blocked(losses))
    assert spread is not None
    assert spread.arm == "arm4"
    assert spread.p < 0.01
    assert spread.ratio > 3
    assert any("arm4" in warning for warning in judge_losses(losses, "arm0").warnings)


def test_the_check_of_the_spread_errs_one_time_in_twenty() -> None:
    rng = np.random.default_rng(3)
    spreads = [check_spread(fit_blocked(draw(5, 4, rng))) for _ in range(400)]
    wrong = sum(spread is not None and spread.p < 0.05 for spread in spreads)
    assert 8 <= wrong <= 34  # 20 expected, three standard errors of 4.4


def test_pairing_shows_as_correlation() -> None:
    losses = draw(5, 40, np.random.default_rng(5))
    found = judge_losses(losses, "arm0")
    # seeds have variance 100, the residual 1
    assert found.seed_correlation == pytest.approx(100 / 101, abs=0.01)
    witness = statistics.correlation([*losses["arm0"].values()], [*losses["arm1"].values()])
    (pair,) = (pair for pair in found.pairs if {pair.a, pair.b} == {"arm0", "arm1"})
    assert pair.correlation == pytest.approx(witness)


def test_a_loud_arm_with_few_runs_is_named_too() -> None:
    losses = {arm: dict(by_seed) for arm, by_seed in draw(5, 8, np.random.default_rng(2), sd=0.1).items()}
    losses["arm3"] = {0: losses["arm3"][0] + 1.0, 1: losses["arm3"][1] - 1.0}
    losses["arm1"] = {seed: loss + 0.6 * (-1) ** (seed // 2) for seed, loss in losses["arm1"].items()}
    # arm1 has the larger share in the squares of seeds 2 to 7, arm3 the larger residual a run
    spread = check_spread(fit_blocked(losses))
    assert spread is not None
    assert spread.arm == "arm3"


def test_two_shared_seeds_always_lie_on_a_line_and_give_no_correlation() -> None:
    pair = judge_losses({"a": {0: 1.0, 1: 2.0, 5: 3.0}, "b": {0: 2.0, 1: 2.5, 6: 1.0}}, "a").pairs[0]
    assert (pair.n_shared_seeds, pair.correlation) == (2, None)


def test_the_nearest_tie_is_one_with_the_best_arm_and_its_seeds_have_the_power() -> None:
    residual = np.random.default_rng(8).standard_normal((4, 4)) * 0.01
    residual -= residual.mean(1, keepdims=True) + residual.mean(0, keepdims=True) - residual.mean()
    # best and second 0.004 apart; the last two nearer to being separated, but no tie with the best
    means = {"best": 1.0, "second": 1.004, "third": 2.0, "fourth": 2.012}
    losses = {
        arm: {seed: mean + seed + float(residual[at, seed]) for seed in range(4)}
        for at, (arm, mean) in enumerate(means.items())
    }
    found = judge_losses(losses, "third")
    assert found.nearest_tie == ("best", "second")
    assert found.n_more_seeds is not None
    sigma = math.sqrt((residual**2).sum() / 9)

    def power(n: int) -> float:
        df, effect = 3 * (n - 1), 0.004 / sigma * math.sqrt(n / 2)
        critical = stats.t.isf(0.05 / 6 / 2, df)
        return float(stats.nct.sf(critical, df, effect) + stats.nct.cdf(-critical, df, effect))

    n = 4 + found.n_more_seeds
    assert power(n) >= 0.8 > power(n - 1)
