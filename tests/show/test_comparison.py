"""A comparison in a terminal of any width."""

from __future__ import annotations

import dataclasses
import io

import pytest
from rich.console import Console

from glu_bench.show.columns import choose_columns, list_defaults
from glu_bench.show.comparison import fit_columns, print_comparison, say_legend, say_test, split_columns
from glu_bench.stats.speedup import Speedup
from glu_bench.study.compare import Comparison
from tests.show.made import HOSTILE, LOSSES, make_comparison


def shown(table: Comparison, width: int, columns: str | None = None) -> tuple[list[str], list[str]]:
    """Lines on a terminal of this width, and the columns left out."""
    file = io.StringIO()
    console = Console(file=file, width=width, force_terminal=True, color_system=None)
    left_out = print_comparison(console, table, None if columns is None else choose_columns(columns))
    return file.getvalue().splitlines(), left_out


def make_speedup(note: str) -> Speedup:
    return Speedup(compute=None, compute_ci95=None, wall=None, wall_ci95=None, note=note)


@pytest.mark.parametrize("width", [30, 80, 100, 160])
def test_no_line_is_wider_than_the_terminal_and_nothing_is_cut_off(width: int) -> None:
    table = make_comparison()
    lines, left_out = shown(table, width)
    assert max(map(len, lines)) <= width
    assert "…" not in "".join(lines)
    fitted = [column.key for column in fit_columns(table, list_defaults(table), width)]
    assert set(fitted) | set(left_out) == {column.key for column in list_defaults(table)}
    assert not set(fitted) & set(left_out)
    for word in table.verdict.split():
        assert any(word in line for line in lines)


def test_a_wider_terminal_shows_more() -> None:
    table = make_comparison()
    n_left = [len(shown(table, width)[1]) for width in (60, 80, 100, 160)]
    assert n_left == sorted(n_left, reverse=True)
    assert n_left[0] > n_left[-1] == 0


@pytest.mark.parametrize("width", [40, 80, 100])
def test_columns_asked_for_go_into_further_tables_below(width: int) -> None:
    table = make_comparison()
    lines, left_out = shown(table, width, "all")
    out = "\n".join(lines)
    assert left_out == []
    assert max(map(len, lines)) <= width
    for head in ("p (Holm)", "FFN params", "tokens/s", "finished"):
        assert (head in out) == (head != "finished")
    parts = split_columns(table, choose_columns("all"), width)
    assert len(parts) > 1
    assert all(part[0].key == "arm" for part in parts)
    assert [c.key for part in parts for c in part if c.key != "arm"] == [
        c.key for c in choose_columns("all") if c.key != "arm"
    ]
    assert out.count(table.setting) == 1


def test_without_a_terminal_no_name_is_too_long() -> None:
    name = "x" * 300
    table = make_comparison({name: (1.0, 1.1), "gelu": (1.2, 1.35)})
    file = io.StringIO()
    print_comparison(Console(file=file, width=200, soft_wrap=True), table, choose_columns("all"))
    assert any(name in line and "37.4k" in line for line in file.getvalue().splitlines())


def test_the_verdict_is_last_and_the_legend_two_lines() -> None:
    table = make_comparison()
    lines, _ = shown(table, 100)
    assert " ".join(" ".join(lines).split()).endswith(" ".join(table.verdict.split()))
    first, second = say_legend(table, list_defaults(table))
    assert first == (
        "arms that share a letter are not separable (Holm over 3 pairs); p: Holm over 2 arms against gelu"
    )
    assert second == say_test(table)
    assert max(len(first), len(second)) <= 100


def test_what_pairing_bought_is_the_ratio_of_variances() -> None:
    table = dataclasses.replace(
        make_comparison(), test="blocked, 4 degrees of freedom", seed_correlation=0.75
    )
    # the variance of a difference of two runs falls from 2 s^2 to 2 s^2 (1 - r): a quarter
    assert say_test(table) == "blocked, 4 df; seeds correlate 0.75: pairing bought a factor of 4 in seeds"
    assert say_test(dataclasses.replace(table, seed_correlation=-0.1)).endswith("pairing bought nothing")
    assert say_test(dataclasses.replace(table, seed_correlation=None)) == "test: blocked, 4 df"


def test_the_legend_explains_what_is_shown_alone() -> None:
    table = make_comparison()
    assert say_legend(table, choose_columns("arm,mean_loss_nats")) == [say_test(table)]
    two_arms = make_comparison({"gelu": (1.0, 1.1), "relu": (1.1, 1.25)})
    assert say_legend(two_arms, list_defaults(two_arms))[0] == (
        "arms that share a letter are not separable; p: against gelu"
    )
    one_seed = make_comparison({"gelu": (1.0,), "relu": (1.1,)})
    assert say_legend(one_seed, list_defaults(one_seed)) == []


def test_names_from_outside_stay_text() -> None:
    table = make_comparison({**LOSSES, HOSTILE: (2.0, 2.1, 2.05)}, setting=HOSTILE)
    for columns in (None, "all", "arm"):
        lines, _ = shown(table, 100, columns)
        assert not {"\x1b", "\u202e"} & set("".join(lines))
        assert "[/x]" in "".join("".join(lines).split())


def test_what_limits_a_speedup_is_said_where_one_is_shown() -> None:
    table = make_comparison()
    limited = make_speedup("one budget")
    arms = [dataclasses.replace(arm, speedup=None if arm.arm == "gelu" else limited) for arm in table.arms]
    told = dataclasses.replace(table, arms=arms)
    assert say_legend(told, choose_columns("arm,speedup.wall"))[0] == "speedup: one budget"
    assert say_legend(told, choose_columns("arm,letters")) == say_legend(table, choose_columns("arm,letters"))
    arms[0] = dataclasses.replace(arms[0], speedup=make_speedup("another"))
    lines = say_legend(dataclasses.replace(table, arms=arms), choose_columns("speedup.compute"))
    assert lines[:2] == ["speedup of geglu: another", "speedup of relu: one budget"]
