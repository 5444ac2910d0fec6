"""Group F: hostile names stay text in the terminal, in HTML, CSV, LaTeX and Markdown."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path

import pytest

from glu_bench.files import write_json
from tests.conftest import Ended, TinyConfig
from tests.faults.conftest import Processes
from tests.show.report.conftest import log_rows, naming
from tests.show.report.reading import Page
from tests.show.report.test_page import OWN_TAGS
from tests.study.conftest import maker_of_runs

HOSTILE = [
    "<script>alert(1)</script>",
    "</script><script>alert(2)</script>",
    '"><img src=x onerror=alert(3)>',
    "[/x][link=https://evil.example]here[/link]\x1b]0;title\x07\x1b[31m",
    "\u202egnp.exe\u2028 \\input{x} $\\alpha$ %1 & _b_ `c` | d",
    "=cmd|'/C calc'!A0",
    "@SUM(1+1)*cmd|' /C calc'!A0",
]
CONTROLS = {"\x1b", "\x07", "\u202e", "\u2028"}


def check_text(ended: Ended) -> None:
    """All of it can be shown: nothing moves the cursor, and nothing failed to be drawn."""
    assert ended.code == 0, ended.err
    assert not CONTROLS & set(ended.out + ended.err)
    assert "Traceback" not in ended.err
    assert "MarkupError" not in ended.err


def write_hostile_runs(tiny_config: TinyConfig, output_dir: Path) -> None:
    """Two finished runs and one that diverged for each text; it names what it can."""
    for at, text in enumerate(HOSTILE):
        make = maker_of_runs(naming(tiny_config, text), output_dir)
        for seed in range(2):
            run = make("gelu", seed, 2.0 + at + 0.1 * seed, **{text: [1.0, 2.0]})
            log_rows(run, 2.0 + at, n_rows=8, **{text: 1.0})
            place = run.path / "environment.json"
            write_json(place, {**json.loads(place.read_text()), "cpu": text, "python": text, text: text})
        run = make("gelu", 2, None, diverged=True)
        write_json(run.path / "failure.json", {"status": "diverged", "reason": text, "step": 3})


@pytest.fixture
def hostile(tiny_config: TinyConfig, tmp_path: Path) -> Path:
    """The output folder of such runs."""
    write_hostile_runs(tiny_config, tmp_path / "outputs")
    return tmp_path / "outputs"


ARMS = ("--arms", "data.val_split")


def test_f8_names_in_a_report(hostile: Path, processes: Processes, tmp_path: Path) -> None:
    """Settings, machines, reasons and logged quantities called `<script>…`, `"><img onerror=…`, `[/x]`, with
    ESC sequences and U+202E; the page of all runs.

    The page has no tag, script or handler but its own, and no control character.
    """
    check_text(processes.run("report", *ARMS, "-o", "page.html"))
    source = (tmp_path / "page.html").read_text(encoding="utf-8")
    page = Page(source)
    assert {tag for tag, _ in page.tags} <= OWN_TAGS
    assert not any(name.startswith("on") for _, given in page.tags for name in given)
    assert [kind for kind, _ in page.scripts] == ["application/json", "", ""]
    led = {given[name] for _, given in page.tags for name in ("href", "src", "action") if name in given}
    assert all(str(target).startswith("#") for target in led)
    assert "alert(1)" in page.text  # it is there, as text
    plots = max((script for _, script in page.scripts), key=len)  # plotly's own
    assert not CONTROLS & set(source.replace(plots, ""))


@pytest.mark.slow
def test_f8_names_on_the_terminal_and_in_papers(hostile: Path, processes: Processes) -> None:
    """The same as tables, CSV, LaTeX, Markdown, JSON, the paragraph for a paper, and lists of runs.

    Exit 0; no stream holds a control character; no cell begins a formula; LaTeX is escaped.
    """
    check_text(processes.run("compare", *ARMS))
    check_text(processes.run("runs", "list"))
    check_text(processes.run("runs", "diff", *sorted(path.name for path in (hostile / "runs").iterdir())[:2]))
    check_text(processes.run("compare", *ARMS, "--methods", "--format", "latex"))
    shown = processes.run("runs", "show", next((hostile / "runs").iterdir()).name)
    check_text(shown)
    table = processes.run("compare", *ARMS, "--format", "csv")
    check_text(table)
    rows = list(csv.reader(io.StringIO(table.out, newline="")))
    assert len(rows) == 1 + len(HOSTILE)
    assert not any(re.match(r"[=+@\t\r]|-(?!\d)", cell) for row in rows for cell in row)
    latex = processes.run("compare", *ARMS, "--format", "latex")
    check_text(latex)
    assert r"\input{" not in latex.out
    assert r"\textbackslash{}input\{x\}" in latex.out
    markdown = processes.run("compare", *ARMS, "--format", "markdown")
    check_text(markdown)
    assert not re.search(r"(?<!\\)<script", markdown.out)


@pytest.mark.slow
def test_f8_arms_of_a_stranger_s_table(processes: Processes, tmp_path: Path) -> None:
    """A CSV of results whose arms have those names, compared into CSV, LaTeX and a table.

    Exit 0; every arm that would be a formula has an apostrophe before it; no control character.
    """
    with (tmp_path / "theirs.csv").open("w", encoding="utf-8", newline="") as file:
        rows = [(arm, seed, 2 + 0.1 * seed + at) for at, arm in enumerate(HOSTILE) for seed in range(2)]
        csv.writer(file).writerows([("arm", "seed", "loss"), *rows])
    words = ("compare", "--from-csv", "theirs.csv")
    check_text(processes.run(*words))
    check_text(processes.run(*words, "--format", "latex"))
    table = processes.run(*words, "--format", "csv")
    check_text(table)
    arms = [row["arm"] for row in csv.DictReader(io.StringIO(table.out, newline=""))]
    assert sum(arm.startswith("'") for arm in arms) == 2
    assert not any(arm.startswith(("=", "@")) for arm in arms)


@pytest.mark.slow
def test_f8_names_in_errors(processes: Processes, tmp_path: Path) -> None:
    """Words of those names as a run, a setting, a variant, a file and a folder that are not there; as a
    column to sort no runs by.

    The exit code is that of the mistake; the message is one line without a control character.
    """
    for text in HOSTILE[2:4]:
        check_text(processes.run("runs", "list", "--sort", text))
    for text in (HOSTILE[2], HOSTILE[3], HOSTILE[5]):
        for words, code in (
            (("runs", "show", text), 2),
            (("train", f"variant={text}", "--cfg"), 2),
            (("train", text, "--cfg"), 2),
            (("compare", "--from-csv", text), 2),
            (("variants", "--config-dir", text), 2),
        ):
            ended = processes.run(*words)
            assert ended.code == code, (words, ended.err)
            assert not CONTROLS & set(ended.out + ended.err)
            assert len(ended.err.splitlines()) == 1
            assert "Traceback" not in ended.err
