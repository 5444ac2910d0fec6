"""Anybody's results: rows of runs or of arms, and files that are wrong."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from scipy import stats

from glu_bench.errors import ConfigError, DataError, GluBenchError
from glu_bench.study.compare import Arm, Comparison
from glu_bench.study.results_csv import compare_csv
from tests.stats.test_golden import LETTERS, SHAZEER


def compare_text(folder: Path, text: str, baseline: str | None = None) -> Comparison:
    path = folder / "results.csv"
    path.write_text(text, encoding="utf-8")
    return compare_csv(path, baseline)


def arm_of(table: Comparison, name: str) -> Arm:
    return next(arm for arm in table.arms if arm.arm == name)


def test_shazeers_table_as_a_file_gives_his_ties(tmp_path: Path) -> None:
    lines = [f"{arm},{mean},{sd},4" for arm, (mean, sd) in SHAZEER.items()]
    table = compare_text(tmp_path, "arm,mean,sd,n\n" + "\n".join(lines), "relu")
    assert sum(pair.separable for pair in table.pairs) == 17
    assert {arm.arm: arm.letters for arm in table.arms if "c" not in arm.letters} == LETTERS
    assert [arm.arm for arm in table.arms][:3] == ["geglu", "swiglu", "reglu"]
    assert all((arm.n_finished, arm.n_planned) == (4, 4) for arm in table.arms)


RUNS = "arm,seed,loss\n" + "\n".join(
    f"{arm},{seed},{loss}"
    for arm, losses in {"gelu": (2.0, 2.3, 2.1), "swiglu": (1.8, 2.15, 1.9)}.items()
    for seed, loss in enumerate(losses)
)


def test_rows_of_runs_are_paired_by_seed(tmp_path: Path) -> None:
    table = compare_text(tmp_path, RUNS)
    witness = stats.ttest_rel([1.8, 2.15, 1.9], [2.0, 2.3, 2.1])
    assert arm_of(table, "swiglu").p_raw == pytest.approx(witness.pvalue)


def test_rows_without_seeds_are_not_paired(tmp_path: Path) -> None:
    unpaired = "\n".join(",".join(line.split(",")[::2]) for line in RUNS.splitlines())
    table = compare_text(tmp_path, unpaired)
    witness = stats.ttest_ind([1.8, 2.15, 1.9], [2.0, 2.3, 2.1], equal_var=False)
    assert arm_of(table, "swiglu").p_raw == pytest.approx(witness.pvalue)
    assert table.test == "Welch's t"


@pytest.mark.parametrize("mark", [";", "\t"])
def test_other_separators_names_and_a_byte_order_mark_are_read(mark: str, tmp_path: Path) -> None:
    text = RUNS.replace(",", mark).replace("arm", "Variant").replace("loss", "test_loss_nats")
    table = compare_text(tmp_path, "\ufeff" + text + "\n\n")
    assert [arm.arm for arm in table.arms] == ["swiglu", "gelu"]


@pytest.mark.parametrize("word", ["nan", "inf", "", "-inf"])
def test_a_loss_that_is_no_number_counts_as_diverged(word: str, tmp_path: Path) -> None:
    table = compare_text(tmp_path, RUNS.replace("swiglu,1,2.15", f"swiglu,1,{word}"))
    arm = arm_of(table, "swiglu")
    assert (arm.n_finished, arm.n_planned, arm.n_diverged) == (2, 3, 1)
    assert arm.mean_loss_nats == pytest.approx(1.85)
    assert any("swiglu" in warning for warning in table.warnings)


def test_an_arm_that_only_diverged_stays_and_all_diverged_is_said(tmp_path: Path) -> None:
    table = compare_text(tmp_path, "arm,seed,loss\ngelu,0,2\ngelu,1,3\nrelu,0,nan\n")
    assert [(arm.arm, arm.n_finished) for arm in table.arms] == [("gelu", 2), ("relu", 0)]
    table = compare_text(tmp_path, "arm,seed,loss\ngelu,0,nan\nrelu,0,nan\n")
    assert table.verdict == "no arm has a finite loss: nothing to compare"


def test_one_run_an_arm_gives_no_interval(tmp_path: Path) -> None:
    table = compare_text(tmp_path, "arm,mean,sd,n\ngelu,2,,1\nrelu,3,0.1,1\n")
    assert all(arm.ci95 is None and arm.sd_loss_nats is None for arm in table.arms)
    assert "order, not a finding" in table.verdict


def test_a_mean_without_spread_is_not_tested(tmp_path: Path) -> None:
    table = compare_text(tmp_path, "arm,mean,sd,n\ngelu,2,,4\nrelu,3,0.1,4\nswish,2.5,0.1,4\n")
    tested = {frozenset((pair.a, pair.b)) for pair in table.pairs if pair.p_raw is not None}
    assert tested == {frozenset(("relu", "swish"))}
    assert math.isfinite(arm_of(table, "gelu").mean_loss_nats or math.nan)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "columns"),
        ("arm,seed\na,1\nb,2\n", "arm,seed,loss"),
        ("arm,arm,loss\na,a,1\n", "once each"),
        ("seed,loss\n1,2\n", "columns"),
        ("arm,loss,mean,n\na,1,1,3\nb,2,2,3\n", "its columns must be"),
        ("arm,seed,loss\na,0,1\n", "fewer than two arms"),
        ("arm,seed,loss\na,0,1\na,0,2\nb,0,1\n", ":3: a has seed 0 twice"),
        ("arm,seed,loss\na,x,1\nb,0,1\n", ":2: seed 'x' is not a number"),
        ("arm,seed,loss\na,0.5,1\nb,0,1\n", ":2: seed '0.5' is not a whole number"),
        ("arm,seed,loss\na,,1\nb,0,1\n", ":2: seed"),
        ("arm,seed,loss\na,0,one\nb,0,1\n", ":2: loss 'one' is not a number"),
        (f"arm,seed,loss\na,0,{'1' * 200_000}\nb,0,1\n", ":2: field larger than field limit"),
        ("arm,seed,loss\na,0,1e308\na,1,2\nb,0,1\nb,1,2\n", ":2: loss 1e308 is beyond 1e+50"),
        ("arm,mean,sd,n\na,1,1e300,3\nb,1,1,3\n", ":2: sd 1e300 is beyond 1e+50"),
        ("arm,seed,loss\na,0\nb,0,1\n", ":2: 2 cells under 3 columns"),
        ("arm,seed,loss\n,0,1\nb,0,1\n", ":2: no arm"),
        ("arm,mean,sd,n\na,1,-1,3\nb,1,1,3\n", ":2: sd -1 is negative"),
        ("arm,mean,sd,n\na,1,1,0\nb,1,1,3\n", ":2: needs"),
        ("arm,mean,sd,n\na,nan,1,3\nb,1,1,3\n", ":2: needs"),
        ("arm,mean,sd,n\na,1,1,3\na,1,1,3\nb,1,1,1\n", ":3: a stands there twice"),
    ],
)
def test_a_wrong_file_is_one_line(text: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(DataError) as raised:
        compare_text(tmp_path, text)
    assert words in str(raised.value)
    assert "\n" not in str(raised.value)


def test_what_cannot_be_read_or_is_no_arm_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        compare_csv(tmp_path / "none.csv")
    with pytest.raises(GluBenchError, match="directory"):
        compare_csv(tmp_path)
    (tmp_path / "latin.csv").write_bytes(b"arm,loss\n\xe9,1\n")
    with pytest.raises(DataError, match="not UTF-8 at byte 9"):
        compare_csv(tmp_path / "latin.csv")
    with pytest.raises(ConfigError, match="--baseline tanh: not among the arms gelu, swiglu"):
        compare_text(tmp_path, RUNS, "tanh")


def test_deviations_however_small_are_tested(tmp_path: Path) -> None:
    table = compare_text(tmp_path, "arm,mean,sd,n\ngelu,2,1e-200,4\nrelu,3,1e-200,4\n")
    assert table.pairs[0].df == pytest.approx(6)
    assert table.pairs[0].separable
