"""Tables as files: CSV, Markdown and LaTeX, each read back by something that is not ours."""

from __future__ import annotations

import csv
import dataclasses
import io
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from markdown_it import MarkdownIt

from glu_bench.show.bibtex import write_bibtex
from glu_bench.show.columns import choose_columns, list_columns
from glu_bench.show.csv_table import guard_cell, write_csv
from glu_bench.show.latex_table import PREAMBLE, escape_latex, write_latex
from glu_bench.show.markdown_table import escape_markdown, write_markdown, write_paragraph
from glu_bench.study.bibliography import load_bibliography
from glu_bench.study.compare import Comparison
from tests.show.made import HOSTILE, LOSSES, make_comparison

ALL = choose_columns("all")
TELLING = choose_columns("arm,n,mean_loss_nats,letters,difference_nats,difference_ci95,p_holm")


@pytest.fixture(scope="module")
def hostile() -> Comparison:
    """A table whose setting and one arm attack every format."""
    return make_comparison({**LOSSES, HOSTILE: (2.0, 2.1, 2.05)}, setting=HOSTILE)


def test_csv_reads_back_to_the_same_numbers() -> None:
    tables = [make_comparison(), make_comparison(setting="another")]
    rows = list(csv.DictReader(io.StringIO(write_csv(tables, ALL), newline="")))
    assert [row["setting"] for row in rows] == [tables[0].setting] * 3 + ["another"] * 3
    for row, arm in zip(rows, [arm for table in tables for arm in table.arms], strict=True):
        assert row["arm"] == arm.arm
        assert int(row["n_finished"]) == arm.n_finished
        assert float(row["mean_loss_nats"]) == arm.mean_loss_nats
        assert arm.ci95 is not None
        assert (float(row["ci95_low"]), float(row["ci95_high"])) == arm.ci95
        assert row["p_holm"] == ("" if arm.p_holm is None else repr(arm.p_holm))
        assert row["bits_per_byte"] == row["speedup.wall_ci95_low"] == ""


def test_csv_ends_lines_and_quotes_as_rfc_4180_says() -> None:
    table = make_comparison({'a "b", c': (1.0, 1.1), "gelu": (1.2, 1.35)})
    content = write_csv([table], choose_columns("arm,n"))
    assert content == (
        "setting,arm,n_finished,n_planned,n_diverged\r\n"
        '"nano, match params","a ""b"", c",2,2,0\r\n'
        '"nano, match params",gelu,2,2,0\r\n'
    )


@pytest.mark.parametrize(
    "text",
    ["=1+1", "+1+1", "-1+1", "@SUM(A1)", "\tx", "\r=x", "\n=x", "  =1", "＝1", "-inf", "=cmd|' /C'!A0"],
)
def test_a_cell_that_a_spreadsheet_would_run_is_prefixed(text: str) -> None:
    assert guard_cell(text).startswith("'")


@pytest.mark.parametrize("text", ["-1.5", "-2e-3", "+0.25", "gelu", "a=b", "x-1"])
def test_plain_numbers_and_names_are_not(text: str) -> None:
    assert guard_cell(text) == text


def test_negative_numbers_of_a_table_are_numbers() -> None:
    (row, *_) = csv.DictReader(io.StringIO(write_csv([make_comparison()], TELLING), newline=""))
    assert float(row["difference_nats"]) == pytest.approx(-0.1, abs=0.01)


def test_csv_of_hostile_names_holds_no_control_and_no_formula(hostile: Comparison) -> None:
    content = write_csv([hostile], ALL)
    assert not {"\x1b", "\u202e"} & set(content)
    for row in csv.reader(io.StringIO(content, newline="")):
        assert not any(re.match(r"[=+@\t\r]|-(?!\d)", cell) for cell in row)


def parse_markdown(text: str) -> tuple[str, list[list[str]], list[str]]:
    """Heading, cells and paragraphs as CommonMark with tables has them; fails on any markup inside."""
    heading, rows, paragraphs = "", [], []
    kind = ""
    for token in MarkdownIt("commonmark").enable("table").parse(text):
        if token.type in ("heading_open", "th_open", "td_open", "paragraph_open", "tr_open"):
            kind = token.type
            if kind == "tr_open":
                rows.append([])
        elif token.type == "inline":
            assert token.children is not None
            assert {child.type for child in token.children} <= {"text", "text_special"}, token.content
            said = "".join(child.content for child in token.children)
            if kind == "heading_open":
                heading = said
            elif kind == "paragraph_open":
                paragraphs.append(said)
            else:
                rows[-1].append(said)
        else:
            opened = ("table_open", "thead_open", "tbody_open", "bullet_list_open", "list_item_open")
            assert token.type.endswith("_close") or token.type in opened
    return heading, rows, paragraphs


def test_markdown_is_a_heading_a_table_and_the_verdict() -> None:
    table = dataclasses.replace(make_comparison(), warnings=["gelu: the mean is over 2 of 3 runs"])
    heading, rows, paragraphs = parse_markdown(write_markdown(table, TELLING))
    assert heading == table.setting
    assert rows[0] == [
        "arm",
        "n (runs)",
        "loss (nats)",
        "",
        "vs gelu (nats)",
        "95 % interval (nats)",
        "p (Holm)",
    ]
    assert [row[0] for row in rows[1:]] == [arm.arm for arm in table.arms]
    assert all(len(row) == len(TELLING) for row in rows)
    assert paragraphs[0] == table.verdict
    assert "arms that share a letter are not separable (Holm over" in paragraphs[1]
    assert paragraphs[-1] == "gelu: the mean is over 2 of 3 runs"


