"""Laws over budgets and sizes: what is grouped, what is fitted, what is refused with a word."""

from __future__ import annotations

import random
from typing import Any

import pytest

from glu_bench import schema
from glu_bench.errors import ConfigError
from glu_bench.grid import load_grid
from glu_bench.study.arms import Entry
from glu_bench.study.scaling import ArmLaw, Scaling, fit_entries, fit_scaling, list_beyond
from tests.study.conftest import MakeEntry, MakeRun
from tests.study.test_speedup import STEPS, law, make_arm, make_baseline


def curve_of(scalings: list[Scaling], arm: str) -> ArmLaw:
    (scaling,) = scalings
    return next(curve for curve in scaling.curves if curve.arm == arm)


def make_both(make_entry: MakeEntry) -> list[Entry]:
    return make_baseline(make_entry) + [
        run for steps in STEPS for run in make_arm(make_entry, "swiglu", steps, 1.37, tokens_per_s=400.0)
    ]


def test_each_arm_has_its_law(make_entry: MakeEntry) -> None:
    (scaling,) = fit_entries(make_both(make_entry), predict=[64 * 6000.0])
    assert (scaling.over, scaling.split, scaling.baseline) == ("tokens", "test", "gelu")
    assert [curve.arm for curve in scaling.curves] == ["swiglu", "gelu"]  # the better one first
    gelu, swiglu = curve_of([scaling], "gelu"), curve_of([scaling], "swiglu")
    assert gelu.law is not None
    assert swiglu.law is not None
    assert gelu.law.l_inf_nats == pytest.approx(2.0, abs=1e-3)
    assert gelu.law.alpha == pytest.approx(0.3, rel=1e-3)
    assert swiglu.law.a_nats == pytest.approx(5.0 * (1.37 / 64) ** -0.3, rel=5e-3)
    (foretold,) = gelu.predictions
    assert foretold.loss_nats == pytest.approx(law(6000), abs=1e-3)
    assert foretold.ci95[0] < law(6000) < foretold.ci95[1]
    assert not foretold.beyond
    assert gelu.speedup is None
    assert swiglu.speedup is not None
    assert swiglu.speedup.compute == pytest.approx(1.37, rel=2e-3)
    assert swiglu.speedup.wall == pytest.approx(1.37 * 400 / 500, rel=2e-3)


def test_points_say_how_many_runs_they_are_of(make_entry: MakeEntry) -> None:
    runs = make_baseline(make_entry)
    runs.append(make_entry("gelu", 3, None, {"train.steps": 300}))
    runs.append(make_entry("gelu", 3, None, {"train.steps": 777}))  # no run tells its tokens
    (scaling,) = fit_entries(runs)
    points = curve_of([scaling], "gelu").points
    assert [(p.c, p.n_finished, p.n_planned, p.n_diverged) for p in points] == [
        (64.0 * steps, 3, 4 if steps == 300 else 3, int(steps == 300)) for steps in STEPS
    ]
    assert points[0].sd_loss_nats == pytest.approx(1e-5, rel=1e-3)
    assert scaling.warnings == ["gelu: 12 of 14 runs finished"]


@pytest.mark.parametrize("times", [2.01, 1 / 2.01])
def test_twice_the_measured_range_is_the_end_of_trust(times: float, make_entry: MakeEntry) -> None:
    end = 64.0 * (STEPS[-1] if times > 1 else STEPS[0])
    (scaling,) = fit_entries(make_baseline(make_entry), predict=[end * times, end])
    assert [each.beyond for each in scaling.curves[0].predictions] == [True, False]
    (line,) = list_beyond(scaling)
    assert "2.01 times " + ("above" if times > 1 else "below") in line
    assert "holds only if the law does" in line


def test_an_arm_with_too_few_budgets_is_shown_without_a_law(make_entry: MakeEntry) -> None:
    runs = make_baseline(make_entry)
    runs += [run for steps in STEPS[1:] for run in make_arm(make_entry, "swiglu", steps, 1.37)]
    swiglu = curve_of(fit_entries(runs, predict=[1e6]), "swiglu")
    assert (swiglu.law, swiglu.predictions, len(swiglu.points)) == (None, [], 3)
    assert swiglu.why == "3 budgets: a fit takes 4"
    assert swiglu.speedup is not None  # the baseline's law is all it takes
    assert swiglu.speedup.compute == pytest.approx(1.37, rel=2e-3)


def test_too_few_budgets_everywhere_is_one_line_with_the_sweep(make_entry: MakeEntry) -> None:
    runs = make_baseline(make_entry, steps=STEPS[:2]) + make_arm(make_entry, "swiglu", 100, 1.1)
    with pytest.raises(ConfigError) as caught:
        fit_entries(runs)
    said = str(caught.value)
    assert "a fit takes 4 budgets" in said
    assert "gelu has finished runs at 2 of them" in said
    wanted = "glu-bench sweep variant=gelu,swiglu model=pico train.tokens=6400,19200,38400,76800 seed=0,1,2"
    assert said.endswith(wanted)
    assert "\n" not in said


def test_nothing_at_all_is_one_line_with_a_sweep() -> None:
    with pytest.raises(
        ConfigError, match=r"no finished runs: glu-bench sweep variant=gelu,swiglu model=nano"
    ):
        fit_entries([])


def test_the_sweep_for_sizes_keeps_the_context(make_entry: MakeEntry) -> None:
    with pytest.raises(
        ConfigError, match=r"4 sizes .* model=pico,nano,micro,mini model\.seq_len=16 train\.tokens=6400 "
    ):
        fit_entries(make_baseline(make_entry, steps=STEPS[:1]), over="params")


