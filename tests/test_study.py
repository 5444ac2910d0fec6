"""The reference study: what the pages say is what the commands print of the published results."""

from __future__ import annotations

import json
import re
import shlex
import statistics
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from glu_bench.evaluate.history import read_history
from glu_bench.runs.folder import list_runs
from glu_bench.runs.publish import is_whole
from tests.conftest import REPO, Command
from tests.shown import PAGES, Shown, list_shown, trim

SHOWN = [shown for page in PAGES for shown in list_shown(page)]
REFERENCE = REPO / "outputs/reference"
STUDIES = REFERENCE / "README.md"
STUDY = REFERENCE / "shazeer2020-nano"
GATES = ("geglu", "swiglu", "reglu", "bilinear")


@pytest.mark.parametrize("shown", SHOWN, ids=lambda shown: f"{shown.page.parent.name}: {shown.command}")
def test_a_page_shows_what_the_command_prints(
    shown: Shown, call_command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(REPO)
    ended = call_command(*shlex.split(shown.command)[1:])
    assert ended.code == 0, ended.err
    assert trim(ended.out) == shown.printed


def read_section(title: str, page: Path = REPO / "README.md") -> str:
    """A section of a page with single blanks."""
    text = page.read_text(encoding="utf-8")
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
    separable = list_separable(table)
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


def list_separable(table: dict[str, Any]) -> dict[frozenset[str], bool]:
    return {frozenset((pair["a"], pair["b"])): pair["separable"] for pair in table["pairs"]}


def test_what_the_page_says_of_equal_width(call_command: Command) -> None:
    section = read_section("Equal width instead of equal parameters", STUDIES)
    words = ("--arms", "variant,match", "--baseline", "gelu params")
    (table,) = call_json(call_command, "compare", str(REFERENCE / "width-nano"), *words)["tables"]
    arms = {arm["arm"]: arm for arm in table["arms"]}

    def more(name: str, gate: str = "geglu") -> float:
        return float(arms[f"{gate} width"][name]) / float(arms[f"{gate} params"][name])

    assert more("n_ffn_params") == 1.5
    assert f"{more('flops_per_token') - 1:.0%}".replace("%", " % more FLOPs") in section
    assert f"{more('ffn_saved_bytes_per_token') - 1:.0%}".replace("%", " % more bytes") in section
    gains = {
        gate: arms[f"{gate} params"]["mean_loss_nats"] - arms[f"{gate} width"]["mean_loss_nats"]
        for gate in ("geglu", "swiglu", "reglu")
    }
    said = "GeGLU {geglu:.3f} nats, SwiGLU {swiglu:.3f} and ReGLU {reglu:.3f}, which three seeds cannot"
    assert said.format_map(gains) in section
    assert {arms[f"{gate} width"]["n_finished"] for gate in gains} == {3}
    separable = list_separable(table)
    assert not any(separable[frozenset((f"{gate} params", f"{gate} width"))] for gate in gains)
    for gate in ("gelu", "relu"):
        assert any(line.startswith(f"{gate} width: the same weights as") for line in table["warnings"])
    assert f"{more('tokens_per_s', 'reglu'):.2f} and {more('tokens_per_s', 'swiglu'):.2f} of the" in section


def test_what_the_page_says_of_the_wider_family(call_command: Command) -> None:
    (first,) = call_json(call_command, "compare", str(REFERENCE / "family-nano"))["tables"]
    order = [arm["arm"] for arm in first["arms"]]
    assert (len(order), order[0]) == (13, "swiglu_oai")
    best = [name for name in order if name not in ("gelu", "geglu")][:3]
    (then,) = call_json(call_command, "compare", str(REFERENCE / "family-best"))["tables"]
    arms = {arm["arm"]: arm for arm in then["arms"]}
    assert set(arms) == {"gelu", "geglu", *best}
    separable = list_separable(then)
    assert all(arms[name]["verdict"] == "better" for name in best)
    assert not any(separable[frozenset((name, "geglu"))] for name in best)
    gated = [arm["arm"] for arm in then["arms"] if arm["arm"] != "gelu"]
    assert gated[-1] == "swiglu_oai"
    seeds = {run.config().seed for run in list_runs(REFERENCE / "family-best")}
    assert seeds == {1, 2, 3, 4}


def test_what_the_page_says_of_speedups(call_command: Command) -> None:
    section = read_section("Effective speedup", STUDIES)
    words = (str(REFERENCE / "budgets-nano"), "--baseline", "gelu")
    two, four = (
        {arm["arm"]: arm for arm in t["arms"]} for t in call_json(call_command, "compare", *words)["tables"]
    )
    ratios = [arms["geglu"]["speedup"]["compute"] for arms in (two, four)]
    assert "GELU needs {:.2f} times the compute, with 4 M {:.2f} times".format(*ratios) in section
    halved = four["geglu"]["difference_nats"] / two["geglu"]["difference_nats"]
    assert 0.4 < halved < 0.6  # "half as large"
    low, high = two["geglu"]["speedup"]["compute_ci95"]
    assert low < ratios[1] < high  # "about the same"
    for name in ("reglu", "bilinear"):
        low, high = four[name]["speedup"]["compute_ci95"]
        assert low < 1 < high
    budgets = {run.config().train.tokens for run in list_runs(REFERENCE / "budgets-nano")}
    assert len(budgets) == 4


def test_what_the_page_says_of_the_claims(call_command: Command) -> None:
    section = read_section("The claims of the two documents", STUDIES)
    judgement = call_json(call_command, "claims", str(REFERENCE))
    rows = judgement["claims"]
    assert judgement["n_tests"] == 50
    n = Counter(row["verdict"] for row in rows)
    said = "{supported} are supported, {not_supported} not supported, {not_separable} not separable"
    assert f"Of {len(rows)} rows {said.format_map(n)} and {n['not_measured']} not measured" in section

    def find(part: str, verdict: str, match: str = "params") -> float:
        """The value of the one such row, which has this verdict."""
        (row,) = [
            row
            for row in rows
            if part in f"{row['claim']}: {row['measurement']}" and row["match"] in (match, None)
        ]
        assert row["verdict"] == verdict, part
        return float(row["value"])

    for part, verdict, said in (
        ("loss the last of them ends with, gated", "supported", "loss with {:.2f} times the tokens"),
        ("variance of a gate over tokens", "supported", "({:.0%} of its mean square varies)"),
        ("hidden numbers that are exactly 0", "supported", "({:.0%} points more exact zeros"),
        ("bytes kept for the backward pass", "supported", "({:.2f} times the bytes)"),
        ("saturated gates", "not_supported", "without a gate, by {:.0%} points"),
        ("own sample, last step", "not_separable", "({:.1%} points more at the end of a run;"),
        ("test loss, GELU minus ReLU", "not_separable", "In 32 layers GELU is {:.3f} nats ahead of ReLU"),
        (
            "test loss, Swish minus ReLU",
            "not_separable",
            "and Swish {:.3f} behind it, neither separable among fifty",
        ),
        ("held-out minus training loss", "not_separable", "smaller by {:.3f} nats over eight epochs"),
    ):
        words = said.format(abs(find(part, verdict)))
        words = words.replace("% points", " points").replace("% of", " % of")
        assert words in section, words
    assert find("test loss, GELU minus ReLU", "not_separable") < 0
    assert find("test loss, Swish minus ReLU", "not_separable") > 0
    assert find("saturated gates", "not_supported") < 0
    assert find("held-out minus training loss", "not_separable") < 0
    assert find("own sample, last step", "not_separable") > 0
    assert find("parameters of the whole block", "not_supported", "width") == 1.5
    assert find("input weights", "supported", "width") == 2
    dead = find("own sample, last step", "supported", "width")
    assert f"at equal width {dead:.1%}, and supported".replace("%", "") in section
    assert {row["match"] for row in rows if row["verdict"] == "not_measured"} == {"width"}
    for part, verdict in (
        ("these minus ReLU and GELU", "supported"),
        ("parameters of the whole block", "not_supported"),
        ("FLOPs/token of the model", "not_supported"),
        ("loss the last of them ends with, GELU", "not_separable"),
        ("(area under the curve), GELU", "not_separable"),
        ("largest over smallest gradient norm", "not_separable"),
        ("gradient entries that are exactly 0", "not_separable"),
        ("training step, compiled", "not_separable"),
        ("training step, eager", "not_separable"),
    ):
        find(part, verdict)
    tuned = [run for run in list_runs(STUDY) if is_whole(run.rows(), run.config().train.log_every)]
    assert len(tuned) == 40
    assert not any(read_history(run.rows(), run.result()).n_loss_spikes for run in tuned)
    tail = find("SwiGLU trains stably: 99th percentile", "supported")
    assert f"a shorter tail than ReLU's, {tail:.2f} times" in section
    find("SwiGLU trains stably: 99th percentile", "not_separable", "width")
    rates = {run.config().variant.name: run.config().optim.lr for run in tuned}
    assert rates["swiglu"] == rates["relu"] / 2
    stable, broken = set(), set()
    for run in list_runs(REFERENCE / "claims-rates"):
        (broken if run.result()["unstable"] else stable).add(run.config().optim.lr)
    assert f"stand {max(stable)} and break at {min(broken)}" in section
    assert max(stable) < min(broken)
    then, before = (
        statistics.median(run.result()["tokens_per_s"] for run in list_runs(REFERENCE / name))
        for name in ("claims-epochs", "shazeer2020-nano")
    )
    assert 0.4 < then / before < 0.6  # "half as fast"


def measure_core_h(folder: Path) -> tuple[int, float]:
    """Runs of a published study, and hours of training times threads."""
    runs = list_runs(folder)
    core_s = sum(
        run.result()["elapsed_s"] * run.environment()["n_threads"]
        for run in runs
        if run.outcome() == "complete"
    )
    return len(runs), core_s / 3600


def test_the_readme_says_what_the_study_took() -> None:
    n_runs, core_h = measure_core_h(STUDY)
    assert f"{n_runs} runs, {core_h:.1f} core-hours" in read_section("What it found")


def test_the_page_lists_all_studies_with_what_they_took() -> None:
    rows = re.findall(r"^\| `(\S+)` \| (\d+) \| ([\d.]+) \|", STUDIES.read_text("utf-8"), re.MULTILINE)
    published = sorted(path.parent.name for path in REFERENCE.glob("*/runs"))
    assert sorted(name for name, _, _ in rows) == published
    for name, n_runs, core_h in rows:
        found = measure_core_h(REFERENCE / name)
        assert (int(n_runs), core_h) == (found[0], f"{found[1]:.1f}"), name


def test_all_that_is_published_is_small_text() -> None:
    files = [path for path in REFERENCE.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 5 * 2**20
    for path in files:
        path.read_text(encoding="utf-8")
    assert not Path(STUDY / "checkpoints").exists()
