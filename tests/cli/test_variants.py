"""glu-bench variants: the list, one in full, drawings and figures."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from glu_bench.config import list_group
from glu_bench.ffn import activations, plugins
from glu_bench.ffn.formula import list_variants, load_variant

Command = Callable[..., Any]


_kept: dict[tuple[str, ...], Any] = {}


@pytest.fixture
def show(call_command: Command) -> Command:
    """What the command prints of these words, asked for once."""

    def ask(*words: str) -> Any:
        if words not in _kept:
            _kept[words] = call_command("variants", *words)
        return _kept[words]

    return ask


def test_a_variant_is_drawn(show: Command) -> None:
    ended = show("swiglu_oai")
    assert ended.code == 0
    assert "gate function, -4 to 4" in ended.out
    assert "-0.164" in ended.out  # the least value of x sigmoid(1.702 x): that of SiLU, -0.278, over 1.702
    assert any(0x2800 < ord(c) <= 0x28FF for c in ended.out)


@pytest.mark.slow
def test_without_utf8_it_is_drawn_in_ascii(run_command: Command) -> None:
    ended = run_command("variants", "gelu", env=[("PYTHONIOENCODING", "ascii"), ("COLUMNS", "20")])
    assert ended.code == 0
    assert "***" in ended.out
    assert ended.out.isascii()


def test_numbers_come_with_json(call_command: Command) -> None:
    value = json.loads(call_command("variants", "relu", "--json").out)
    assert value["curve"]["of"] == "activation"
    assert set(value["curve"]["slopes"]) == {0.0, 1.0}


@pytest.mark.parametrize(
    ("ending", "head"),
    [
        ("svg", b"<?xml"),
        *[pytest.param(*kind, marks=pytest.mark.slow) for kind in (("png", b"\x89PNG"), ("pdf", b"%PDF"))],
    ],
)
def test_a_figure_by_its_ending(call_command: Command, tmp_path: Path, ending: str, head: bytes) -> None:
    pytest.importorskip("matplotlib")
    path = tmp_path / "new" / f"swiglu.{ending}"
    assert call_command("variants", "swiglu", "--figure", str(path)).code == 0
    assert path.read_bytes().startswith(head)
    if ending == "svg":
        before = path.read_bytes()
        call_command("variants", "swiglu", "--figure", str(path))
        assert path.read_bytes() == before


@pytest.mark.parametrize("words", [("swiglu", "--figure", "a.gif"), ("--figure", "a.txt")])
def test_a_figure_that_cannot_be_is_one_line(call_command: Command, words: tuple[str, ...]) -> None:
    ended = call_command("variants", *words)
    assert ended.code == 2
    assert len(ended.err.splitlines()) == 1


def test_the_functions_of_a_variants_file_are_listed(call_command: Command, tmp_path: Path) -> None:
    listed = json.loads(call_command("variants", "--functions", "--json").out)["functions"]
    by_name = {each["name"]: each for each in listed}
    for spec in (load_variant(name).spec for name in list_variants()):
        assert {spec.activation, spec.gate, spec.value} <= {*by_name, None}
    assert by_name["relu"] == {"name": "relu", "meaning": "max(0, x).", "constants": {}, "reduces": False}
    assert by_name["swish"]["constants"] == {"beta": None}
    assert by_name["solu"]["reduces"] is True
    for each in listed:  # nothing is left unsaid, and torch's signatures are no meaning
        assert each["meaning"].endswith(".")
        assert "->" not in each["meaning"]
    out = call_command("variants", "--functions").out
    assert re.search(r"^ swish +beta +x times the logistic function of beta x\.", out, re.MULTILINE)


def test_a_plugins_function_is_listed_with_its_defaults(
    call_command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "mine.py"
    path.write_text(
        "def mine(x, *, a=0.5, b):\n    'a x + b [/x].'\n    return a * x + b\n\n\n"
        "ACTIVATIONS = {'mine': mine}\n"
    )
    monkeypatch.setattr(plugins, "_origins", {})
    monkeypatch.setattr(activations, "ACTIVATIONS", dict(activations.ACTIVATIONS))
    monkeypatch.setattr(plugins, "ACTIVATIONS", activations.ACTIVATIONS)
    out = call_command("variants", "--functions", "--plugin", str(path)).out
    assert re.search(r"^ mine +a=0\.5, b +a x \+ b \[/x\]\.", out, re.MULTILINE)


@pytest.mark.parametrize("words", [("swiglu",), ("--markdown",), ("--figure", "a.svg")])
def test_functions_go_with_nothing_of_a_variant(call_command: Command, words: tuple[str, ...]) -> None:
    ended = call_command("variants", "--functions", *words)
    assert (ended.code, ended.out) == (2, "")
    assert "--functions: goes with" in ended.err


def test_the_list_has_every_family_and_every_file(call_command: Command) -> None:
    out = call_command("variants").out
    for variant in (load_variant(name).spec for name in list_variants()):
        assert f"  {variant.name} " in out
        assert f"\n {variant.family} " in out
    value = json.loads(call_command("variants", "--json").out)
    assert len(value["variants"]) >= 40


@pytest.mark.parametrize(
    "name",
    [
        "swiglu_oai",
        "xielu",
        *[pytest.param(n, marks=pytest.mark.slow) for n in ("solu", "swiglu_mult", "fatreglu")],
    ],
)
def test_one_in_full_says_what_the_file_says(show: Command, name: str) -> None:
    ended = show(name)
    formula = load_variant(name)
    assert formula.spec.formula in ended.out
    assert formula.spec.source in ended.out
    for each in formula.learned:
        assert f"{each.argument}, one a" in ended.out
    for preset in list_group("model"):
        assert f" {preset} " in ended.out


def test_constants_bounds_and_sizes_of_swiglu_oai(show: Command) -> None:
    out = " ".join(show("swiglu_oai").out.split())
    assert "gate swish, beta 1.702" in out
    assert "gate at most 7" in out
    assert "up between -7 and 7" in out
    assert "offset 1 added" in out
    assert "nano 192x4 512 1,179,648 +0.000% 1,869,888 13.3M" in out
    value = json.loads(show("swiglu_oai", "--json").out)
    # 3 matrices of 192 x 512 in 4 layers, attention's 4 of 192 x 192, the head's 257 x 192, scores and mixing
    matrices = 4 * (3 * 192 * 512 + 4 * 192 * 192) + 257 * 192
    (nano,) = [size for size in value["sizes"] if size["preset"] == "nano"]
    assert nano["flops_per_token"] == 3 * (2 * matrices + 4 * 4 * 256 * 192)
    assert value["properties"]["upper_bound"] == pytest.approx(7, abs=1e-3)


def test_the_family_is_drawn_each_function_once(call_command: Command, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    path = tmp_path / "gates.svg"
    assert call_command("variants", "--figure", str(path)).code == 0
    drawn = path.read_text(encoding="utf-8")
    for name in list_variants():
        assert re.search(rf"\b{name}\b", drawn), name
    assert "quick_gelu, quick_geglu" in drawn  # one function, one panel
    assert "relu, reglu, drelu<" in drawn  # fatreglu has a step of its own
