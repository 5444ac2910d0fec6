"""From a variant's description to its formula: functions and constants by name."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch

from glu_bench.errors import ConfigError
from glu_bench.ffn.activations import ACTIVATIONS, find_activation, list_constants
from glu_bench.ffn.formula import find_variants, list_variants, load_variant, make_formula
from tests.conftest import REPO
from tests.ffn.oracles import UNGATED


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("swiglu", {"gate": "sillu"}, "no activation named 'sillu'; known: bounded, .*did you mean 'silu'"),
        ("swiglu", {"value": "tahn"}, "no activation named 'tahn'.*did you mean 'tanh'"),
        ("relu", {"activation": "relu3"}, "no activation named 'relu3'.*did you mean 'relu"),
        (
            "swiglu",
            {"gate_args": {"beta": 1.0}},
            r"gate_args\.beta: silu takes no such constant; known: none",
        ),
        ("relu", {"activation_args": {"inplace": 1.0}}, "relu takes no such constant; known: none"),
        (
            "quick_geglu",
            {"gate_args": {"betta": 1.0}},
            r"gate_args\.betta: swish takes no such constant; known: beta; did you mean 'beta'",
        ),
        ("quick_geglu", {"gate_args": {}}, r"swish needs gate_args: \{beta: …\}"),
        (
            "xielu",
            {"activation_args": {"p": 0.0}, "learned": []},
            r"xielu needs activation_args: \{n: …, beta",
        ),
        ("swiglu", {"value": "swish"}, "swish needs value_args"),
        ("swiglu", {"gate": None}, "needs a gate"),
    ],
)
def test_a_description_that_makes_no_formula_is_refused(
    name: str, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        make_formula(dataclasses.replace(load_variant(name).spec, **changes))
    assert "\n" not in str(caught.value)


def test_an_unknown_variant_is_suggested_a_known_one() -> None:
    with pytest.raises(ConfigError, match=r"no variant named 'swigloo'.*did you mean 'swiglu'"):
        load_variant("swigloo")


def test_an_unknown_function_is_refused_before_anything_is_written(call_command: Any, tmp_path: Any) -> None:
    ended = call_command("train", "variant.gate=sillu", "--output-dir", str(tmp_path))
    assert ended.code == 2
    assert "did you mean 'silu'" in ended.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", sorted(ACTIVATIONS))
def test_every_function_of_the_table_lists_its_constants_and_takes_them(name: str) -> None:
    constants = list_constants(name)
    x = torch.linspace(-2, 2, 6, dtype=torch.float64)
    expected = find_activation(name)(x, **dict.fromkeys(constants, 0.5))
    assert expected.shape == x.shape
    assert expected.dtype == x.dtype
    as_tensors = {each: torch.tensor(0.5, dtype=torch.float64) for each in constants}
    torch.testing.assert_close(find_activation(name)(x, **as_tensors), expected)


def test_the_number_of_projections_is_checked() -> None:
    g = torch.ones(3)
    with pytest.raises(TypeError, match="swiglu is gated"):
        load_variant("swiglu").hidden(g)
    with pytest.raises(TypeError, match="relu is not gated"):
        load_variant("relu").hidden(g, g)


def test_every_part_of_the_algebra_acts_in_its_place() -> None:
    """All at once, against the line of the docstring written out."""
    spec = dataclasses.replace(
        load_variant("swiglu").spec,
        gate="swish",
        gate_args={"beta": 1.5},
        gate_clamp=1.0,
        gate_out_clamp=0.5,
        value="leaky_relu",
        value_args={"slope": 0.1},
        up_clamp=0.75,
        offset=0.25,
        mult=-2.0,
        norm="layer",
        norm_eps=0.125,
    )
    g, u = 2 * torch.randn(2, 4, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    found = make_formula(spec).hidden(g, u)
    for gates, ups, row in zip(g.tolist(), u.tolist(), found.tolist(), strict=True):
        hidden = []
        for a, b in zip(gates, ups, strict=True):
            clamped, clipped = min(a, 1.0), max(-0.75, min(b, 0.75))
            gate = min(UNGATED["swish"](1.5 * clamped) / 1.5, 0.5)
            value = clipped if clipped > 0 else 0.1 * clipped
            hidden.append(gate * (value + 0.25) * -2.0)
        mean = sum(hidden) / 32
        variance = sum((h - mean) ** 2 for h in hidden) / 32
        assert row == pytest.approx([(h - mean) / (variance + 0.125) ** 0.5 for h in hidden], rel=1e-9)


def test_words_name_variants_each_once() -> None:
    assert find_variants(["swiglu", "*silu", "relu", "swiglu"]) == ["swiglu", "xsilu", "relu"]
    assert find_variants(["core"]) == ["relu", "gelu", "swish", "glu", "bilinear", "reglu", "geglu", "swiglu"]
    assert find_variants(["all"]) == list_variants()
    assert find_variants(["[gs]elu"]) == ["gelu", "selu"]


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("swigul", "did you mean 'swiglu'"),
        ("zz*", r"zz\*: matches no variant; known: bilinear"),
        ("", "no variant"),
    ],
)
def test_words_that_name_none_are_refused(word: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        find_variants(["relu", word])


def test_own_variants_are_found_too(tmp_path: Path) -> None:
    (tmp_path / "variant").mkdir()
    text = (REPO / "configs/variant/reglu.yaml").read_text(encoding="utf-8")
    (tmp_path / "variant" / "my_reglu.yaml").write_text(text.replace("reglu", "my_reglu"), encoding="utf-8")
    assert find_variants(["my_*"], tmp_path) == ["my_reglu"]
