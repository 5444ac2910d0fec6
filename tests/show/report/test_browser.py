"""The page in Chromium: it draws, toggles, sorts, and reads without its script."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from glu_bench.errors import show_controls
from tests.show.report.conftest import HOSTILE, Made

CHROMIUM = next((path for name in ("chromium", "chromium-browser") if (path := shutil.which(name))), None)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed: apt-get install chromium"),
]


@dataclass
class Opened:
    """A page in the browser, and what it said and asked for."""

    page: Any
    said: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)

    def curves(self, figure: str) -> int:
        """How many lines a chart has."""
        return int(self.page.locator(f"#t0-{figure} .scatterlayer .trace").count())

    def cells(self, column: str, table: str = "results") -> list[str]:
        """A column's texts from top to bottom."""
        script = """([table, column]) => {
            const heads = [...document.querySelectorAll(`table.${table} thead th`)];
            const at = heads.findIndex((head) => head.textContent.trim().startsWith(column));
            const rows = [...document.querySelectorAll(`table.${table} tbody tr`)];
            return rows.map((row) => row.cells[at].innerText);
        }"""
        return list(self.page.evaluate(script, [table, column]))

    def axis(self, figure: str, name: str) -> dict[str, Any]:
        """What plotly has for an axis."""
        script = "([id, name]) => { const a = document.querySelector(`#t0-${id} .chart`)._fullLayout[name];"
        return dict(
            self.page.evaluate(f"{script} return {{type: a.type, title: a.title.text}}; }}", [figure, name])
        )


Open = Callable[..., Opened]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser: Any, tmp_path: Path) -> Iterator[Open]:
    """Opens a report from a file, with the options of a browser's context."""
    contexts = []

    def open_it(made: Made, **options: Any) -> Opened:
        path = tmp_path / "report.html"
        path.write_text(made.page, encoding="utf-8")
        context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **options})
        contexts.append(context)
        opened = Opened(context.new_page())
        opened.page.on("console", lambda message: opened.said.append(message.text))
        opened.page.on("pageerror", lambda error: opened.said.append(str(error)))
        opened.page.on("request", lambda request: opened.asked.append(request.url))
        opened.page.on("dialog", lambda dialog: opened.said.append(dialog.message))
        opened.page.goto(path.as_uri())
        if options.get("java_script_enabled", True):
            opened.page.wait_for_selector("#t0-memory .scatterlayer .trace", state="attached")
        return opened

    yield open_it
    for context in contexts:
        context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_opens_without_a_word_and_asks_for_nothing(scheme: str, tidy: Made, open_page: Open) -> None:
    opened = open_page(tidy, color_scheme=scheme)
    assert opened.said == []
    assert [url for url in opened.asked if not url.startswith("file:")] == []
    assert len(opened.asked) == 1
    assert opened.page.locator("figure.live").count() == opened.page.locator("figure").count()
    assert not opened.page.locator(".static").first.is_visible()


def test_dark_is_dark_and_its_charts_too(tidy: Made, open_page: Open) -> None:
    grounds, ticks = [], []
    opened = open_page(tidy, color_scheme="light")
    for scheme in ("light", "dark"):
        opened.page.emulate_media(color_scheme=scheme)
        grounds.append(opened.page.evaluate("getComputedStyle(document.body).backgroundColor"))
        opened.page.wait_for_timeout(200)
        tick = opened.page.locator("#t0-losses .xtick text").first
        ticks.append(tick.evaluate("text => getComputedStyle(text).fill"))
    assert grounds == ["rgb(251, 251, 249)", "rgb(19, 22, 27)"]
    assert ticks == ["rgb(90, 98, 112)", "rgb(163, 172, 186)"]


def test_a_toggle_hides_an_arm_in_every_chart(tidy: Made, open_page: Open) -> None:
    opened = open_page(tidy)
    figures = ("losses", "gaps", "tuning-0", "profile", "diagnostic", "speed", "memory")
    before = [opened.curves(figure) for figure in figures]
    # four means and the run that diverged; three differences; of two tuned arms points, line and ring
    assert before == [5, 3, 6, 4, 4, 4, 4]
    opened.page.get_by_role("checkbox", name="swiglu").uncheck()
    opened.page.wait_for_timeout(300)
    assert [opened.curves(figure) for figure in figures] == [4, 2, 3, 3, 3, 3, 3]
    opened.page.get_by_role("checkbox", name="swiglu").check()
    opened.page.wait_for_timeout(300)
    assert [opened.curves(figure) for figure in figures] == before
    opened.page.get_by_role("button", name="none").click()
    opened.page.wait_for_timeout(300)
    assert [opened.curves(figure) for figure in figures] == [0] * 7
    opened.page.get_by_role("button", name="all", exact=True).click()
    opened.page.wait_for_timeout(300)
    assert [opened.curves(figure) for figure in figures] == before
    assert opened.said == []


