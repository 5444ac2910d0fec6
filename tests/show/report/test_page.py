"""The page as HTML: what it says, and that nothing in it is alive but its own two scripts."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import json
import re
from pathlib import Path

import pytest

from glu_bench.errors import ConfigError, show_controls
from glu_bench.runs.folder import Run
from glu_bench.runs.publish import publish_run
from glu_bench.show.report import page as page_module
from glu_bench.show.report.cells import list_cost_cells, list_cost_columns
from glu_bench.show.report.page import Asked, check_place, render_report, write_report
from glu_bench.stats.speedup import Speedup
from glu_bench.study.compare import compare_runs
from tests.conftest import TinyConfig
from tests.show.report.conftest import ARMS, HOSTILE, Made, log_rows
from tests.show.report.reading import Page
from tests.study.conftest import MakeRun, maker_of_runs

STYLE = (Path(page_module.__file__).parent / "style.css").read_text(encoding="utf-8")
OWN_TAGS = {
    *(
        "html",
        "head",
        "meta",
        "title",
        "style",
        "body",
        "script",
        "header",
        "main",
        "nav",
        "section",
        "footer",
    ),
    *("div", "span", "h1", "h2", "h3", "h4", "p", "a", "dl", "dt", "dd", "ul", "li", "bdi", "pre", "code"),
    *("table", "thead", "tbody", "tr", "th", "td", "small", "strong", "details", "summary", "figure"),
    *("figcaption", "fieldset", "legend", "label", "input", "button", "select", "option"),
    *("svg", "g", "line", "circle", "text", "path", "use", "defs", "clippath", "rect"),
}


@pytest.fixture(scope="module")
def read(tidy: Made) -> Page:
    return Page(tidy.page)


@pytest.fixture(scope="module")
def read_hostile(hostile: Made) -> Page:
    return Page(hostile.page)


def test_no_command_is_given_that_a_published_run_cannot_follow(make_plain: MakeRun, tmp_path: Path) -> None:
    runs = [make_plain(arm, 0, loss) for arm, loss in (("gelu", 2.0), ("swiglu", 1.9))]
    published = [Run(publish_run(run, tmp_path / "published", None)) for run in runs]
    for found, measured in ((runs, True), (published, False)):
        text = Page(render_report(compare_runs(found), found, Asked())).text
        assert ("glu-bench eval" in text) is measured
        assert ("published without its checkpoints" in text) is not measured
        assert "glu-bench runs verify" in text


@pytest.mark.parametrize("match", ["params", "width"])
def test_all_runs_stand_on_the_page_whatever_makes_an_arm(match: str, make_plain: MakeRun) -> None:
    """The heading says nothing of the matching, whichever run comes first."""
    runs = [make_plain("gelu", 0, 2.0, f"match={match}")]
    runs += [
        make_plain("swiglu", 0, 1.9 + at, f"match={each}") for at, each in enumerate(("params", "width"))
    ]
    tables = compare_runs(runs, arm_keys=("variant", "match"))
    text = Page(render_report(tables, runs, Asked(arms="variant,match"))).text
    assert "All 3 runs" in text


def test_the_verdict_comes_before_anything_else_that_was_found(tidy: Made, read: Page) -> None:
    first, _, rest = tidy.tables[0].verdict.partition(". ")
    assert read.text.index(first) < read.text.index(rest) < read.text.index("perplexity")


def test_every_note_of_the_comparison_is_there(tidy: Made, read: Page) -> None:
    assert tidy.tables[0].warnings
    for warning in tidy.tables[0].warnings:
        assert warning in read.text


def test_the_numbers_are_those_of_the_comparison(tidy: Made, read: Page) -> None:
    table = tidy.tables[0]
    head, *rows = read.table("results").rows
    names = [re.sub(r" difference, nats.*", "", text) for text, _ in head]
    assert [row[0][1] for row in rows] == [arm.arm for arm in table.arms]
    for arm, row in zip(table.arms, rows, strict=True):
        cells = dict(zip(names, row, strict=True))
        assert cells["loss, nats"] == (f"{arm.mean_loss_nats:.4f}", str(arm.mean_loss_nats))
        assert cells["sd"] == (f"{arm.sd_loss_nats:.4f}", str(arm.sd_loss_nats))
        assert cells["letters"][0] == arm.letters
        assert float(cells["bits/byte"][1]) == arm.bits_per_byte
        assert float(cells["perplexity"][1]) == arm.perplexity
        if arm.arm != table.baseline:
            assert cells[f"vs {table.baseline}"][0] == f"{arm.difference_nats:+.4f}"
            assert float(cells["p (Holm)"][1]) == arm.p_holm
            assert cells["verdict"][0] == arm.verdict.replace("_", " ")
    runs = {row[0][1]: dict(zip(names, row, strict=True))["runs"][0] for row in rows}
    assert runs == {"swiglu": "3", "geglu": "3", "gelu": "3", "relu": "3 of 4"}


def test_both_intervals_are_written_out(tidy: Made, read: Page) -> None:
    for arm in tidy.tables[0].arms:
        assert arm.ci95 is not None
        assert f"{arm.ci95[0]:.4f} to {arm.ci95[1]:.4f}" in read.text
        if arm.difference_ci95:
            assert f"{arm.difference_ci95[0]:+.4f} to {arm.difference_ci95[1]:+.4f}" in read.text


def test_costs_are_those_of_the_comparison(tidy: Made, read: Page) -> None:
    _, *rows = read.table("costs").rows
    base = next(arm for arm in tidy.tables[0].arms if arm.arm == "gelu")
    assert base.tokens_per_s is not None
    for arm, row in zip(tidy.tables[0].arms, rows, strict=True):
        assert arm.tokens_per_s is not None
        assert [float(value) for _, value in row[1:8]] == [
            *(arm.n_params, arm.n_ffn_params, arm.match_residual, arm.flops_per_token, arm.tokens_per_s),
            arm.tokens_per_s / base.tokens_per_s,
            arm.peak_bytes,
        ]


def test_a_speedup_is_a_ratio_with_its_interval_or_bounds(tidy: Made) -> None:
    def written(speedup: Speedup | None) -> list[str]:
        arm = dataclasses.replace(tidy.tables[0].arms[0], speedup=speedup)
        table = dataclasses.replace(tidy.tables[0], arms=[arm, *tidy.tables[0].arms[1:]])
        titles = [column.title for column in list_cost_columns(table)]
        cells = dict(zip(titles, list_cost_cells(table, arm), strict=True))
        return [
            f"{cells[f'speedup, {of}'].text} {cells[f'speedup, {of}'].small}"
            for of in ("compute", "wall clock")
        ]

    ratios = Speedup(compute=1.234, compute_ci95=(1.1, None), wall=0.8, wall_ci95=(0.7, 0.9))
    assert written(ratios) == ["1.23 at least 1.10", "0.80 0.70 to 0.90"]
    bounds = Speedup(compute=None, compute_ci95=None, wall=None, wall_ci95=None, compute_bounds=(None, 2.0))
    assert written(bounds) == ["at most 2.00 ", "– "]


def test_every_run_stands_there_with_the_command_that_trains_it(tidy: Made, read: Page) -> None:
    rows = read.tables[-1].rows[1:]
    assert len(rows) == len(tidy.runs)
    assert {row[-2][0] for row in rows} == {run.path.name for run in tidy.runs}
    assert all(row[-1][0].startswith("glu-bench train variant=") for row in rows)
    assert "glu-bench compare gates" in read.text
    assert "glu-bench report gates" in read.text


def test_what_failed_says_why(read: Page) -> None:
    assert "loss is nan" in read.text
    assert "1 diverged" in read.text


def test_what_arms_do_not_share_is_listed(read: Page) -> None:
    (differing,) = [t for t in read.tables if t.rows[0][0][0] == "setting"]
    listed = {row[0][0]: [text for text, _ in row[1:]] for row in differing.rows[1:]}
    assert listed["variant.formula"][0] == "SiLU(g) * u"
    assert listed["variant.gated"] == ["yes", "yes", "no", "no"]
    assert "optim.lr" not in listed


def test_tuning_shows_what_was_chosen_and_where_the_grid_ended(read: Page) -> None:
    (table,) = [t for t in read.tables if ("place in the grid", "") in t.rows[0]]
    assert [text for text, _ in table.rows[1]] == [
        "swiglu",
        "optim.lr 0.001",
        "optim.lr: the low end of the grid",
        "6",
    ]


def test_the_page_is_one_small_file_that_asks_for_nothing(tidy: Made, read: Page) -> None:
    assert len(tidy.page.encode()) < 6_000_000
    for tag, given in read.tags:
        assert tag not in ("link", "img", "iframe", "object", "embed", "base", "form")
        assert "src" not in given
        for name in ("href", "xlink:href", "action", "srcset", "data", "poster"):
            assert (given.get(name) or "#").startswith("#"), (tag, given)
        for value in given.values():
            assert "url(" not in (value or "").replace("url(#", "")
    for style in read.styles:
        assert "@import" not in style
        assert "url(" not in style


def test_a_policy_lets_only_the_two_scripts_run(read: Page) -> None:
    (policy,) = [g["content"] for t, g in read.tags if t == "meta" and "http-equiv" in g]
    assert policy is not None
    live = [text for kind, text in read.scripts if kind != "application/json"]
    assert len(live) == 2
    digests = {f"'sha256-{base64.b64encode(hashlib.sha256(s.encode()).digest()).decode()}'" for s in live}
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules["default-src"] == "'none'"
    assert set(rules["script-src"].split()) == digests
    assert not any(name.startswith("on") for _, given in read.tags for name in given)


def test_hostile_texts_make_no_tag_and_no_attribute(hostile: Made, read_hostile: Page, read: Page) -> None:
    assert {tag for tag, _ in read_hostile.tags} <= OWN_TAGS
    assert {tag for tag, _ in read.tags} <= OWN_TAGS
    assert not any(name.startswith("on") for _, given in read_hostile.tags for name in given)
    assert [kind for kind, _ in read_hostile.scripts] == ["application/json", "", ""]
    assert sum(tag == "meta" for tag, _ in read_hostile.tags) == sum(tag == "meta" for tag, _ in read.tags)
    assert [s for k, s in read_hostile.scripts if not k] == [s for k, s in read.scripts if not k]
    own = hostile.page.replace(read.scripts[1][1], "").replace(read.scripts[2][1], "")
    assert not set(own) & {"\x1b", "\u202e", "\u2028", "\u2029"}


@pytest.mark.parametrize("text", HOSTILE)
def test_a_hostile_text_is_read_as_it_is_in_the_page_and_in_its_data(text: str, read_hostile: Page) -> None:
    shown = show_controls(text)
    _, *rows = read_hostile.table("results").rows
    assert f"data.val_split={shown}" in [row[0][1] for row in rows]
    data = read_hostile.data()["tables"][0]
    assert f"data.val_split={shown}" in [arm["name"] for arm in data["arms"]]
    assert shown in [quantity["name"] for quantity in data["diagnostics"]]
    assert shown in [profile["name"] for profile in data["profiles"]]
    assert any(shown in word for word in read_hostile.texts if "reason" not in word)


def test_the_data_of_the_page_is_strict_json_without_an_angle(hostile: Made) -> None:
    (text,) = re.findall(r'id="page-data">(.*?)</script>', hostile.page, re.DOTALL)
    assert not set(text) & set("<>&")
    json.loads(text, parse_constant=lambda word: pytest.fail(word))


def test_every_id_is_there_once_and_every_reference_finds_one(read: Page) -> None:
    ids = [given["id"] for _, given in read.tags if "id" in given]
    assert len(ids) == len(set(ids))
    references = [g["href"] or "" for _, g in read.tags if "href" in g]
    references += re.findall(r"url\((#[^)]+)\)", " ".join(v or "" for _, g in read.tags for v in g.values()))
    assert len(references) > 20
    assert {reference.removeprefix("#") for reference in references} <= set(ids)


def test_drawings_for_readers_without_javascript_follow_the_theme(read: Page) -> None:
    styles = " ".join(given.get("style") or "" for _, given in read.tags)
    assert "var(--c0)" in styles
    assert "#0000" not in styles
    assert "#0001" not in styles
    labels = [given["aria-label"] or "" for tag, given in read.tags if given.get("class") == "static"]
    assert len([label for label in labels if label.startswith(("Loss.", "Difference to gelu."))]) == 2


def test_curves_are_thinned_and_keep_their_last_held_out_point(
    tiny_config: TinyConfig, tmp_path: Path
) -> None:
    make = maker_of_runs(tiny_config, tmp_path)
    runs = [make(arm, 0, ARMS[arm]) for arm in ("gelu", "swiglu")]
    for run in runs:
        log_rows(run, 2.0, n_rows=1501)
    page = Page(render_report(compare_runs(runs), runs, Asked()))
    for run in page.data()["tables"][0]["runs"]:
        assert 100 <= len(run["val"][0]) <= 200
        assert 100 <= len(run["train"][0]) <= 200
        assert run["val"][0][-1] == 64 * 1500
        assert run["val"][2][-1] == pytest.approx(2.1 + 3 / 1500)


def test_one_seed_without_curves_or_tuning_makes_a_page_all_the_same(make_plain: MakeRun) -> None:
    runs = [make_plain("gelu", 0, 2.0), make_plain("swiglu", 0, None, diverged=True)]
    page = Page(render_report(compare_runs(runs), runs, Asked()))
    assert page.table("results").rows[2][1][0] == "–"
    assert "Curves" not in page.text


def test_a_torn_log_is_said_and_costs_the_run_its_curves_alone(make_plain: MakeRun) -> None:
    runs = [make_plain("gelu", 0, 2.0), make_plain("swiglu", 0, 1.9)]
    log_rows(runs[0], 2.0)
    runs[1].metrics_path.write_text('{"step": 1,\n{"step": 2}\n', encoding="utf-8")
    page = Page(render_report(compare_runs(runs), runs, Asked()))
    assert "not a row of JSON" in page.text
    assert len(page.data()["tables"][0]["runs"]) == 1


def test_two_settings_are_two_sections_with_ids_of_their_own(make_plain: MakeRun) -> None:
    runs = [
        make_plain(arm, s, 2.0 + s, *words)
        for arm in ("gelu", "swiglu")
        for s in (0, 1)
        for words in ((), ("train.steps=7",))
    ]
    for run in runs:
        log_rows(run, 2.0)
    page = Page(render_report(compare_runs(runs), runs, Asked()))
    ids = [given["id"] for _, given in page.tags if "id" in given]
    assert len(ids) == len(set(ids))
    assert [len(table["runs"]) for table in page.data()["tables"]] == [4, 4]


def test_a_page_that_would_be_too_large_is_thinned_before_it_is_refused(
    make_plain: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("plotly.offline.get_plotlyjs", lambda: "")  # most of a page, and the same in all
    runs = [make_plain(arm, 0, 2.0) for arm in ("gelu", "swiglu")]
    for run in runs:
        log_rows(run, 2.0, n_rows=400)
    n_full = len(render_report(compare_runs(runs), runs, Asked()).encode())
    monkeypatch.setattr(page_module, "LIMIT_BYTES", n_full - 1)
    assert len(render_report(compare_runs(runs), runs, Asked()).encode()) < n_full
    monkeypatch.setattr(page_module, "LIMIT_BYTES", 10_000)
    with pytest.raises(ConfigError, match="2 runs in 1 tables"):
        render_report(compare_runs(runs), runs, Asked())


def test_a_report_replaces_a_report_and_nothing_else(tmp_path: Path, tidy: Made) -> None:
    place = tmp_path / "new" / "r.html"
    assert write_report(place, tidy.page) == len(tidy.page.encode())
    check_place(place)
    diary = tmp_path / "diary.html"
    diary.write_text("<!doctype html>dear diary")
    with pytest.raises(ConfigError, match="not a report of glu-bench"):
        write_report(diary, tidy.page)
    assert diary.read_text() == "<!doctype html>dear diary"
    with pytest.raises(ConfigError, match=r"ends in \.html"):
        check_place(tmp_path / "run.json")
    (tmp_path / "x.html").mkdir()
    with pytest.raises(ConfigError, match="is a folder"):
        check_place(tmp_path / "x.html")


def test_the_command_is_said_as_it_was_given() -> None:
    asked = Asked(
        words=["a b", "$(rm)"], baseline="relu", arms="variant,match", split="val", output_dir=Path("o")
    )
    assert asked.command("compare") == (
        "glu-bench compare 'a b' '$(rm)' --baseline relu --arms variant,match --split val --output-dir o"
    )
    assert Asked().command("report") == "glu-bench report"


# WCAG 2.2: 1.4.3 asks 4.5 to 1 of text, 1.4.11 asks 3 to 1 of graphics
def luminance(color: str) -> float:
    channels = [int(color[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(a: str, b: str) -> float:
    high, low = sorted((luminance(a), luminance(b)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
def test_texts_and_lines_stand_out_from_what_is_behind_them(theme: int) -> None:
    colors = dict(
        re.findall(r"(--[\w-]+): (#[0-9a-f]{6})", re.findall(r":root \{(.*?)\}", STYLE, re.DOTALL)[theme])
    )
    for ground in ("--paper", "--panel"):
        for text in ("--ink", "--muted", "--accent", "--better", "--worse"):
            assert contrast(colors[text], colors[ground]) >= 4.5, (text, ground)
        for line in ("--cb", "--tie", *(f"--c{at}" for at in range(8))):
            assert contrast(colors[line], colors[ground]) >= 3, (line, ground)
    assert contrast(colors["--ink"], colors["--note"]) >= 4.5
