"""glu-bench compare: formats, columns, the paragraph for a paper, curves."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest

from tests.conftest import Command, TinyConfig
from tests.stats.test_golden import SHAZEER
from tests.study.conftest import maker_of_runs
from tests.study.test_slices import noise, store_run

PUBLISHED = "\n".join(["arm,mean,sd,n", *(f"{arm},{mean},{sd},4" for arm, (mean, sd) in SHAZEER.items()), ""])


@pytest.fixture
def published(tmp_path: Path) -> str:
    path = tmp_path / "shazeer.csv"
    path.write_text(PUBLISHED, encoding="utf-8")
    return str(path)


@pytest.fixture
def two_settings(tiny_config: TinyConfig, tmp_path: Path) -> str:
    """An output folder with two tables of two arms; the runs of the first have logs."""
    make = maker_of_runs(tiny_config, tmp_path / "out")
    for words in ((), ("train.steps=7",)):
        for arm, loss in (("gelu", 2.0), ("swiglu", 1.5)):
            for seed in range(2):
                run = make(arm, seed, loss + seed / 10 + (arm == "gelu") * seed / 50, *words)
                row = {"step": 6, "tokens": 384, "elapsed_s": 1.0, "val_loss_nats": loss + seed / 10}
                run.metrics_path.write_text(json.dumps(row) + "\n", encoding="utf-8")
    return str(tmp_path / "out")


def test_each_format_leaves_only_the_table_on_stdout(published: str, call_command: Command) -> None:
    starts = {"markdown": "### shazeer.csv\n", "csv": "setting,arm,", "latex": "% needs", "json": "{"}
    for form, start in starts.items():
        ended = call_command("compare", "--from-csv", published, "--format", form)
        assert ended.code == 0, ended.err
        assert ended.out.startswith(start)
        assert "note:" not in ended.out
    as_json = call_command("compare", "--from-csv", published, "--json")
    assert as_json.out == call_command("compare", "--from-csv", published, "--format", "json").out


def test_the_letters_of_the_published_table_are_in_every_format(
    published: str, call_command: Command
) -> None:
    letters = {"geglu": "a", "swiglu": "ab", "reglu": "ab", "bilinear": "b", "relu": "c", "glu": "c"}
    outs = {
        form: call_command("compare", "--from-csv", published, "--format", form, "-q").out.splitlines()
        for form in ("table", "markdown", "latex")
    }
    for arm, letter in letters.items():
        (line,) = [line for line in outs["table"] if line.split()[:1] == [arm] and line.split()[1] == "4"]
        assert line.split()[4] == letter
        (line,) = [line for line in outs["markdown"] if line.startswith(f"| {arm} ")]
        assert line.split(" | ")[4] == letter
        (line,) = [line for line in outs["latex"] if line.strip().startswith(f"{arm} &")]
        assert rf"\textsuperscript{{{letter}}}" in line


def test_several_settings_are_told_apart(two_settings: str, call_command: Command) -> None:
    words = ("compare", "--output-dir", two_settings)
    assert call_command(*words, "--format", "markdown").out.count("\n### ") == 1
    assert call_command(*words, "--format", "latex").out.count(r"\begin{table}") == 2
    rows = list(csv.DictReader(io.StringIO(call_command(*words, "--format", "csv").out, newline="")))
    assert len(rows) == 4
    assert len({row["setting"] for row in rows}) == 2


def test_columns_are_chosen_in_every_format(published: str, call_command: Command) -> None:
    words = ("compare", "--from-csv", published, "--columns", "arm,p_raw", "--format")
    assert call_command(*words, "csv").out.splitlines()[0] == "setting,arm,p_raw"
    assert "| arm | p |" in call_command(*words, "markdown").out
    assert "arm & p " in call_command(*words, "latex").out
    ended = call_command(*words, "table")
    assert ended.out.splitlines()[2].split() == ["arm", "p"]
    assert "no room" not in ended.err


def test_what_did_not_fit_is_named_on_stderr(two_settings: str, call_command: Command) -> None:
    words = ("compare", "--output-dir", two_settings)
    assert "note: no room for" in call_command(*words).err
    assert "peak_bytes" in call_command(*words).err
    assert "no room" not in call_command(*words, "--columns", "all").err
    assert call_command(*words, "--quiet").err == ""


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (("--columns", "arm,mean_los_nats"), "did you mean 'mean_loss_nats'"),
        (("--format", "latx"), "did you mean 'latex'"),
        (("--format", "csv", "--json"), "one of the two"),
        (("--figure", "a.gif"), ".svg, .png, .pdf"),
        (("--figure", "a.svg"), "needs finished runs"),
    ],
)
def test_a_mistake_ends_with_2_and_one_line(
    words: tuple[str, ...], part: str, published: str, call_command: Command
) -> None:
    ended = call_command("compare", "--from-csv", published, *words)
    assert (ended.code, ended.out) == (2, "")
    assert part in ended.err
    assert ended.err.count("\n") == 1


def test_the_paragraph_and_its_bibliography(published: str, call_command: Command) -> None:
    words = ("compare", "--from-csv", published)
    methods, bibtex = call_command(*words, "--methods").out, call_command(*words, "--bibtex").out
    assert methods.startswith("We compare 8 feed-forward activations: geglu (Shazeer 2020")
    assert methods.count("\n") == 1
    assert bibtex.startswith("@")
    assert "@misc{shazeer2020," in bibtex
    assert call_command(*words, "--methods", "--bibtex").out == f"{methods}\n{bibtex}"
    value = json.loads(call_command(*words, "--methods", "--bibtex", "--json").out)
    assert value["tables"][0]["methods"] == methods.strip()
    assert value["bibtex"] == bibtex
    assert "methods" not in json.loads(call_command(*words, "--json").out)["tables"][0]


def test_curves_are_drawn_a_file_a_table(two_settings: str, call_command: Command, tmp_path: Path) -> None:
    ended = call_command("compare", "--output-dir", two_settings, "--figure", str(tmp_path / "c.svg"))
    assert ended.code == 0, ended.err
    assert sorted(path.name for path in tmp_path.glob("*.svg")) == ["c-1.svg", "c-2.svg"]
    assert "c-1.svg" in ended.err
    assert "c-1.svg" not in ended.out


def test_where_arms_win_stands_below_the_table(
    tiny_config: TinyConfig, tmp_path: Path, call_command: Command
) -> None:
    make = maker_of_runs(tiny_config, tmp_path)
    for seed in range(2):
        store_run(make, "gelu", seed, noise(seed))
        store_run(make, "swiglu", seed, noise(seed) - 0.25)
    words = ("compare", "--blocks", "--output-dir", str(tmp_path))
    ended = call_command(*words)
    assert ended.code == 0, ended.err
    assert "by how frequent the token is, against gelu" in ended.out
    assert "rarest 5 %" in ended.out
    assert "-0.2500" in ended.out
    (table,) = json.loads(call_command(*words, "--json").out)["tables"]
    (swiglu,) = table["blocks"]
    assert swiglu["arm"] == "swiglu"
    assert swiglu["won_share"] == 1
    assert {part["view"] for part in swiglu["slices"]} == {"frequency", "position"}


@pytest.mark.parametrize("words", [("--format", "csv"), ("--methods",), ("--bibtex",)])
def test_blocks_go_with_nothing_else(words: tuple[str, ...], published: str, call_command: Command) -> None:
    ended = call_command("compare", "--from-csv", published, "--blocks", *words)
    assert ended.code == 2
    assert ended.err == "glu-bench: --blocks: goes with the table or JSON alone\n"
