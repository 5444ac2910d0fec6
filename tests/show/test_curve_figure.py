"""Learning curves as a file."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from glu_bench.errors import ConfigError, DataError
from glu_bench.show.curve_figure import PALETTE, _choose_looks, write_curves
from glu_bench.study.curves import ArmCurve, Evaluated
from tests.show.made import HOSTILE, make_comparison


def make_curve(arm: str, above: float, n_points: int = 5, n_seeds: int = 3) -> ArmCurve:
    points = []
    for at in range(1, n_points + 1):
        mean = 2 / at + above
        points.append(
            Evaluated(
                step=at,
                tokens=1000 * at,
                flops=1e9 * at,
                elapsed_s=2.0 * at,
                mean_loss_nats=mean,
                low_nats=mean - 0.1,
                high_nats=mean + 0.1,
                difference_nats=above if arm != "gelu" else None,
                difference_ci95=(above - 1, above + 1) if arm != "gelu" and n_seeds > 1 else None,
            )
        )
    return ArmCurve(arm=arm, n_seeds=n_seeds, points=tuple(points))


CURVES = [make_curve("geglu", -0.1), make_curve("gelu", 0.0), make_curve("relu", 0.2)]


def test_the_same_curves_give_the_same_svg(tmp_path: Path) -> None:
    for name in ("a.svg", "b.svg"):
        write_curves(tmp_path / name, make_comparison(), CURVES)
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()


def texts(path: Path) -> list[str]:
    return ["".join(node.itertext()) for node in ET.parse(path).iter("{http://www.w3.org/2000/svg}text")]


def test_the_panels_and_arms_are_named(tmp_path: Path) -> None:
    write_curves(tmp_path / "a.svg", make_comparison(), CURVES)
    said = texts(tmp_path / "a.svg")
    for part in ("training tokens", "training FLOPs", "seconds of training", "minus gelu, nats/token"):
        assert part in said
    assert [text for text in said if text in ("geglu", "gelu (baseline)", "relu")] == [
        *("geglu", "gelu (baseline)", "relu")
    ]
    assert said.count("validation loss, nats/token") == 3


@pytest.mark.parametrize(("ending", "magic"), [("png", b"\x89PNG"), ("pdf", b"%PDF"), ("svg", b"<?xml")])
def test_the_ending_is_the_format(ending: str, magic: bytes, tmp_path: Path) -> None:
    path = tmp_path / "new" / f"a.{ending}"
    write_curves(path, make_comparison(), CURVES)
    assert path.read_bytes().startswith(magic)


def test_fifty_two_arms_show_the_best_and_count_the_rest(tmp_path: Path) -> None:
    curves = [make_curve(f"arm{at}", at / 100) for at in range(40)]
    curves += [make_curve("gelu", 0.4), *(make_curve(f"arm{at}", at / 100) for at in range(41, 52))]
    write_curves(tmp_path / "a.svg", make_comparison(), curves)
    said = texts(tmp_path / "a.svg")
    n_shown = len(PALETTE)
    assert [text for text in said if text.startswith("arm")] == [f"arm{at}" for at in range(n_shown)]
    assert "gelu (baseline)" in said
    assert f"{51 - n_shown} other arms" in said
    looks = _choose_looks(curves, "gelu")
    shown = [look for look in looks.values() if look.in_front]
    assert len({look.colour for look in shown}) == len({look.label for look in shown}) == n_shown + 1


@pytest.mark.parametrize(
    "curves", [[CURVES[0]], [make_curve("gelu", 0.0, 1, 1), make_curve("relu", 0.0, 1, 1)]]
)
def test_little_data_is_drawn(curves: list[ArmCurve], tmp_path: Path) -> None:
    write_curves(tmp_path / "a.svg", make_comparison(), curves)
    said = texts(tmp_path / "a.svg")
    for curve in curves:
        assert f"{curve.arm} (baseline)" in said if curve.arm == "gelu" else curve.arm in said


def test_names_from_outside_are_text(tmp_path: Path) -> None:
    names = [HOSTILE, "_hidden", "$\\frac{$", "漢字"]
    curves = [make_curve(name, 0.1) for name in names] + [make_curve("gelu", 0.0)]
    write_curves(tmp_path / "a.svg", make_comparison(setting=HOSTILE), curves)
    said = [text.strip() for text in texts(tmp_path / "a.svg")]
    shown = HOSTILE.replace("\x1b", r"\x1b").replace("\u202e", r"\x202e")
    for name in (shown, *names[1:]):
        assert name in said
    assert "\x1b" not in (tmp_path / "a.svg").read_text(encoding="utf-8")


def test_no_curve_or_an_unknown_ending_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no run"):
        write_curves(tmp_path / "a.svg", make_comparison(), [])
    with pytest.raises(ConfigError, match=r"\.svg, \.png, \.pdf"):
        write_curves(tmp_path / "a.gif", make_comparison(), CURVES)
