"""Depth profiles and histograms as a file."""

from __future__ import annotations

import dataclasses
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from glu_bench.errors import ConfigError
from glu_bench.evaluate.inspection import Inspection, inspect_run
from glu_bench.runs.folder import Run
from glu_bench.show.gate_figure import PROFILES, write_profiles
from tests.show.made import HOSTILE


@pytest.fixture(scope="module")
def inspection(finished_run: Run) -> Inspection:
    return inspect_run(finished_run)


def texts(path: Path) -> list[str]:
    return ["".join(node.itertext()) for node in ET.parse(path).iter("{http://www.w3.org/2000/svg}text")]


@pytest.fixture(scope="module")
def drawn(inspection: Inspection, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The drawing of one run."""
    path = tmp_path_factory.mktemp("drawn") / "a.svg"
    write_profiles(path, [inspection])
    return path


def ungate(inspection: Inspection) -> Inspection:
    """The same run as if it had no gate."""
    layers = [
        dataclasses.replace(layer, gradients=dataclasses.replace(layer.gradients, gate_gradient_norm=None))
        for layer in inspection.layers
    ]
    return dataclasses.replace(inspection, layers=layers)


def test_the_same_inspections_give_the_same_svg(inspection: Inspection, drawn: Path, tmp_path: Path) -> None:
    write_profiles(tmp_path / "b.svg", [inspection])
    assert (tmp_path / "b.svg").read_bytes() == drawn.read_bytes()


def test_panels_runs_and_checkpoints_are_named(inspection: Inspection, drawn: Path, tmp_path: Path) -> None:
    assert inspection.run_id in texts(drawn)
    write_profiles(tmp_path / "a.svg", [dataclasses.replace(ungate(inspection), step=4), inspection])
    said = texts(tmp_path / "a.svg")
    assert {title for title, _, _ in PROFILES} <= set(said)
    for step in (4, 6):
        assert f"{inspection.run_id}, step {step}" in said
    assert "none here" not in said  # the other has a gate


def test_what_an_ungated_arm_lacks_is_said(inspection: Inspection, tmp_path: Path) -> None:
    write_profiles(tmp_path / "a.svg", [ungate(inspection)])
    assert texts(tmp_path / "a.svg").count("none here") == 1


@pytest.mark.parametrize(
    ("ending", "magic"), [("png", b"\x89PNG"), pytest.param("pdf", b"%PDF", marks=pytest.mark.slow)]
)
def test_other_formats_are_what_they_say(
    ending: str, magic: bytes, inspection: Inspection, tmp_path: Path
) -> None:
    path = tmp_path / f"a.{ending}"
    write_profiles(path, [inspection])
    assert path.read_bytes().startswith(magic)


def test_hostile_names_are_drawn_as_text(inspection: Inspection, tmp_path: Path) -> None:
    write_profiles(tmp_path / "a.svg", [dataclasses.replace(inspection, run_id=HOSTILE)])
    said = [text.strip() for text in texts(tmp_path / "a.svg")]
    assert HOSTILE.replace("\x1b", r"\x1b").replace("\u202e", r"\x202e") in said


def test_an_unknown_ending_is_refused(inspection: Inspection, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"\.svg, \.png, \.pdf"):
        write_profiles(tmp_path / "a.gif", [inspection])
