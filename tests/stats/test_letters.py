"""Letters say exactly what the pairs say."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from glu_bench.stats.letters import assign_letters

ARMS = list("PQRSTU")
PAIRS = list(itertools.combinations(ARMS, 2))


@given(st.sets(st.sampled_from(PAIRS)))
def test_two_arms_share_a_letter_exactly_if_they_are_not_separable(separable: set[tuple[str, str]]) -> None:
    letters = assign_letters(ARMS, separable)
    for pair in PAIRS:
        assert (not set(letters[pair[0]]) & set(letters[pair[1]])) == (pair in separable)


@given(st.sets(st.sampled_from(PAIRS)))
def test_letters_are_few_and_begin_with_a(separable: set[tuple[str, str]]) -> None:
    letters = assign_letters(ARMS, separable)
    assert letters[ARMS[0]].startswith("a")
    members = {
        letter: {arm for arm in ARMS if letter in letters[arm]} for letter in "".join(letters.values())
    }
    assert not any(one < other for one, other in itertools.permutations(members.values(), 2))


def test_no_separable_pair_is_one_letter() -> None:
    assert assign_letters(["x", "y", "z"], []) == {"x": "a", "y": "a", "z": "a"}


def test_beyond_the_alphabet_letters_are_numbers() -> None:
    arms = [f"arm{at}" for at in range(60)]
    letters = assign_letters(arms, list(itertools.combinations(arms, 2)))
    assert len(set(letters.values())) == 60
    assert (letters["arm0"], letters["arm51"], letters["arm52"]) == ("a", "Z", "(53)")
