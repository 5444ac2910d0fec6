"""Compact letter display: arms that share a letter are not separable.

Source: Piepho 2004, An algorithm for a letter-based representation of all-pairwise comparisons
(insert and absorb).
"""

from __future__ import annotations

import string
from collections.abc import Collection, Sequence

ALPHABET = string.ascii_lowercase + string.ascii_uppercase


def assign_letters(arms: Sequence[str], separable: Collection[tuple[str, str]]) -> dict[str, str]:
    """Letters of each arm, `arms` in the order of the table, so that the first holds an "a".

    Two arms share a letter exactly if no pair of `separable`, in either order, names them.
    """
    groups: list[frozenset[str]] = [frozenset(arms)]
    for one, other in sorted(tuple(sorted(pair)) for pair in separable):
        split: list[frozenset[str]] = []
        for group in groups:
            split += [group - {one}, group - {other}] if one in group and other in group else [group]
        groups = _absorb(split)
    place = {arm: at for at, arm in enumerate(arms)}
    ordered = sorted(groups, key=lambda group: sorted(place[arm] for arm in group))
    return {arm: "".join(_name(at) for at, group in enumerate(ordered) if arm in group) for arm in arms}


def _absorb(groups: list[frozenset[str]]) -> list[frozenset[str]]:
    """The groups that lie in no other, each once."""
    kept: list[frozenset[str]] = []
    for group in sorted(set(groups), key=lambda g: (-len(g), sorted(g))):
        if group and not any(group <= other for other in kept):
            kept.append(group)
    return kept


def _name(at: int) -> str:
    return ALPHABET[at] if at < len(ALPHABET) else f"({at + 1})"
