"""One HTML file that opens offline: the verdict, tables, curves, and how to get each number again.

Whatever comes from a run is text: the template escapes it, the page's data is JSON with `<`
spelt out, and a content security policy lets nothing run but the two scripts written here.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from glu_bench.errors import ConfigError, show_controls
from glu_bench.files import OUTPUTS, make_folder, write_text
from glu_bench.runs.folder import Run
from glu_bench.runs.publish import is_published
from glu_bench.show.report import cells, charts
from glu_bench.show.report.data import label_choice, make_page_data
from glu_bench.show.report.forest import WIDTH, make_forest
from glu_bench.show.report.marks import Mark, assign_marks
from glu_bench.study.background import Background, collect_backgrounds
from glu_bench.study.compare import Comparison
from glu_bench.study.plan import PlannedRun
from glu_bench.study.traces import HELD_OUT
from glu_bench.words import split_keys

HERE = Path(__file__).parent
GENERATOR = '<meta name="generator" content="glu-bench report">'
LIMIT_BYTES = 6_000_000
# points of a curve, tables drawn without JavaScript: the first that fits the limit
THRIFT = ((200, 6), (60, 3), (20, 0), (8, 0))
MAX_CURVE_POINTS = 24_000  # of a page


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What the person asked for, to be said again on the page."""

    words: Sequence[str] = ()
    output_dir: Path = OUTPUTS
    baseline: str | None = None
    arms: str = "variant"
    split: str = "test"
    allow_mixed: bool = False

    def command(self, verb: str) -> str:
        """The shell command that a verb makes of it."""
        given = ["glu-bench", verb, *self.words]
        given += ["--baseline", self.baseline] if self.baseline else []
        given += ["--arms", self.arms] if self.arms != "variant" else []
        given += ["--split", self.split] if self.split != "test" else []
        given += ["--allow-mixed"] if self.allow_mixed else []
        given += ["--output-dir", str(self.output_dir)] if self.output_dir != OUTPUTS else []
        return shlex.join(given)


