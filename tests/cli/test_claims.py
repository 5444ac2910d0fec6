"""glu-bench claims: its JSON, its table, its Markdown, its refusals."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from glu_bench.show.claims import list_notes
from glu_bench.study.claims import Judged
from tests.conftest import Command, TinyConfig, Train
from tests.study.conftest import maker_of_runs

VERDICTS = {"supported", "not_supported", "not_separable", "not_measured"}


def refuse_constant(word: str) -> None:
    raise AssertionError(f"{word} is not strict JSON")


@pytest.fixture(scope="module")
def losses_alone(tiny_config: TinyConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An output folder with runs that have no checkpoint: GLU, and SwiGLU 0.1 nats below it."""
    output_dir = tmp_path_factory.mktemp("claims")
    make = maker_of_runs(tiny_config, output_dir)
    for variant, loss in (("glu", 2.0), ("swiglu", 1.9)):
        for seed, noise in enumerate((0.001, -0.002, 0.003)):
            make(variant, seed, loss + (noise if variant == "glu" else -noise))
    return output_dir


def test_real_runs_are_inspected_and_judged(train: Train, tmp_path: Path, call_command: Command) -> None:
    for variant in ("relu", "reglu", "swiglu"):
        for seed in (0, 1):
            train(f"variant={variant}", f"seed={seed}", "train.steps=2")
    ended = call_command("claims", "--tokens", "256", "--json", "--output-dir", str(tmp_path))
    assert ended.code == 0, ended.err
    value = json.loads(ended.out, parse_constant=refuse_constant)
    assert next(iter(value)) == "schema_version"
    rows = value["claims"]
    assert all({"claim", "source", "measurement", "value", "ci95", "verdict"} <= set(row) for row in rows)
    assert {row["verdict"] for row in rows} <= VERDICTS
    params = [row for row in rows if row["match"] == "params"]
    (dead,) = [
        row for row in params if "0 for every token that was inspected, at the end" in row["measurement"]
    ]
    assert dead["verdict"] != "not_measured"
    assert dead["arms"] == ["reglu", "swiglu"]
    (varying,) = [row for row in params if "gate over tokens" in row["measurement"]]
    assert varying["ci95"][0] < varying["value"] < varying["ci95"][1]
    assert ended.err.count("inspecting") == 6
    assert value["warnings"] == []


def test_runs_without_checkpoints_are_named_and_the_rest_is_judged(
    losses_alone: Path, call_command: Command
) -> None:
    words = ("claims", "--output-dir", str(losses_alone))
    ended = call_command(*words)
    assert ended.code == 0, ended.err
    (row,) = [line for line in ended.out.splitlines() if "SwiGLU minus GLU" in line and "params" in line]
    assert row.split()[-1] == "supported"
    assert "-0.1013" in row
    assert "was not inspected" in ended.err
    assert "not measured, no finished runs: glu-bench sweep variant=" in ended.err
    assert "not measured\n" in re.sub(" +\n", "\n", ended.out)
    assert "not_measured" not in ended.out + ended.err
    quiet = call_command(*words, "--quiet")
    assert (quiet.out, quiet.err) == (ended.out, "")


def test_the_markdown_is_one_table_and_the_rule(losses_alone: Path, call_command: Command) -> None:
    ended = call_command("claims", "--markdown", "--output-dir", str(losses_alone))
    table, rule, setting, notes = ended.out.strip().split("\n\n")
    lines = table.splitlines()
    assert {line.replace("\\|", "").count("|") for line in lines} == {10}
    assert any("SwiGLU is better than GLU" in line and "-0.1013" in line for line in lines)
    claims = [line.split(" | ")[0] for line in lines[2:]]
    named = [claim for claim in claims if claim != "| "]
    assert len(set(named)) == len(named) < len(claims)  # each claim once, its other rows below it
    assert rule.startswith("A claim predicts on which side")
    assert setting.startswith("Setting: pico 48x2")
    assert "was not inspected" in notes
    assert "- not measured, no finished runs: glu-bench sweep variant=" in notes
    assert "note:" not in ended.err


@pytest.mark.parametrize(("n", "said"), [(1, "m0"), (4, "m0; m1; m2; m3"), (5, "m0; m1; m2; and 2 more")])
def test_a_note_of_many_rows_names_the_first_of_them(n: int, said: str) -> None:
    facts: Any = {"value": 1.0, "ci95": None, "verdict": "supported", "unit": "ratio", "predicted": "above"}
    rows = [Judged(claim="c", source="s", measurement=f"m{i}", note="32 layers", **facts) for i in range(n)]
    assert list_notes([*rows, *rows]) == [f"32 layers ({said})"]


@pytest.mark.parametrize(
    ("words", "part"),
    [(["nosuch"], "nosuch"), (["--json", "--markdown"], "one of them"), (["--tokens", "0"], "")],
    ids=str,
)
def test_what_cannot_work_is_refused(
    words: list[str], part: str, losses_alone: Path, call_command: Command
) -> None:
    ended = call_command("claims", *words, "--output-dir", str(losses_alone))
    assert (ended.code, ended.out) == (2, "")
    assert part in ended.err