def test_settings_that_differ_in_more_than_the_budget_share_no_law(make_entry: MakeEntry) -> None:
    runs = make_baseline(make_entry, steps=STEPS[:2]) + make_baseline(
        make_entry, {"optim.lr": 1e-3}, steps=STEPS[2:]
    )
    with pytest.raises(ConfigError, match="a fit takes 4"):
        fit_entries(runs)
    whole = make_baseline(make_entry)
    (scaling,) = fit_entries([*whole, *runs])
    assert len(scaling.left_out) == len(STEPS[2:]) * 3
    assert "tokens" not in scaling.setting
    assert "pico 48x2" in scaling.setting


SIZES = {32: 10_000, 48: 40_000, 64: 160_000, 96: 640_000}


def make_sizes(make_entry: MakeEntry, variant: str, **changes: Any) -> list[Entry]:
    return [
        make_entry(
            variant,
            seed,
            1.0 + 30.0 * n_params**-0.4 + jitter,
            {"model.d_model": d_model, "model.preset": f"d{d_model}"},
            n_params=n_params,
            flops_per_token=6 * n_params,
            **changes,
        )
        for d_model, n_params in SIZES.items()
        for seed, jitter in enumerate((-1e-6, 1e-6))
    ]


def test_the_law_over_sizes_counts_parameters(make_entry: MakeEntry) -> None:
    scalings = fit_entries(make_sizes(make_entry, "gelu"), over="params", predict=[2e6])
    curve = curve_of(scalings, "gelu")
    assert [point.c for point in curve.points] == [float(n) for n in SIZES.values()]
    assert curve.law is not None
    assert curve.law.alpha == pytest.approx(0.4, rel=1e-3)
    assert curve.predictions[0].loss_nats == pytest.approx(1 + 30 * 2e6**-0.4, rel=1e-4)
    assert curve.predictions[0].beyond
    assert curve.speedup is None
    assert "48x2" not in scalings[0].setting
    with pytest.raises(ConfigError, match="a fit takes 4 budgets"):
        fit_entries(make_sizes(make_entry, "gelu"))


def test_the_law_over_flops_goes_through_the_frontier(make_entry: MakeEntry) -> None:
    runs = make_sizes(make_entry, "gelu", tokens=1000)
    # dear and bad: longer training of the smallest model to a loss that a larger one has for less
    bad = [
        make_entry(
            "gelu",
            seed,
            1.9,
            {"model.d_model": 32, "model.preset": "d32", "train.steps": 7},
            tokens=100_000,
            n_params=10_000,
            flops_per_token=60_000,
        )
        for seed in range(2)
    ]
    curve = curve_of(fit_entries([*runs, *bad], over="flops"), "gelu")
    assert [point.c for point in curve.points if point.fitted] == [6.0 * n * 1000 for n in SIZES.values()]
    assert [point.c for point in curve.points if not point.fitted] == [60_000.0 * 100_000]
    assert curve.law is not None
    assert curve.law.alpha == pytest.approx(0.4, rel=1e-3)
    assert curve.why == "1 of 5 points off the frontier"


def test_budgets_alone_over_flops_are_all_fitted(make_entry: MakeEntry) -> None:
    curve = curve_of(fit_entries(make_baseline(make_entry), over="flops"), "gelu")
    assert [point.c for point in curve.points] == [64_000.0 * steps for steps in STEPS]
    assert all(point.fitted for point in curve.points)


def test_the_order_of_the_runs_changes_nothing(make_entry: MakeEntry) -> None:
    runs = make_both(make_entry)
    found = []
    for seed in range(3):
        random.Random(seed).shuffle(runs)
        found.append(fit_entries(runs, predict=[1e6]))
    assert found[0] == found[1] == found[2]


def test_a_baseline_that_is_no_arm_is_refused(make_entry: MakeEntry) -> None:
    with pytest.raises(ConfigError, match="--baseline relu: not among the arms gelu"):
        fit_entries(make_baseline(make_entry), baseline="relu")
    runs = make_both(make_entry)
    (scaling,) = fit_entries(runs, baseline="swiglu")
    gelu = curve_of([scaling], "gelu")
    assert gelu.speedup is not None
    assert gelu.speedup.compute == pytest.approx(1 / 1.37, rel=2e-3)


def test_losses_that_rise_are_shown_without_a_law(make_entry: MakeEntry) -> None:
    runs = [
        make_entry("gelu", 0, 2.0 + steps / 1e4, {"train.steps": steps}, tokens=64 * steps) for steps in STEPS
    ]
    curve = curve_of(fit_entries(runs, predict=[1e6]), "gelu")
    assert curve.law is None
    assert "does not fall" in curve.why


def test_what_to_run_keeps_the_setting_and_adds_the_budgets_that_are_missing(make_run: MakeRun) -> None:
    words = ("optim.lr=0.004", "data=text", "data.files=[a.txt]", "tokenizer=byte")
    runs = [
        make_run(arm, 0, 2.0 - at / 10, *words, f"train.steps={6 * at}", tokens=384 * at)
        for arm in ("gelu", "swiglu")
        for at in (1, 2, 4)
    ]
    with pytest.raises(ConfigError) as raised:
        fit_scaling(runs)
    said = str(raised.value)
    assert "swiglu has finished runs at 3 of them: glu-bench sweep variant=gelu,swiglu" in said
    command = said.partition("glu-bench sweep ")[2].split()
    assert "optim.lr=0.004" in command
    assert [word for word in command if word.startswith("train.tokens=")] == ["train.tokens=3072"]
    assert not any(word.startswith("train.steps=") for word in command)
    setting = schema.flatten_config(runs[0].config())
    for _, config in load_grid(command):
        again = schema.flatten_config(config)
        differs = {key for key in setting if again[key] != setting[key] and not key.startswith("variant.")}
        assert differs <= {"train.tokens", "train.steps", "seed"}
