"""A published table and ours on a terminal of any width, the verdict last."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from glu_bench.show.reproduce import print_reproduction
from glu_bench.study.card import load_card
from glu_bench.study.reproduce import Finished, judge_reproduction

CARD = load_card("shazeer2020")
# a part of each seed that the arms share, and one of each run
LOSSES = {
    arm: {seed: row.mean + 0.01 * seed + 0.0002 * ((3 * at + seed) % 5) for seed in range(4)}
    for at, (arm, row) in enumerate(CARD.columns["short"].arms.items())
}
TUNED = {arm: {"optim.lr": "0.004"} for arm in LOSSES}


def shown(width: int) -> list[str]:
    finished = Finished(
        losses=LOSSES,
        n_planned=dict.fromkeys(LOSSES, 4),
        tuned=TUNED,
        warnings=[],
        setting="tiny",
    )
    file = io.StringIO()
    console = Console(file=file, width=width, force_terminal=True, color_system=None)
    print_reproduction(console, judge_reproduction(CARD, "short", finished))
    return file.getvalue().splitlines()


@pytest.mark.parametrize("width", [80, 100])
def test_nothing_is_cut_off(width: int) -> None:
    lines = shown(width)
    assert max(map(len, lines)) <= width
    assert "…" not in "".join(lines)
    (head,) = [line.split() for line in lines if line.startswith(" arm ")]
    assert head.count("sd") == (2 if width == 100 else 0)


def test_both_sides_stand_in_a_line_with_their_differences() -> None:
    (line,) = [line.split() for line in shown(100) if line.startswith(" geglu ")]
    assert line[:5] == ["geglu", "1.942", "0.004", "a", "-0.041"]
    assert line[6:] == ["0.0132", "a", "-0.0411", "4", "0.004"]
    (baseline,) = [line.split() for line in shown(100) if line.startswith(" gelu ")]
    assert baseline.count("baseline") == 2


def test_the_verdict_is_the_last_that_is_said() -> None:
    said = " ".join(shown(10_000)[-1:])
    assert said.startswith("verdict: reproduced; ")
