"""The paragraph for a paper says what the runs recorded, and nothing else."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import pytest

from glu_bench.config import load_config
from glu_bench.runs.folder import Run
from glu_bench.show.bibtex import write_bibtex
from glu_bench.show.methods import list_papers, write_methods
from glu_bench.study.bibliography import load_bibliography
from glu_bench.study.compare import compare_runs
from glu_bench.study.methods import read_methods
from tests.conftest import TinyConfig
from tests.show.made import HOSTILE, make_comparison
from tests.study.conftest import maker_of_runs


@pytest.fixture(scope="module")
def six_runs(tiny_config: TinyConfig, tmp_path_factory: pytest.TempPathFactory) -> list[Run]:
    """Two arms of three seeds that recorded a machine; one of the six on another."""
    make = maker_of_runs(tiny_config, tmp_path_factory.mktemp("six"))
    runs = [
        make(arm, seed, loss + seed / 10 + wobble * seed**2)
        for arm, loss, wobble in (("gelu", 2.0, 0.0), ("swiglu", 1.5, 0.01))
        for seed in range(3)
    ]
    for at, run in enumerate(runs):
        path = run.path / "environment.json"
        facts = json.loads(path.read_text())
        facts |= {
            "cpu": "Zen 9" if at else "Zen 8",
            "n_threads": 1,
            "python": "3.11.2",
            "versions": {"torch": "2.13.0", "glu-bench": "0.1.0", "scipy": None},
            "git_commit": "abcdef0123456789",
            "git_dirty": True,
        }
        path.write_text(json.dumps(facts))
    return runs


def test_it_says_the_protocol_the_test_and_the_machine(six_runs: list[Run]) -> None:
    (table,) = compare_runs(six_runs)
    said = write_methods(table, read_methods(table))
    assert said.count("\n") == 1
    for part in (
        "swiglu (Shazeer 2020, arXiv 2002.05202)",
        "gelu (Hendrycks and Gimpel 2016, arXiv 1606.08415); the baseline is gelu.",
        "80,208 parameters, 36,864 of them in the feed-forward blocks",
        "width is solved so that the block's parameters",
        "(largest residual 0.00%)",
        "384 training tokens, 6 steps of 4 sequences of 16 tokens in fp32",
        "AdamW (Loshchilov and Hutter 2019, arXiv 1711.05101), peak learning rate 0.002, the same for all",
        "runs of one seed are paired",
        "test split of 3,868 tokens",
        "windows of 16, stride 16",
        "Each arm has 3 runs (seeds 0, 1, 2)",
        "seed-blocked two-way model",
        "; 2 degrees of freedom)",
        "2 degrees of freedom); with one pair there is nothing to adjust.",
        f"differences of {table.detectable_nats:.4f} nats and more with 80 % power",
        "Hardware: Zen 9, 1 thread a run or Zen 8, 1 thread a run.",
        "glu-bench 0.1.0, torch 2.13.0, Python 3.11.2, commit abcdef0123 with changes.",
    ):
        assert part in said, part
    assert "scipy" not in said
    assert "Welch" not in said


def test_tuned_rates_are_named(six_runs: list[Run]) -> None:
    (table,) = compare_runs(six_runs)
    table = dataclasses.replace(table, tuned=("optim.lr",))
    said = write_methods(table, read_methods(table))
    assert "optim.lr chosen for each arm on the validation split" in said
    assert "swiglu 0.002; gelu 0.002" in said
    assert "not tuned" not in said


@pytest.mark.parametrize(
    ("mode", "part"), [("width", "same hidden width"), ("none", "Parameters are not matched")]
)
def test_unmatched_arms_are_not_called_matched(
    mode: str, part: str, tiny_config: TinyConfig, tmp_path: Path
) -> None:
    make = maker_of_runs(tiny_config, tmp_path)
    words = [f"match={mode}", *(["match.d_ff=64"] if mode == "none" else [])]
    runs = [make(arm, seed, 2.0, *words, match_residual=0.5) for arm in ("gelu", "swiglu") for seed in (0, 1)]
    (table,) = compare_runs(runs)
    said = write_methods(table, read_methods(table))
    assert part in said
    assert "50%" in said
    assert "solved" not in said


def test_lost_runs_are_told(six_runs: list[Run], tiny_config: TinyConfig) -> None:
    make = maker_of_runs(tiny_config, six_runs[0].path.parent.parent)
    lost = make("swiglu", 3, None, diverged=True)
    (table,) = compare_runs([*six_runs, lost])
    assert "1 of 4 runs of swiglu did not finish (1 diverged)" in write_methods(table, read_methods(table))


def test_results_from_a_file_are_not_claimed_as_ours() -> None:
    table = dataclasses.replace(
        make_comparison(setting="theirs.csv"), test="Welch's t", seed_correlation=None
    )
    said = write_methods(table, read_methods(table))
    assert "The losses are those of theirs.csv; this tool did not train the models." in said
    assert "Welch's t (Welch 1947); p-values are adjusted by Holm's method (Holm 1979) within two" in said
    assert "two families, 2 arms against the baseline and all 3 pairs, at a family-wise error of 5 %" in said
    for word in ("AdamW", "Hardware", "Software", "parameters"):
        assert word not in said


def test_one_seed_is_no_test() -> None:
    table = make_comparison({"gelu": (1.0,), "relu": (1.1,)})
    said = write_methods(table, read_methods(table))
    assert "No test was made" in said
    assert "Holm" not in said


def test_a_failed_check_comes_with_the_paired_tests() -> None:
    losses = {
        "gelu": (1.0, 1.01, 1.02, 1.03),
        "geglu": (0.9, 0.911, 0.919, 0.93),
        "relu": (1.1, 1.4, 0.9, 1.6),
    }
    table = make_comparison(losses)
    assert any(warning.startswith("the arms do not vary alike") for warning in table.warnings)
    said = write_methods(table, read_methods(table))
    assert "A check found that the arms do not vary alike: relu" in said
    assert re.search(r"Paired t against gelu, not adjusted: geglu p = <0\.001, relu p = 0\.\d{3}", said)


def test_in_latex_it_cites_by_key(six_runs: list[Run]) -> None:
    (table,) = compare_runs(six_runs)
    facts = read_methods(table)
    said = write_methods(table, facts, "latex")
    keys = {key for keys in re.findall(r"\\cite\{([^}]*)\}", said) for key in keys.split(",")}
    papers, unlisted = list_papers([(table, facts)])
    assert keys == {paper.key for paper in papers}
    assert unlisted == []
    assert r"5 \%" in said


def test_hostile_names_stay_text() -> None:
    table = make_comparison({HOSTILE: (1.0, 1.1, 1.05), "gelu": (1.2, 1.35, 1.3)})
    for form in ("table", "markdown", "latex"):
        assert not {"\x1b", "\u202e"} & set(write_methods(table, read_methods(table), form))
    assert r"\input" not in write_methods(table, read_methods(table), "latex")


def test_bibtex_has_each_paper_once_and_names_what_is_none() -> None:
    shazeer = load_bibliography()["shazeer2020"]
    openai = load_bibliography()["openai2025"]
    text = write_bibtex([shazeer, openai, shazeer], ["mine: @inbook{x,\nnotebook"])
    assert re.findall(r"^@(\w+)\{(\w+),$", text, re.MULTILINE) == [
        ("misc", "openai2025"),
        ("misc", "shazeer2020"),
    ]
    assert (
        "  author = {Noam Shazeer},\n  title = {{GLU Variants Improve Transformer}},\n  year = {2020},"
        in text
    )
    assert "eprint = {2002.05202}" in text
    assert r"author = {{OpenAI}}" in text
    assert r"gpt-oss-120b \& gpt-oss-20b" in text
    assert text.count("@") == 2
    assert text.splitlines()[-1].startswith("% not a paper: mine: ")


def test_the_sources_are_those_of_the_runs(tiny_config: TinyConfig, tmp_path: Path) -> None:
    assert load_config(["variant=swiglu"]).variant.source != "my notebook"
    make = maker_of_runs(tiny_config, tmp_path)
    runs = [make("swiglu", s, 1.0 + s / 9, "variant.source='my notebook'") for s in (0, 1)]
    runs += [make("gelu", s, 1.5 + s / 8) for s in (0, 1)]
    (table,) = compare_runs(runs)
    facts = read_methods(table)
    assert "swiglu (my notebook)" in write_methods(table, facts)
    assert list_papers([(table, facts)])[1] == ["swiglu: my notebook"]
