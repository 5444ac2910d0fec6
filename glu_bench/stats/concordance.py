"""How far one order of arms agrees with another, and what chance alone would give."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

N_EXACT = 8  # arms whose orders are enumerated: 8! = 40,320; 9 would take 362,880
N_DRAWS = 200_000  # random orders beyond: a probability of 0.05 is then known to 0.0005


@dataclass(frozen=True, kw_only=True)
class Concordance:
    """Of the pairs one side tells apart, those that the other side orders the same way."""

    agree: int
    of: int
    chance_level: float  # agreements expected of a random order: each pair has an even chance
    p_at_least: float  # probability of so many or more under a random order
    p_at_most: float
    is_exact: bool  # enumerated; else drawn with a fixed seed
    opposite: list[tuple[str, str]]  # pairs in the other order, or with equal values


def find_concordance(pairs: Sequence[tuple[str, str]], values: Mapping[str, float]) -> Concordance:
    """How many pairs, each (lower, higher), `values` order the same way.

    The chance level is that of a random permutation of the arms: pairs share arms, so the number
    of agreements is not binomial. With all pairs of k arms it is Kendall's statistic.
    """
    opposite = [(a, b) for a, b in pairs if not values[a] < values[b]]
    agree = len(pairs) - len(opposite)
    counts = count_agreements(pairs)
    # an enumeration holds the observed order itself; of draws it is one more, so that p is never 0
    extra = 0 if is_enumerable(pairs) else 1
    total = len(counts) + extra
    return Concordance(
        agree=agree,
        of=len(pairs),
        chance_level=len(pairs) / 2,
        p_at_least=(int((counts >= agree).sum()) + extra) / total,
        p_at_most=(int((counts <= agree).sum()) + extra) / total,
        is_exact=is_enumerable(pairs),
        opposite=opposite,
    )


def count_agreements(pairs: Sequence[tuple[str, str]]) -> NDArray[np.int64]:
    """Agreements with `pairs` in each order of their arms, or in so many random orders."""
    arms = _list_arms(pairs)
    if is_enumerable(pairs):
        ranks = np.array(list(itertools.permutations(range(len(arms)))), dtype=np.float64)
    else:
        ranks = np.random.default_rng(0).random((N_DRAWS, len(arms)))
    counts = np.zeros(len(ranks), dtype=np.int64)
    for a, b in pairs:
        counts += ranks[:, arms.index(a)] < ranks[:, arms.index(b)]
    return counts


def is_enumerable(pairs: Sequence[tuple[str, str]]) -> bool:
    """Whether the orders of the arms in these pairs are few enough to go through them all."""
    return len(_list_arms(pairs)) <= N_EXACT


def _list_arms(pairs: Sequence[tuple[str, str]]) -> list[str]:
    return sorted({arm for pair in pairs for arm in pair})