def test_markdown_of_hostile_names_is_text(hostile: Comparison) -> None:
    heading, rows, _ = parse_markdown(write_markdown(hostile, ALL))
    shown = HOSTILE.replace("\x1b", r"\x1b").replace("\u202e", r"\x202e")
    assert heading == shown
    assert rows[-1][0] == shown
    assert {len(row) for row in rows} == {len(ALL)}


@pytest.mark.parametrize(
    "text", ["- x", "+ x", "1. x", "12) x", "# x", "> x", "=== x", "--- x", "`x`", "a\\|b", "![x](y)", "&lt;"]
)
def test_no_text_becomes_another_block(text: str) -> None:
    assert parse_markdown(write_paragraph(text))[2] == [text]
    assert parse_markdown(f"# {escape_markdown(text)}")[0] == text


def check_latex(text: str) -> None:
    """Environments and braces are balanced, every special stands escaped, rows have equal cells."""
    open_environments: list[str] = []
    for what, name in re.findall(r"\\(begin|end)\{(\w+)\}", text):
        if what == "begin":
            open_environments.append(name)
        else:
            assert open_environments.pop() == name
    assert open_environments == []
    depth = 0
    for brace in re.findall(r"(?<!\\)(?:\\\\)*([{}])", text):
        depth += 1 if brace == "{" else -1
        assert depth >= 0
    assert depth == 0
    known = (
        r"begin|end|centering|caption|toprule|midrule|bottomrule|textsuperscript|textbackslash|textless|"
        r"textgreater|textbar|textasciitilde|textasciicircum|cite"
    )
    rest = re.sub(
        rf"\\(?:(?:{known})(?![a-zA-Z])|[{{}}$&%#_\\])", "", text.replace("$-$", "").replace("$+$", "")
    )
    assert not re.search(r"[\\$%#_^~]", rest), rest
    (spec,) = re.findall(r"\\begin\{tabular\}\{([lr]+)\}", text)
    rows = [line for line in text.splitlines() if line.endswith(r" \\")]
    assert {len(re.findall(r"(?<!\\)&", row)) + 1 for row in rows} == {len(spec)}


def test_latex_is_balanced_and_escaped(hostile: Comparison) -> None:
    for table in (make_comparison(), hostile):
        for columns in (ALL, TELLING, choose_columns("letters"), choose_columns("arm,letters")):
            check_latex(write_latex(table, columns))


def test_letters_are_superscripts_of_the_loss() -> None:
    table = make_comparison()
    text = write_latex(table, TELLING)
    for arm in table.arms:
        assert rf"{arm.mean_loss_nats:.4f}\textsuperscript{{{arm.letters}}}" in text
    assert rf"geglu\textsuperscript{{{table.arms[0].letters}}}" in write_latex(
        table, choose_columns("arm,letters")
    )
    assert "textsuperscript" not in write_latex(table, choose_columns("arm,mean_loss_nats"))


def test_the_caption_holds_the_verdict_and_signs_are_minus_signs() -> None:
    table = make_comparison()
    text = write_latex(table, TELLING)
    (caption,) = re.findall(r"\\caption\{(.*)\}", text)
    for word in re.findall(r"[A-Za-z]{4,}", table.verdict):
        assert word in caption
    assert "$-$0.10" in text
    assert not re.search(r"[ (]-\d", text)


def test_what_pdflatex_has_no_letter_for_is_told_by_number() -> None:
    assert escape_latex("βñ漢") == "U+03B2ñU+6F22"


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no pdflatex")
def test_latex_compiles(hostile: Comparison, tmp_path: Path) -> None:
    letters = "".join(chr(at) for at in range(0x20, 0x180))
    body = write_latex(hostile, TELLING) + write_latex(make_comparison(setting=letters), ALL)
    document = (
        r"\documentclass{article}\usepackage[T1]{fontenc}\usepackage{booktabs}\begin{document}"
        f"\n{PREAMBLE}{body}\n" + r"\nocite{*}\bibliographystyle{plain}\bibliography{all}\end{document}"
    )
    (tmp_path / "all.bib").write_text(write_bibtex(load_bibliography().values(), [HOSTILE]), encoding="utf-8")
    (tmp_path / "table.tex").write_text(document, encoding="utf-8")
    # as DVI, which needs no bitmaps of fonts
    latex = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "-output-format=dvi", "table.tex"]
    commands = [latex, ["bibtex", "table"], latex, latex] if shutil.which("bibtex") else [latex]
    for command in commands:
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, timeout=60, check=False)
        assert done.returncode == 0, done.stdout[-2000:]


def test_every_column_can_stand_in_every_format() -> None:
    table = make_comparison()
    for column in list_columns().values():
        assert write_csv([table], [column]).count("\r\n") == 4
        assert len(parse_markdown(write_markdown(table, [column]))[1]) == 4
        check_latex(write_latex(table, [column]))
