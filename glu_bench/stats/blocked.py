"""The seed-blocked two-way model: loss = arm + seed + residual, one residual variance for all.

With k arms that share n seeds the residual has (k - 1)(n - 1) degrees of freedom, where a
paired t of two arms alone has n - 1. Seeds that some arms lack are fitted by least squares.
Source: randomised complete blocks, Fisher 1935, The Design of Experiments; Montgomery, Design
and Analysis of Experiments, chapter 4.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from glu_bench.stats.welch import Contrast

Losses = Mapping[str, Mapping[int, float]]  # arm -> seed -> nats/token
N_DRAWS = 4000  # of the check of the residuals: a p of 0.05 is then known to 0.0035
N_AT_ONCE = 200


@dataclass(frozen=True, kw_only=True)
class BlockedFit:
    """Arm effects and what they are known to."""

    arms: tuple[str, ...]
    effects: NDArray[np.float64]  # of each arm, up to a constant of its component
    inverse: NDArray[np.float64]  # of X'X, the rows of the arms
    component: tuple[int, ...]  # arms linked by seeds share a number
    residuals: NDArray[np.float64]
    arm_of: NDArray[np.int64]  # which arm each residual belongs to
    basis: NDArray[np.float64]  # orthonormal columns that span the model
    df: int

    @property
    def sd(self) -> float | None:
        """Residual standard deviation, or None if nothing estimates it."""
        return math.sqrt(float(self.residuals @ self.residuals) / self.df) if self.df > 0 else None

    def is_linked(self, a: str, b: str) -> bool:
        """Whether seeds link the two arms, directly or through other arms."""
        return self.component[self.arms.index(a)] == self.component[self.arms.index(b)]

    def differ(self, a: str, b: str) -> float:
        """The least-squares difference a - b; with all seeds shared, that of the means."""
        return float(self.effects[self.arms.index(a)] - self.effects[self.arms.index(b)])

    def contrast(self, a: str, b: str) -> Contrast | None:
        """a - b; None if seeds do not link them or nothing estimates the residual."""
        sd = self.sd
        if sd is None or not self.is_linked(a, b):
            return None
        i, j = self.arms.index(a), self.arms.index(b)
        share = self.inverse[i, i] + self.inverse[j, j] - 2 * self.inverse[i, j]
        return Contrast(difference=self.differ(a, b), standard_error=sd * math.sqrt(share), df=self.df)


def fit_blocked(losses: Losses) -> BlockedFit:
    """The model's fit to the losses of arms by seed, every loss finite."""
    arms = tuple(sorted(losses))
    seeds = sorted({seed for by_seed in losses.values() for seed in by_seed})
    cells = [
        (i, seeds.index(seed), losses[arm][seed])
        for i, arm in enumerate(arms)
        for seed in sorted(losses[arm])
    ]
    design = np.zeros((len(cells), len(arms) + len(seeds)))
    for row, (arm, seed, _) in enumerate(cells):
        design[row, arm] = design[row, len(arms) + seed] = 1.0
    values = np.array([loss for *_, loss in cells])
    # centred, so that the squares below do not cancel; arm effects are free up to a constant
    values = values - values.mean()
    left, singular, right = np.linalg.svd(design, full_matrices=False)
    rank = int((singular > singular[0] * 1e-10).sum())
    left, singular, right = left[:, :rank], singular[:rank], right[:rank]
    effects = right.T @ ((left.T @ values) / singular)
    inverse = (right.T / singular**2) @ right
    return BlockedFit(
        arms=arms,
        effects=effects[: len(arms)],
        inverse=inverse[: len(arms), : len(arms)],
        component=_link(losses, arms),
        residuals=values - left @ (left.T @ values),
        arm_of=np.array([arm for arm, *_ in cells]),
        basis=left,
        df=len(cells) - rank,
    )


@dataclass(frozen=True, kw_only=True)
class Spread:
    """Whether one residual variance does for all arms."""

    arm: str  # the one with the greatest share of the squared residuals
    ratio: float  # its residual sd over that of the other arms
    p: float


def check_spread(fit: BlockedFit) -> Spread | None:
    """The arm that varies most, and how often chance alone would make one stand out as far.

    The statistic is the greatest share of an arm in the squared residuals, over its share under
    the model; its distribution under one variance depends on the design alone and is drawn.
    None with two arms, whose residuals mirror each other, or without degrees of freedom.
    Source: Cochran 1941, with Monte Carlo p-values after Barnard 1963.
    """
    if len(fit.arms) < 3 or fit.df < 2 or not float(fit.residuals @ fit.residuals) > 0:
        return None
    leverage = (fit.basis**2).sum(axis=1)
    expected = np.bincount(fit.arm_of, 1 - leverage, len(fit.arms)).astype(np.float64)
    known = expected > 1e-9  # an arm alone with its seeds has no residual
    observed = _shares(fit.residuals[None], fit, expected, known)[0]
    at, n_as_far, rng = int(observed.argmax()), 0, np.random.default_rng(0)
    for _ in range(N_DRAWS // N_AT_ONCE):  # a thousand losses would take 100 MB at once
        noise = rng.standard_normal((N_AT_ONCE, len(fit.residuals)))
        drawn = _shares(noise - (noise @ fit.basis) @ fit.basis.T, fit, expected, known)
        n_as_far += int((drawn.max(axis=1) >= observed[at]).sum())
    p = (1 + n_as_far) / (N_DRAWS + 1)
    squares = np.bincount(fit.arm_of, fit.residuals**2, len(fit.arms))
    rest = (squares.sum() - squares[at]) / (expected.sum() - expected[at])
    ratio = math.sqrt(squares[at] / expected[at] / rest) if rest > 0 else math.inf
    return Spread(arm=fit.arms[at], ratio=ratio, p=p)


def _shares(
    residuals: NDArray[np.float64],
    fit: BlockedFit,
    expected: NDArray[np.float64],
    known: NDArray[np.bool_],
) -> NDArray[np.float64]:
    """Each arm's share in the squared residuals over the share it should have, a row a draw."""
    member = np.zeros((residuals.shape[1], len(fit.arms)))
    member[np.arange(len(fit.arm_of)), fit.arm_of] = 1.0
    squares = residuals**2 @ member
    shares = np.zeros_like(squares)
    shares[:, known] = squares[:, known] / squares.sum(axis=1, keepdims=True) / expected[known]
    return shares


def _link(losses: Losses, arms: tuple[str, ...]) -> tuple[int, ...]:
    """A number for each arm; arms that seeds link share one."""
    component = {arm: at for at, arm in enumerate(arms)}
    for seed in {seed for by_seed in losses.values() for seed in by_seed}:
        linked = {component[arm] for arm in arms if seed in losses[arm]}
        component = {arm: min(linked) if at in linked else at for arm, at in component.items()}
    return tuple(component[arm] for arm in arms)