def test_a_curve_is_drawn_where_the_runs_were(tidy: Made, open_page: Open) -> None:
    opened = open_page(tidy)
    script = "document.querySelector('#t0-losses .chart').data.map(t => [t.name, t.x.at(-1), t.y.at(-1)])"
    drawn = {name: (x, y) for name, x, y in opened.page.evaluate(script)}
    for arm in tidy.tables[0].arms:
        # held out: the final loss, 0.1 more, and what is left of the fall after 40 rows
        wanted = sum(loss + 0.1 + (5 - loss) / 40 for loss in arm.losses.values()) / len(arm.losses)
        assert drawn[arm.arm] == (64 * 40, pytest.approx(wanted, abs=1e-4))
    assert drawn["relu, seed 3, diverged"][0] == 64 * 8


def test_differences_are_to_the_baseline_at_the_same_place(tidy: Made, open_page: Open) -> None:
    opened = open_page(tidy)
    script = "document.querySelector('#t0-gaps .chart').data.map(t => [t.name, t.y.at(-1)])"
    drawn = dict(opened.page.evaluate(script))
    assert set(drawn) == {"swiglu", "geglu", "relu"}
    for arm in tidy.tables[0].arms:
        if arm.arm != "gelu":
            assert arm.difference_nats is not None
            assert drawn[arm.arm] == pytest.approx(arm.difference_nats * 39 / 40, abs=1e-4)


@pytest.mark.parametrize(
    ("axis", "title", "last"),
    [("FLOPs", "FLOPs, forward and backward", 64 * 40 * 424_224), ("seconds", "seconds of training", 4.0)],
)
def test_the_axis_changes_to_what_is_chosen(
    axis: str, title: str, last: float, tidy: Made, open_page: Open
) -> None:
    opened = open_page(tidy)
    assert opened.axis("losses", "xaxis") == {"type": "linear", "title": "tokens"}
    opened.page.get_by_role("radio", name=axis).check()
    for figure in ("losses", "gaps", "diagnostic"):
        assert opened.axis(figure, "xaxis")["title"] == title
        at = opened.page.evaluate(f"document.querySelector('#t0-{figure} .chart').data[0].x.at(-1)")
        assert at == pytest.approx(last)
    opened.page.get_by_role("group", name="x axis").get_by_role("radio", name="log").check()
    opened.page.get_by_role("group", name="loss axis").get_by_role("radio", name="log").check()
    assert opened.axis("losses", "xaxis")["type"] == "log"
    assert opened.axis("losses", "yaxis")["type"] == "log"
    assert opened.axis("gaps", "yaxis")["type"] == "linear"
    assert opened.said == []


def test_training_loss_and_single_runs_can_be_seen(tidy: Made, open_page: Open) -> None:
    opened = open_page(tidy)
    opened.page.get_by_role("radio", name="each run").check()
    assert opened.curves("losses") == 13
    opened.page.get_by_role("radio", name="training").check()
    assert opened.page.evaluate("document.querySelector('#t0-losses .chart').data[0].x.length") == 40


@pytest.mark.parametrize("column", ["loss, nats", "sd", "perplexity", "bits/byte"])
def test_sorting_by_numbers_goes_up_and_then_down(column: str, tidy: Made, open_page: Open) -> None:
    opened = open_page(tidy)
    head = opened.page.locator("table.results th", has=opened.page.get_by_role("button", name=column)).first
    for direction in ("ascending", "descending"):
        head.get_by_role("button").click()
        assert head.get_attribute("aria-sort") == direction
        values = [float(text.split()[0]) for text in opened.cells(column)]
        assert values == sorted(values, reverse=direction == "descending")
        assert opened.page.locator("table.results th[aria-sort]").count() == 1


def test_sorting_by_names_and_with_nothing_in_a_cell(tidy: Made, open_page: Open) -> None:
    opened = open_page(tidy)
    results = opened.page.locator("table.results")
    results.get_by_role("button", name="arm").click()
    assert [text.strip() for text in opened.cells("arm")] == ["geglu", "gelu", "relu", "swiglu"]
    for _ in range(2):  # the baseline has no p and stays last
        results.get_by_role("button", name="p (Holm)").click()
        assert opened.cells("p (Holm)")[-1] == "–"