def render_report(tables: Sequence[Comparison], found: Sequence[Run | PlannedRun], asked: Asked) -> str:
    """The page of these comparisons, which `compare_runs` made of the runs found.

    Raises: ConfigError if even its shortest form is above LIMIT_BYTES.
    """
    arm_keys = split_keys(asked.arms)
    for n_points, n_drawn in THRIFT:
        n_points = max(8, min(n_points, MAX_CURVE_POINTS // max(1, 2 * len(found))))
        backgrounds = collect_backgrounds(
            tables, found, arm_keys=arm_keys, allow_mixed=asked.allow_mixed, n_points=n_points
        )
        page = _render(tables, backgrounds, asked, n_points, n_drawn)
        n_bytes = len(page.encode())
        if n_bytes < LIMIT_BYTES:
            return page
    raise ConfigError(
        f"{len(found)} runs in {len(tables)} tables make a page of {n_bytes / 1e6:.1f} MB, "
        f"above {LIMIT_BYTES / 1e6:.0f}; name one sweep or fewer runs"
    )


def check_place(path: Path) -> None:
    """See that a report may be written there.

    Raises: ConfigError if something else than a report stands there or the ending is not HTML's.
    """
    if path.suffix.lower() not in (".html", ".htm"):
        raise ConfigError(f"-o {path}: a page of HTML; the name ends in .html")
    if path.is_dir():
        raise ConfigError(f"-o {path}: is a folder; name a file in it, such as {path / 'report.html'}")
    if path.exists():
        with path.open("rb") as file:
            is_ours = GENERATOR.encode() in file.read(4096)
        if not is_ours:
            raise ConfigError(f"-o {path}: is there and is not a report of glu-bench; choose another name")


def write_report(path: Path, page: str) -> int:
    """Write the page; returns its size in bytes.

    Raises: ConfigError as `check_place`, or if the folder takes no files.
    """
    check_place(path)
    make_folder(path.parent)
    write_text(path, page)
    return len(page.encode())


def _render(
    tables: Sequence[Comparison],
    backgrounds: Sequence[Background],
    asked: Asked,
    n_points: int,
    n_drawn: int,
) -> str:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup
    from plotly.offline import get_plotlyjs

    def visible(value: Any) -> Any:
        return value if isinstance(value, Markup) else show_controls(str(value))

    marks = assign_marks(tables)
    data = make_page_data(tables, backgrounds, marks)
    scripts = [_clean(get_plotlyjs()), _clean((HERE / "page.js").read_text(encoding="utf-8"))]
    environment = Environment(
        loader=FileSystemLoader(HERE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=visible,
    )
    sections = [
        _make_section(at, table, background, marks, data["tables"][at], at < n_drawn)
        for at, (table, background) in enumerate(zip(tables, backgrounds, strict=True))
    ]
    return environment.get_template("page.html.j2").render(
        generator=Markup(GENERATOR),
        policy=_write_policy(scripts),
        style=Markup((HERE / "style.css").read_text(encoding="utf-8")),
        scripts=[Markup(script) for script in scripts],
        data=Markup(_dump(data)),
        sections=sections,
        left_out=tables[0].left_out,
        asked=asked,
        n_points=n_points,
        n_drawn=n_drawn,
        forest_width=WIDTH,
    )


def _make_section(
    at: int,
    table: Comparison,
    background: Background,
    marks: dict[str, Mark],
    data: dict[str, Any],
    drawn: bool,
) -> dict[str, Any]:
    """What the template says of one table."""
    from markupsafe import Markup

    prefix = f"t{at}-"

    def draw(chart: Callable[..., str | None], *args: Any) -> Markup | None:
        svg = chart(*args) if drawn else None
        return Markup(svg) if svg else None

    differing, shared = cells.list_settings(table, background)
    tunings = [
        {
            "sweep_id": tuning.sweep_id,
            "rows": cells.list_choices(
                tuning.choices,
                [
                    label_choice(choice.arm, [each.arm for each in tuning.choices])
                    for choice in tuning.choices
                ],
            ),
        }
        for tuning in background.tunings
    ]
    machine = cells.list_facts(background, "machine")
    example = next((member.folder for member in background.members if member.result is not None), None)
    hardware = ("cpu", "gpu", "n_threads", "n_cores", "device", "cpu_capability")
    return {
        "id": f"t{at}",
        "table": table,
        "verdict": re.split(r"(?:(?<=\.)|(?<=\.\))) (?=[A-Z])", table.verdict, maxsplit=1),
        "arms": [(arm, marks[arm.arm], cells.tone(table, arm)) for arm in table.arms],
        "forest": make_forest(table),
        "result_columns": cells.list_result_columns(table),
        "results": {arm.arm: cells.list_result_cells(table, arm) for arm in table.arms},
        "cost_columns": cells.list_cost_columns(table),
        "costs": {arm.arm: cells.list_cost_cells(table, arm) for arm in table.arms},
        "pair_columns": cells.PAIR_COLUMNS,
        "pairs": cells.list_pair_rows(table),
        "n_pairs": len(table.pairs),
        "run_columns": cells.RUN_COLUMNS,
        "runs": cells.list_run_rows(background),
        "n_runs": len(background.members),
        "differing": differing,
        "shared": shared,
        "machine": machine,
        "is_mixed_hardware": any(name in hardware and "runs)" in value for name, value in machine),
        "text": cells.list_facts(background, "text"),
        "speedup_notes": [
            f"{arm.arm}: {arm.speedup.note}" for arm in table.arms if arm.speedup and arm.speedup.note
        ],
        "tunings": tunings,
        "remarks": background.remarks,
        "held_out": charts.choose_quantity(background) == HELD_OUT,
        "has_curves": bool(data["runs"]),
        "diagnostics": [each["name"] for each in data["diagnostics"]],
        "profiles": [each["name"] for each in data["profiles"]],
        "tuning_charts": [
            (chart, draw(charts.draw_tuning, chart, f"{prefix}{number}"))
            for number, chart in enumerate(data["tuning"])
        ],
        "losses_svg": draw(charts.draw_losses, table, background, marks, prefix),
        "differences_svg": draw(charts.draw_differences, table, background, marks, prefix),
        "costs_svg": draw(charts.draw_costs, table, marks, prefix),
        "profile_svgs": [Markup(svg) for svg in charts.draw_profiles(table, background, marks, prefix)]
        if drawn
        else [],
        "example": None if example is None else shlex.quote(str(example)),
        "has_checkpoint": example is not None and not is_published(example),
    }


def _dump(data: dict[str, Any]) -> str:
    """Strict JSON that no tag, comment or line separator can end."""
    text = json.dumps(data, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _clean(script: str) -> str:
    """A script as HTML will hand it to the browser: what is hashed is what runs."""
    if "</script" in script.lower() or "<!--" in script:
        raise ValueError("a script that would end its own element")
    return script.replace("\r\n", "\n").replace("\r", "\n")


def _write_policy(scripts: Sequence[str]) -> str:
    """Nothing from anywhere, the given scripts alone; plotly sets styles, and draws images to save."""
    digests = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts]
    allowed = " ".join(f"'sha256-{digest}'" for digest in digests)
    return (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data: blob:; "
        "base-uri 'none'; form-action 'none'"
    )
