"""Drawings in characters: where the dots are, and that no width breaks them."""

from __future__ import annotations

import math

import pytest

from glu_bench.show.plot import Canvas, can_draw_unicode, draw_curve


def test_a_rising_line_in_ascii() -> None:
    lines = draw_curve([0, 1, 2], [0, 1, 2], width=3, height=3, unicode=False, axes=False)
    assert lines == ["  *", " * ", "*  "]


def test_braille_dots_are_where_unicode_puts_them() -> None:
    canvas = Canvas(1, 1, unicode=True)
    canvas.curve = {(0, 0), (1, 3)}  # dots 1 and 8
    assert canvas.lines() == ["⢁"]


def test_labels_are_the_extremes() -> None:
    lines = draw_curve([0, 1], [-0.278, 3.928], width=40, height=5, unicode=True)
    assert lines[0].startswith(" 3.928 ")
    assert lines[-1].startswith("-0.278 ")
    assert max(len(line) for line in lines) == 40


@pytest.mark.parametrize("unicode", [True, False])
@pytest.mark.parametrize("width", [1, 2, 7, 20, 21, 200])
@pytest.mark.parametrize("y", [[1.0], [5.0, 5.0], [1e30, -1e30, 0.0], [math.nan, 1.0, math.inf], [1e-9, 0.0]])
def test_no_width_and_no_value_breaks_it(width: int, y: list[float], unicode: bool) -> None:
    lines = draw_curve(range(len(y)), y, width=width, height=3, unicode=unicode)
    assert len(lines) == 3
    assert all(len(line) <= width for line in lines)


def test_nothing_finite_is_nothing_drawn() -> None:
    assert draw_curve([0.0], [math.nan], width=20, height=3, unicode=True) == []


@pytest.mark.parametrize(
    ("encoding", "can"), [("utf-8", True), ("ascii", False), ("latin-1", False), ("nonsense", False)]
)
def test_encodings(encoding: str, can: bool) -> None:
    assert can_draw_unicode(encoding) is can