def test_all_can_be_done_by_keyboard(tidy: Made, open_page: Open) -> None:
    opened = open_page(tidy)
    page = opened.page
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "To the verdict"
    button = page.locator("table.results").get_by_role("button", name="loss, nats")
    button.focus()
    page.keyboard.press("Enter")
    page.keyboard.press("Space")
    assert page.locator("table.results th[aria-sort=descending]").count() == 1
    box = page.get_by_role("checkbox", name="relu")
    box.focus()
    page.keyboard.press("Space")
    page.wait_for_timeout(300)
    assert opened.curves("losses") == 3
    page.get_by_role("radio", name="tokens").focus()
    page.keyboard.press("ArrowRight")
    assert opened.axis("losses", "xaxis")["title"].startswith("FLOPs")
    outline = "getComputedStyle(document.activeElement.nextElementSibling).outlineStyle"
    assert page.evaluate(outline) == "solid"
    reached = set()
    page.locator("body").focus()
    for _ in range(60):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.tagName"))
    assert {"A", "BUTTON", "INPUT", "SUMMARY", "SELECT"} <= reached


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("javascript", [True, False])
def test_the_page_is_never_wider_than_the_screen(
    width: int, javascript: bool, tidy: Made, hostile: Made, open_page: Open
) -> None:
    for made in (tidy, hostile):
        opened = open_page(made, viewport={"width": width, "height": 800}, java_script_enabled=javascript)
        wide = opened.page.locator("html").evaluate("html => html.scrollWidth") if javascript else None
        box = opened.page.locator("#main").bounding_box()
        assert wide in (None, width)
        assert box["x"] + box["width"] <= width
        for part in (".verdict", ".scroll", "figure", "pre"):
            for each in opened.page.locator(part).all()[:8]:
                place = each.bounding_box()
                assert place is None or place["x"] + place["width"] <= width + 0.5, part


def test_it_reads_without_javascript(tidy: Made, open_page: Open) -> None:
    page = open_page(tidy, java_script_enabled=False).page
    assert page.locator(".verdict").is_visible()
    assert tidy.tables[0].verdict.startswith(page.locator(".verdict").inner_text())
    assert page.locator("table.results tbody tr").count() == 4
    assert page.locator("table.results tbody tr").first.is_visible()
    drawings = page.locator(".static svg")
    assert drawings.count() >= 5
    for drawing in drawings.all():
        assert drawing.bounding_box()["height"] > 200
    for control in (".controls", ".sticky", ".chart", "th button"):
        assert not any(each.is_visible() for each in page.locator(control).all())


def test_hostile_texts_stay_texts(hostile: Made, open_page: Open) -> None:
    opened = open_page(hostile)
    page = opened.page
    for name in ("each run", "training", "seconds"):
        page.get_by_role("radio", name=name).check()
    for select in page.locator("select").all():
        for at in range(select.locator("option").count()):
            select.select_option(index=at)
    for button in page.locator("table.results th button").all():
        button.click()
    page.locator("#t0-losses .chart").hover()
    page.wait_for_timeout(300)
    assert opened.said == []
    assert page.evaluate("window.hit") is None
    assert page.locator("main img, main b, main i, main iframe, svg a").count() == 0
    assert page.locator("main a:not([href^='#'])").count() == 0
    shown = page.locator("table.results tbody th").all_inner_texts()
    assert sorted(text.strip() for text in shown) == sorted(
        f"data.val_split={show_controls(t)}" for t in HOSTILE
    )
    # what the charts write is the text, cut to its room; a tag would have been swallowed
    labels = page.locator("#t0-speed .textpoint").all_text_contents()
    wanted = [f"data.val_split={show_controls(text)}"[:31] for text in HOSTILE]
    assert sorted(label.strip().removesuffix("…") for label in labels) == sorted(wanted)


def test_hovering_names_the_arms_as_they_are(hostile: Made, open_page: Open) -> None:
    opened = open_page(hostile)
    opened.page.locator("#t0-losses").scroll_into_view_if_needed()
    box = opened.page.locator("#t0-losses .nsewdrag").bounding_box()
    opened.page.mouse.move(box["x"] + box["width"] * 0.7, box["y"] + box["height"] / 2)
    opened.page.wait_for_timeout(500)
    hover = " ".join(opened.page.locator("#t0-losses .hoverlayer text").all_text_contents())
    assert "<script>" in hover
    assert '<a href="' in hover
    assert opened.page.locator(".hoverlayer a").count() == 0
