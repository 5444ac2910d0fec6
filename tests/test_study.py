"""The reference study: what the pages say is what the commands print of the published results."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from glu_bench.runs.folder import list_runs
from tests.conftest import REPO, Command
from tests.shown import PAGES, Shown, list_shown, trim

SHOWN = [shown for page in PAGES for shown in list_shown(page)]
STUDY = REPO / "outputs/reference/shazeer2020-nano"
GATES = ("geglu", "swiglu", "reglu", "bilinear")


@pytest.mark.parametrize("shown", SHOWN, ids=lambda shown: f"{shown.page.parent.name}: {shown.command}")
def test_a_page_shows_what_the_command_prints(
    shown: Shown, call_command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(REPO)
    ended = call_command(*shlex.split(shown.command)[1:])
    assert ended.code == 0, ended.err
    assert trim(ended.out) == shown.printed


def read_section(title: str) -> str:
    """A section of the README with single blanks."""
    text = (REPO / "README.md").read_text(encoding="utf-8")
    (found,) = re.findall(rf"^## {title}\n(.*?)^## ", text, re.DOTALL | re.MULTILINE)
    return re.sub(r"\s+", " ", found)


def call_json(call_command: Command, *words: str) -> dict[str, Any]:
    ended = call_command(*words, "--json")
    assert ended.code == 0, ended.err
    found: dict[str, Any] = json.loads(ended.out)
    return found


def test_the_verdict_of_the_readme_is_that_of_the_runs(call_command: Command) -> None:
    section = read_section("What it found")
    (table,) = call_json(call_command, "compare", str(STUDY), "--baseline", "gelu")["tables"]
    arms = {arm["arm"]: arm for arm in table["arms"]}
    order = [arm["arm"] for arm in table["arms"]]
    assert (set(order[:2]), set(order[2:4]), order[-1]) == ({"geglu", "swiglu"}, {"reglu", "bilinear"}, "glu")
    assert table["nearest_tie"] == ["geglu", "swiglu"]
    separable = {frozenset((pair["a"], pair["b"])): pair["separable"] for pair in table["pairs"]}
    assert not separable[frozenset(("swiglu", "reglu"))]  # "ReGLU, not separable from SwiGLU either"
    assert separable[frozenset(("geglu", "reglu"))]
    assert all(arms[gate]["verdict"] == "better" for gate in GATES)
    gains = [-arms[gate]["difference_nats"] for gate in GATES]
    assert f"by {min(gains):.3f} to {max(gains):.3f} nats" in section
    assert f"last in ours, {arms['glu']['difference_nats']:.3f} nats behind" in section
    assert f"differences of {table['detectable_nats']:.4f} nats and more" in section
    assert f"{arms['gelu']['n_params'] / 1e6:.2f} M parameters" in section
    ours = call_json(call_command, "reproduce", "shazeer2020", "--from", str(STUDY))
    concordance = ours["concordance"]
    assert concordance["agree"] == concordance["of"]
    assert f"all {concordance['of']} pairs" in section
    assert f"with probability {concordance['p_at_least']:.3f}" in section
    letters = {row["arm"]: row["letters"] for row in ours["published"]["arms"]}
    assert letters["glu"] == letters["gelu"]


def test_the_readme_says_what_the_study_took() -> None:
    runs = list_runs(STUDY)
    core_s = sum(run.result()["elapsed_s"] * run.environment()["n_threads"] for run in runs)
    assert f"{len(runs)} runs, {core_s / 3600:.1f} core-hours" in read_section("What it found")


def test_all_that_is_published_is_small_text() -> None:
    files = [path for path in (REPO / "outputs/reference").rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 5 * 2**20
    for path in files:
        path.read_text(encoding="utf-8")
    assert not Path(STUDY / "checkpoints").exists()
