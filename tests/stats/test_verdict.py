"""The verdict in words, for each thing that can come out."""

from __future__ import annotations

import re

import pytest

from glu_bench.stats.findings import judge_losses, judge_summaries
from glu_bench.stats.interval import Summary
from glu_bench.stats.verdict import say_verdict

NOISE = (0.011, -0.007, 0.003, -0.009)


def arms(**means: float) -> dict[str, dict[int, float]]:
    """Four seeds an arm; residuals of 0.01 that differ between arms."""
    return {
        arm: {seed: mean + seed + NOISE[(seed * 3 + at * 2 + at * seed) % 4] for seed in range(4)}
        for at, (arm, mean) in enumerate(means.items())
    }


def test_a_clear_winner_is_named_with_its_lead() -> None:
    said = say_verdict(judge_losses(arms(gelu=2.0, swiglu=1.0, relu=3.0), "gelu"))
    assert re.match(r"swiglu is the best: (0\.99|1\.00)\d\d nats below gelu \(95 % interval 0\.98", said)
    assert "separable from every other arm" in said
    assert "better: swiglu (-" in said
    assert "worse: relu (+" in said


def test_a_missing_seed_does_not_make_a_winner() -> None:
    """swiglu lacks the seed that is hard for all: its mean is the least, its losses are not."""
    losses = arms(gelu=2.0, swiglu=1.05, geglu=1.0)
    losses["swiglu"].pop(3)
    found = judge_losses(losses, "gelu")
    means = {row.arm: row.mean_loss_nats for row in found.estimates}
    assert means["swiglu"] < means["geglu"]
    assert [row.arm for row in found.estimates] == ["geglu", "swiglu", "gelu"]
    (pair,) = [pair for pair in found.pairs if "gelu" not in (pair.a, pair.b)]
    assert (pair.a, pair.b) == ("geglu", "swiglu")
    assert pair.difference_nats < 0
    assert not say_verdict(found).startswith("swiglu")
    assert "by least squares" in " ".join(found.warnings)


def test_ranks_are_those_of_the_means_where_all_seeds_are_there() -> None:
    found = judge_losses(arms(gelu=2.0, swiglu=1.0, relu=3.0), "gelu")
    assert "least squares" not in " ".join(found.warnings)
    for row in found.estimates:
        assert row.adjusted_loss_nats == pytest.approx(row.mean_loss_nats, abs=1e-12)


def test_the_second_family_is_named() -> None:
    said = say_verdict(judge_losses(arms(gelu=2.0, swiglu=1.0, geglu=1.001), "gelu"))
    assert "(Holm over 3 pairs.) Against gelu alone (Holm over 2 arms), better: " in said


def test_a_tie_at_the_top_is_no_winner() -> None:
    said = say_verdict(judge_losses(arms(gelu=2.0, swiglu=1.0, geglu=1.001), "gelu"))
    assert "is the best" not in said
    assert "not separable from it" in said
    assert "gelu is worse" in said


@pytest.mark.parametrize("n", [2, 4])
def test_nothing_separable_is_said_first(n: int) -> None:
    names = ("gelu", "swiglu", "relu", "geglu")[:n]
    said = say_verdict(judge_losses(arms(**dict.fromkeys(names, 1.0)), "gelu"))
    assert said.startswith("Not separable at this budget")
    assert "best" not in said


def test_one_seed_is_an_order_not_a_finding() -> None:
    said = say_verdict(judge_losses({"a": {0: 1.0}, "b": {0: 2.0}}, "b"))
    assert said == (
        "a has the least mean loss, 1.0000 nats below b; one seed gives no measure of chance, "
        "so this is an order, not a finding."
    )


def test_an_arm_that_could_not_be_tested_is_named() -> None:
    found = judge_summaries(
        {
            "a": Summary(n=3, mean=1.0, sd=0.01),
            "b": Summary(n=3, mean=2.0, sd=0.01),
            "c": Summary(n=1, mean=1.5, sd=None),
        },
        "b",
    )
    assert "c could not be tested" in say_verdict(found)


def test_what_the_seeds_can_see_is_said() -> None:
    found = judge_losses(arms(gelu=2.0, swiglu=1.0, geglu=1.001), "gelu")
    said = say_verdict(found)
    assert f"differences of {found.detectable_nats:.4f} nats and more with 80 % power" in said
    assert "would settle" in said


def test_one_arm_is_nothing_to_compare() -> None:
    assert "nothing to compare" in say_verdict(judge_losses({"a": {0: 1.0, 1: 2.0}}, "a"))
