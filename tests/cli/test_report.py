"""glu-bench report at the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.conftest import Command, TinyConfig
from tests.study.conftest import maker_of_runs


@pytest.fixture
def outputs(tiny_config: TinyConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    make = maker_of_runs(tiny_config, tmp_path / "o")
    for arm, loss in (("gelu", 2.0), ("swiglu", 1.9), ("relu", 2.1)):
        for seed in (0, 1):
            make(arm, seed, loss + 0.01 * seed)
    return tmp_path / "o"


def test_the_page_is_written_where_it_is_said(call_command: Command, outputs: Path, tmp_path: Path) -> None:
    ended = call_command("report", "--output-dir", str(outputs), "--baseline", "relu", "--json")
    assert ended.code == 0, ended.err
    said = json.loads(ended.out)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert said == {"schema_version": 1, "path": "report.html", "bytes": len(page.encode()), "tables": 1}
    assert "vs relu" in page
    assert f"glu-bench compare --baseline relu --output-dir {outputs}" in page
    again = call_command("report", "--output-dir", str(outputs), "--quiet")
    assert (again.code, again.out, again.err) == (0, "", "")
    assert "vs gelu" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_runs_and_split_are_those_named(call_command: Command, outputs: Path, tmp_path: Path) -> None:
    runs = sorted((outputs / "runs").iterdir())[:4]
    ended = call_command("report", *map(str, runs), "--split", "val", "-o", "sub/p.html")
    assert ended.code == 0, ended.err
    assert ended.out.startswith("sub/p.html: 1 table, ")
    page = (tmp_path / "sub" / "p.html").read_text(encoding="utf-8")
    assert "val_loss_nats" in page
    assert page.count('<tr class="baseline">') == 2


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("-o", "notes.html"), "not a report of glu-bench"),
        (("-o", "report.pdf"), "ends in .html"),
        (("--split", "train"), "--split train"),
        (("--baseline", "geglu"), "--baseline geglu"),
        (("nosuch",), "nosuch"),
    ],
)
def test_what_cannot_work_is_one_line_and_writes_nothing(
    words: tuple[str, ...], said: str, call_command: Command, outputs: Path, tmp_path: Path
) -> None:
    (tmp_path / "notes.html").write_text("mine")
    ended = call_command("report", "--output-dir", str(outputs), *words)
    assert ended.code == 2
    assert said in ended.err
    assert ended.err.count("\n") == 1
    assert (tmp_path / "notes.html").read_text() == "mine"
    assert not (tmp_path / "report.html").exists()
