"""Numbers as people read them."""

from __future__ import annotations

import pytest

from glu_bench.show.numbers import duration, fixed, p_text, perplexity_text, si


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "-"),
        (0, "0"),
        (999, "999"),
        (12_300, "12.3k"),
        (1_869_888, "1.87M"),
        (-2e9, "-2G"),
        (3e12, "3T"),
    ],
)
def test_si_keeps_three_digits_and_a_unit(value: float | None, text: str) -> None:
    assert si(value) == text


@pytest.mark.parametrize(
    ("elapsed_s", "text"),
    [(None, "-"), (0.2, "0s"), (59.6, "1m00s"), (75, "1m15s"), (3600, "1h00m"), (90_061, "25h01m")],
)
def test_durations_carry_over(elapsed_s: float | None, text: str) -> None:
    assert duration(elapsed_s) == text


def test_fixed_keeps_zeros_and_shows_a_sign_if_asked() -> None:
    assert fixed(1.5, 4) == "1.5000"
    assert fixed(0.5, 2, sign=True) == "+0.50"
    assert fixed(None) == "-"


@pytest.mark.parametrize(
    ("value", "text"), [(None, ">1e308"), (3.14159, "3.142"), (9999.9994, "9999.999"), (1e5, "1e+05")]
)
def test_a_perplexity_that_overflows_says_so(value: float | None, text: str) -> None:
    assert perplexity_text(value) == text


@pytest.mark.parametrize(
    ("p", "text"),
    [
        (None, "-"),
        (0.0004, "<0.001"),
        (0.0494, "0.049"),
        (0.04996, "<0.05"),
        (0.05, "0.050"),
        (0.05004, ">0.05"),
        (0.7, "0.700"),
    ],
)
def test_a_probability_beside_the_line_says_on_which_side_it_is(p: float | None, text: str) -> None:
    assert p_text(p) == text
