"""Claims on run folders whose differences are known: each verdict, and what is missing."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.stats
from scipy import stats

from glu_bench.errors import DataError
from glu_bench.ffn.formula import CORE
from glu_bench.runs.folder import Run
from glu_bench.study.claim_table import CLAIMS, DEEP, FactClaim, RunClaim
from glu_bench.study.claims import Judged, judge_claims
from tests.study.conftest import MakeRun
from tests.study.test_compare import tune

NOISE = (0.004, -0.003, 0.001, -0.002)
SEED = (0.02, -0.01, 0.03, -0.04)  # what a seed adds to every arm
Losses = dict[str, float]
BETTER = {"relu": 2.0, "gelu": 1.98, "geglu": 1.9, "swiglu": 1.9}


def t_test(values: Sequence[float], level: float) -> float:
    return float(scipy.stats.ttest_1samp(values, level).pvalue)


def pick(part: str, match: str | None = "params") -> list[RunClaim | FactClaim]:
    """The claims whose measurement or claim holds these words, at one matching."""
    found = [claim for claim in CLAIMS if part in f"{claim.claim}: {claim.measurement}"]
    assert found
    return [claim for claim in found if match in claim.matches]


def inspect_nothing(run: Run) -> dict[str, float | int | None]:
    raise AssertionError(f"{run.path.name} was inspected")


def make_arms(make_run: MakeRun, losses: Losses, *words: str, n: int = 4, **changes: Any) -> list[Run]:
    """Runs of n seeds; the noise of each arm is a turn of the same four numbers."""
    return [
        make_run(arm, seed, loss + SEED[seed] + NOISE[(seed + at) % 4], *words, **changes)
        for at, (arm, loss) in enumerate(losses.items())
        for seed in range(n)
    ]


def judge(runs: Sequence[Run], part: str, inspect: Any = inspect_nothing) -> list[Judged]:
    return judge_claims(runs, inspect=inspect, table=pick(part)).claims


def test_what_lies_on_the_predicted_side_is_supported(make_run: MakeRun) -> None:
    row, other = judge(make_arms(make_run, BETTER), "these minus ReLU and GELU")
    assert (row.verdict, row.match, row.n_seeds) == ("supported", "params", 4)
    assert row.value == pytest.approx(1.9 - 1.99, abs=0.004)
    assert row.ci95 is not None
    assert row.ci95[0] < row.value < row.ci95[1] < 0
    assert set(row.arms) == {"swiglu", "geglu", "relu", "gelu"}
    assert (other.verdict, other.match, other.value, other.ci95) == ("not_measured", "width", None, None)
    assert "variant=swiglu,geglu,relu,gelu match=width" in other.note


def test_what_depends_on_the_machine_is_not_measured_on_several(make_run: MakeRun) -> None:
    words = "time of a training step, gated over ungated"
    runs = make_arms(make_run, {"relu": 2.0, "reglu": 1.9}, machine={"cpu": "C", "n_threads": 1})
    assert judge(runs, words)[0].verdict != "not_measured"
    other = make_run("reglu", 9, 1.9, machine={"cpu": "C", "n_threads": 2})
    row = judge([*runs, other], words)[0]
    assert (row.verdict, row.note) == ("not_measured", "the runs were trained on C, 1 thread; C, 2 threads")
    assert (
        judge([*runs, other], "variance of hidden", lambda run: {"hidden_varying_share": 0.5})[0].value == 0
    )


def test_parts_of_the_runs_looked_at_are_no_other_setting(make_run: MakeRun) -> None:
    """Tuned arms that chose one rate are a setting of that rate too."""
    runs = make_arms(make_run, {"relu": 2.0, "gelu": 1.98, "geglu": 1.9})
    runs += make_arms(make_run, {"swiglu": 1.9}, "optim.lr=1e-3")
    tune("one", runs, "1e-3", "2e-3")
    row = judge(runs, "these minus ReLU and GELU")[0]
    assert "lr tuned" in row.setting
    assert row.note == ""


def test_what_lies_on_the_other_side_is_not_supported(make_run: MakeRun) -> None:
    runs = make_arms(make_run, {"relu": 1.9, "gelu": 1.9, "geglu": 2.0, "swiglu": 2.0})
    row = judge(runs, "these minus ReLU and GELU")[0]
    assert row.verdict == "not_supported"
    assert row.ci95 is not None
    assert row.ci95[0] > 0


def test_what_chance_explains_is_not_separable(make_run: MakeRun) -> None:
    runs = make_arms(make_run, {"relu": 1.9, "gelu": 1.9, "geglu": 1.9, "swiglu": 1.9})
    row = judge(runs, "these minus ReLU and GELU")[0]
    assert row.verdict == "not_separable"
    assert row.ci95 is not None
    assert row.ci95[0] < 0 < row.ci95[1]


def test_one_seed_has_a_number_and_no_verdict(make_run: MakeRun) -> None:
    row = judge(make_arms(make_run, BETTER, n=1), "these minus ReLU and GELU")[0]
    assert (row.verdict, row.ci95, row.p_raw, row.n_seeds) == ("not_separable", None, None, 1)
    assert row.value is not None
    assert "one seed" in row.note


def test_two_arms_are_the_paired_t_of_scipy(make_run: MakeRun) -> None:
    runs = make_arms(make_run, {"relu": 2.0, "gelu": 1.98})
    (row,) = judge_claims(runs, inspect=inspect_nothing, table=pick("GELU minus ReLU", None)).claims
    losses = {
        arm: [r.result()["test_loss_nats"] for r in runs if arm in r.path.name] for arm in ("gelu", "relu")
    }
    witness = stats.ttest_rel(losses["gelu"], losses["relu"])
    assert row.p_raw == pytest.approx(witness.pvalue)
    assert row.ci95 == pytest.approx(tuple(witness.confidence_interval()))
    assert (row.match, row.note) == (None, "2 layers, not a very deep network")


def test_holm_is_over_all_tests_of_the_table(make_run: MakeRun) -> None:
    """Three tests: the least p times 3, the next times 2, the last as it is, and never falling."""
    runs = make_arms(make_run, {**BETTER, "glu": 1.903})
    found = judge_claims(runs, inspect=inspect_nothing, table=pick("test loss"))
    tested = sorted((row.p_raw, row.p_holm) for row in found.claims if row.p_raw is not None)
    assert found.n_tests == len(tested) == 3
    greatest = 0.0
    for rank, (raw, holm) in enumerate(tested):
        greatest = max(greatest, min(1.0, raw * (3 - rank)))
        assert holm == pytest.approx(greatest)
    alone = judge(runs, "SwiGLU minus GLU")[0]
    assert alone.p_holm == alone.p_raw


def test_a_difference_that_holm_takes_back_is_not_separable(make_run: MakeRun) -> None:
    """p of the paired t of one claim alone lies under 0.05, and over it times the number of tests."""
    runs = make_arms(make_run, {"relu": 2.0, "gelu": 1.99})
    table = pick("GELU minus ReLU", None)
    (alone,) = judge_claims(runs, inspect=inspect_nothing, table=table).claims
    assert alone.p_raw is not None
    assert 0.05 / 20 < alone.p_raw < 0.05
    assert alone.verdict == "supported"
    many = judge_claims(runs, inspect=inspect_nothing, table=table * 20).claims
    assert {row.verdict for row in many} == {"not_separable"}


def test_counts_are_exact_and_take_no_interval(make_run: MakeRun) -> None:
    def runs(match: str, flops: int) -> list[Run]:
        words = (f"match={match}",)
        return make_arms(make_run, {"relu": 2.0}, *words, n=2, flops_per_token=1000) + make_arms(
            make_run, {"reglu": 1.9}, *words, n=2, flops_per_token=flops
        )

    params, width = judge([*runs("params", 1003), *runs("width", 1200)], "FLOPs/token of the model")
    assert (params.verdict, width.verdict) == ("not_supported", "supported")
    assert params.value == pytest.approx(1.003)
    assert width.value == pytest.approx(1.2)
    assert params.ci95 is width.ci95 is params.p_raw is width.p_raw is None
    assert width.note == "without geglu, gelu, swiglu, swish"


def test_ratios_are_of_geometric_means(make_run: MakeRun) -> None:
    """Step times of 2 and 4 s over 1 and 1: sqrt(8)."""
    runs = []
    for seed, noise in enumerate((1.0, 1.01, 0.99)):
        for arm, seconds in (("relu", 1.0), ("gelu", 1.0), ("reglu", 2.0 * noise), ("geglu", 4.0 / noise)):
            runs.append(make_run(arm, seed, 2.0, tokens_per_s=1 / seconds))
    row = judge(runs, "time of a training step, gated")[0]
    assert row.value == pytest.approx(8**0.5)
    assert row.verdict == "supported"
    assert row.ci95 is not None
    assert 1 < row.ci95[0] < row.value < row.ci95[1]


def dead_of(shares: dict[str, float]) -> Callable[[Run], dict[str, float | int | None]]:
    def inspect(run: Run) -> dict[str, float | int | None]:
        arm, seed = run.path.name.split("-")[0], run.identity()["seed"]
        return {"dead_share": shares[arm] * (1 + 0.1 * NOISE[seed] / 0.004), "zero_share": None}

    return inspect


def test_dead_units_come_from_inspections(make_run: MakeRun) -> None:
    runs = make_arms(make_run, {"relu": 2.0, "gelu": 2.0, "reglu": 2.0, "geglu": 2.0, "swiglu": 2.0})
    shares = {"relu": 0.2, "reglu": 0.1, "gelu": 0.0, "geglu": 0.0, "swiglu": 0.0}
    row = judge(runs, "0 for every token that was inspected, at the end", dead_of(shares))[0]
    assert row.verdict == "supported"
    # strata count alike: (0.2 - 0 + 0.1 - 0) / 2, at seeds whose noise is 1, -3/4, 1/4, -1/2 of a tenth
    assert row.value == pytest.approx(0.15)
    assert row.note == "without swish"
    nothing = judge(runs, "hidden numbers that are exactly 0", dead_of(shares))[0]
    assert nothing.verdict == "not_measured"
    assert "hold no such number" in nothing.note


def test_a_share_is_tested_against_the_level_that_is_stated(make_run: MakeRun) -> None:
    """A share is never below 0: that it lies above 0 would be no finding."""
    runs = make_arms(make_run, {"glu": 2.0})

    def judge_at(high: float) -> Judged:
        def inspect(run: Run) -> dict[str, float | int | None]:
            return {"saturation_high": high * (1 + 10 * NOISE[run.identity()["seed"]]), "saturation_low": 0.5}

        return judge(runs, "gates above 0.95: more than 1 %", inspect)[0]

    few, many = judge_at(0.002), judge_at(0.05)
    assert (few.level, few.predicted, few.verdict) == (0.01, "above", "not_supported")
    assert few.ci95 is not None
    assert 0 < few.ci95[0] < few.ci95[1] < 0.01
    assert many.verdict == "supported"
    assert many.p_raw is not None
    assert many.p_raw == pytest.approx(t_test([0.05 * (1 + 10 * each) for each in NOISE], 0.01))


def test_a_run_is_inspected_once_and_named_if_it_cannot_be(make_run: MakeRun) -> None:
    runs = make_arms(make_run, {"relu": 2.0, "swish": 2.0})
    seen: list[str] = []
    inner = dead_of({"relu": 0.2, "swish": 0.0})

    def inspect(run: Run) -> dict[str, float | int | None]:
        seen.append(run.path.name)
        if run.path == runs[0].path:
            raise DataError("its checkpoints are gone")
        return inner(run)

    table = [claim for claim in CLAIMS if "dead units at the end" in claim.measurement] * 2
    found = judge_claims(runs, inspect=inspect, table=table)
    assert sorted(seen) == sorted(run.path.name for run in runs)
    assert found.warnings == [f"{runs[0].path.name} was not inspected: its checkpoints are gone"]
    assert [row.n_seeds for row in found.claims] == [3, 3]
    assert found.claims[0].verdict == "supported"


def test_very_deep_runs_count_before_others(make_run: MakeRun) -> None:
    shallow = make_arms(make_run, {"relu": 2.0, "gelu": 2.0})
    deep = make_arms(make_run, {"relu": 2.0, "gelu": 1.5}, f"model.n_layers={DEEP}", n=2)
    table = pick("GELU minus ReLU", None)
    (row,) = judge_claims([*shallow, *deep], inspect=inspect_nothing, table=table).claims
    assert row.value == pytest.approx(-0.5, abs=0.01)
    assert row.note == "32 layers; 1 other setting not looked at"


def test_the_setting_with_most_seeds_counts(make_run: MakeRun) -> None:
    few = make_arms(make_run, {"swiglu": 2.0, "glu": 2.0}, "train.steps=9", n=2)
    many = make_arms(make_run, {"swiglu": 1.5, "glu": 2.0}, n=3)
    for runs in ([*few, *many], [*many, *few]):
        row = judge(runs, "SwiGLU minus GLU")[0]
        assert row.n_seeds == 3
        assert "6 steps" in row.setting


def test_several_epochs_and_compilers_are_looked_for(make_run: MakeRun) -> None:
    rows = "".join(
        json.dumps({"step": at, "tokens": at, "loss_nats": 3.0 - at, "val_loss_nats": 3.5 - at}) + "\n"
        for at in range(3)
    )
    once = make_arms(make_run, {"relu": 2.0, "reglu": 2.0}, n=2)
    for run in once:
        run.metrics_path.write_text(rows)
    assert judge(once, "regularises")[0].verdict == "not_measured"
    words = ("train.steps=null", "train.epochs=3")
    several = make_arms(make_run, {"relu": 2.0, "reglu": 2.0}, *words, n=2)
    for run in several:
        run.metrics_path.write_text(rows)
    row = judge([*once, *several], "regularises")[0]
    assert (row.value, row.verdict) == (pytest.approx(0.0), "not_separable")
    gates = make_arms(make_run, {"reglu": 2.0, "geglu": 2.0}, n=2)
    compiled, _, eager, _ = judge(gates, "ReLU is the cheapest gate")
    assert (compiled.verdict, eager.value) == ("not_measured", pytest.approx(1.0))
    assert "train.compile=true" in compiled.note


def test_what_takes_every_row_of_a_log_is_not_measured_of_evaluations(make_run: MakeRun) -> None:
    runs = make_arms(make_run, {"relu": 2.0, "swiglu": 2.0}, "train.log_every=1", n=2)
    for every, verdict in ((1, "not_separable"), (2, "not_measured")):
        for run in runs:
            rows = [{"step": at, "loss_nats": 3.0, "grad_norm": 1.0} for at in range(1, 41, every)]
            run.metrics_path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        for part in ("loss spikes", "99th percentile"):
            assert judge(runs, f"SwiGLU trains stably: {part}")[0].verdict == verdict


def test_learning_rates_form_no_setting_of_their_own_for_the_highest_stable_one(make_run: MakeRun) -> None:
    runs = []
    for seed in range(2):
        for arm, broken in (("swiglu", 0.4), ("relu", 0.2 if seed else 0.1)):
            for lr in (0.05, 0.1, 0.2, 0.4):
                word = f"optim.lr={lr}"
                bad = lr >= broken
                runs.append(make_run(arm, seed, None if bad else 2.0, word, diverged=bad))
    found = judge(runs, "SwiGLU trains stably: highest stable")
    # swiglu 0.2 at both seeds, relu 0.05 and 0.1: sqrt(4 * 2)
    assert found[0].value == pytest.approx(8**0.5)
    assert found[0].n_seeds == 2
    assert "adamw" in found[0].setting
    assert " lr " not in found[0].setting  # it is of all rates
    assert found[1].verdict == "not_measured"
    stable = make_arms(make_run, {"swiglu": 2.0, "relu": 2.0}, "train.batch_size=2")
    assert "no learning rate diverged" in judge(stable, "SwiGLU trains stably: highest stable")[0].note
    # a longer sweep at one rate says nothing of rates
    longer = [
        make_run(arm, seed, 2.0, "train.steps=60", tokens=10**6)
        for arm in ("swiglu", "relu")
        for seed in (0, 1)
    ]
    assert judge([*longer, *runs], "SwiGLU trains stably: highest stable")[0] == replace(
        found[0], note="1 other setting not looked at"
    )
    # nor do more seeds of as many rates, all of them stable
    more = [
        make_run(arm, seed, 2.0, "train.steps=60", f"optim.lr={lr}")
        for arm in ("swiglu", "relu")
        for seed in range(4)
        for lr in (0.05, 0.1, 0.2, 0.4)
    ]
    assert judge([*more, *runs], "SwiGLU trains stably: highest stable")[0].value == found[0].value


def test_runs_that_did_not_finish_are_counted(make_run: MakeRun) -> None:
    runs = make_arms(make_run, {"swiglu": 1.9, "glu": 2.0}, n=3)
    runs += [make_run("glu", 3, None, diverged=True), make_run("swiglu", 3, None)]
    assert judge(runs, "SwiGLU minus GLU")[0].note == "6 of 8 runs, 1 diverged"


def test_the_order_of_inputs_and_other_variants_change_nothing(make_run: MakeRun) -> None:
    runs = make_arms(make_run, {**BETTER, "glu": 1.95}) + make_arms(
        make_run, {"glu": 2.0, "swiglu": 2.0}, "match=width"
    )
    others = make_arms(make_run, {"mish": 1.0, "relu2": 1.0})
    table = pick("test loss")
    found = judge_claims(runs, inspect=inspect_nothing, table=table)
    shuffled = [runs[at] for at in np.random.default_rng(0).permutation(len(runs))]
    assert judge_claims([*others, *shuffled], inspect=inspect_nothing, table=table) == found
    assert "supported" in {row.verdict for row in found.claims}


def test_without_runs_facts_alone_have_a_verdict(tmp_path: Path) -> None:
    found = judge_claims([], inspect=inspect_nothing)
    by_kind = {isinstance(claim, FactClaim): set[str]() for claim in CLAIMS}
    rows = iter(found.claims)
    for claim in CLAIMS:
        for match in claim.matches:
            row = next(rows)
            assert (row.claim, row.measurement, row.match) == (claim.claim, claim.measurement, match)
            by_kind[isinstance(claim, FactClaim)].add(row.verdict)
    assert by_kind == {True: {"supported", "not_supported"}, False: {"not_measured"}}
    assert found.n_tests == 0


def test_the_table_speaks_of_the_eight_alone_and_says_where_claims_are_made() -> None:
    assert all(claim.source and claim.measurement and claim.claim for claim in CLAIMS)
    assert {arm for claim in CLAIMS if isinstance(claim, RunClaim) for arm in claim.arms} <= set(CORE)
    rows = [(claim.claim, claim.measurement) for claim in CLAIMS]
    assert len(set(rows)) == len(rows)
