"""Laws in words, tables and drawings."""

from __future__ import annotations

import dataclasses
import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from glu_bench.errors import ConfigError
from glu_bench.show.scaling import describe_speedup, render_laws, render_points, write_scaling_figure
from glu_bench.stats.fit import collect_points, fit_power_law
from glu_bench.stats.speedup import Speedup
from glu_bench.study.scaling import ArmLaw, Measured, Predicted, Scaling

HOSTILE = "[/x]\x1b[31m$\\frac{<script>"


def shown(table: Any) -> str:
    file = io.StringIO()
    Console(file=file, width=250).print(table)
    return file.getvalue()


def make_scaling(arm: str = "gelu") -> Scaling:
    law = fit_power_law(collect_points((c, 2 + 5 * c**-0.3) for c in (1e6, 3e6, 1e7, 3e7)))
    points = [
        Measured(
            c=point.c,
            n_finished=1,
            n_planned=2,
            n_diverged=1,
            mean_loss_nats=point.mean + 0.001,
            sd_loss_nats=None,
        )
        for point in law.points
    ]
    off = dataclasses.replace(points[-1], c=9e7, fitted=False)
    foretold = Predicted(c=1e9, loss_nats=2.00998, ci95=(2.0, 2.02), beyond=True)
    curves = [
        ArmLaw(arm=arm, points=[*points, off], law=law, why="", predictions=[foretold], speedup=None),
        ArmLaw(arm="relu", points=points[:2], law=None, why="2 budgets", predictions=[], speedup=None),
    ]
    return Scaling(
        setting="pico, text",
        over="tokens",
        split="test",
        baseline=arm,
        curves=curves,
        left_out=[],
        warnings=[],
    )


def test_points_show_how_far_off_the_law_they_lie() -> None:
    out = shown(render_points(make_scaling()))
    rows = [line.split() for line in out.splitlines() if line.strip().startswith("gelu")]
    assert rows[0] == ["gelu", "1M", "1/2", "(1", "diverged)", "2.0802", "-", "2.0792", "+0.0010"]
    assert rows[-1][-2:] == ["-", "-"]  # not fitted, so not held against the law


def test_laws_show_their_intervals_and_a_dash_where_there_is_none() -> None:
    out = shown(render_laws(make_scaling()))
    assert "2.0000 [2.0000, 2.0000]" in out
    assert "0.300 [0.300, 0.300]" in out
    assert "at 1G [95 %]" in out
    assert "2.0100 [2.0000, 2.0200]" in out
    (relu,) = [line.split() for line in out.splitlines() if line.strip().startswith("relu")]
    assert relu == ["relu", "2", *"-----"]


def test_an_open_interval_is_shown_open() -> None:
    scaling = make_scaling()
    law = scaling.curves[0].law
    assert law is not None
    curve = dataclasses.replace(
        scaling.curves[0], law=dataclasses.replace(law, alpha_ci95=(None, 0.5)), predictions=[]
    )
    assert "0.300 […, 0.500]" in shown(render_laws(dataclasses.replace(scaling, curves=[curve])))


def make_speedup(**given: Any) -> Speedup:
    return Speedup(**{**dict.fromkeys(("compute", "compute_ci95", "wall", "wall_ci95")), **given})


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (
            {"compute": 1.371, "compute_ci95": (1.21, 1.553), "wall": 1.1, "wall_ci95": (0.97, None)},
            "1.37x in compute (1.21 to 1.55), 1.1x in wall clock (at least 0.97)",
        ),
        ({"compute": 1.371, "note": "one seed: no interval"}, "1.37x in compute; one seed: no interval"),
        ({"compute_bounds": (2.0, None)}, "at least 2 x in compute"),
        ({"compute_bounds": (None, 0.5)}, "at most 0.5 x in compute"),
        ({"compute_bounds": (1.0, 4.0)}, "1 to 4 x in compute"),
        ({"note": "too noisy"}, "not known; too noisy"),
    ],
)
def test_a_speedup_in_words(given: dict[str, Any], words: str) -> None:
    assert describe_speedup(make_speedup(**given)) == words


def test_hostile_names_stay_text(tmp_path: Path) -> None:
    scaling = make_scaling(HOSTILE)
    for table in (render_points(scaling), render_laws(scaling)):
        out = shown(table)
        assert "[/x]" in out
        assert "\x1b" not in out
    path = tmp_path / "a.svg"
    write_scaling_figure(path, [dataclasses.replace(scaling, setting=HOSTILE)])
    assert "<script>" not in path.read_text(encoding="utf-8")


@pytest.mark.parametrize(("ending", "head"), [("svg", b"<?xml"), ("png", b"\x89PNG"), ("pdf", b"%PDF")])
def test_a_figure_by_its_ending(tmp_path: Path, ending: str, head: bytes) -> None:
    path = tmp_path / "new" / f"scaling.{ending}"
    write_scaling_figure(path, [make_scaling(), make_scaling("swish")])
    content = path.read_bytes()
    assert content.startswith(head)
    if ending == "svg":
        write_scaling_figure(path, [make_scaling(), make_scaling("swish")])
        assert path.read_bytes() == content
        assert b"swish" in content
        assert b"training tokens" in content


def test_another_ending_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="the file's ending"):
        write_scaling_figure(tmp_path / "a.gif", [make_scaling()])
