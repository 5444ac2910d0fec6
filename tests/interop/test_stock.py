"""Which variants a stock class computes follows from their formulas, whatever they are called."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

import pytest

from glu_bench import schema
from glu_bench.errors import ConfigError
from glu_bench.ffn.formula import list_variants, load_variant
from glu_bench.interop.stock import ARCEE, LLAMA, find_stock, list_exportable, match_stock

# the table of the design: ours, class, hidden_act
TABLE = {
    "glu": (LLAMA, "sigmoid"),
    "bilinear": (LLAMA, "linear"),
    "reglu": (LLAMA, "relu"),
    "geglu": (LLAMA, "gelu"),
    "geglu_tanh": (LLAMA, "gelu_pytorch_tanh"),
    "swiglu": (LLAMA, "silu"),
    "reglu2": (LLAMA, "relu2"),
    "miglu": (LLAMA, "mish"),
    "quick_geglu": (LLAMA, "quick_gelu"),
    "relu": (ARCEE, "relu"),
    "gelu": (ARCEE, "gelu"),
    "swish": (ARCEE, "silu"),
    "relu2": (ARCEE, "relu2"),
    "mish": (ARCEE, "mish"),
    "xielu": (ARCEE, "xielu"),
}


def test_every_variant_has_the_class_of_the_table_or_none() -> None:
    found = {name: match_stock(load_variant(name).spec) for name in list_variants()}
    classes = {name: (stock.architecture, stock.hidden_act) for name, stock in found.items() if stock}
    assert classes == {name: TABLE[name] for name in found if name in TABLE}
    assert {"relu", "gelu", "swish", "glu", "bilinear", "reglu", "geglu", "swiglu"} <= set(classes)
    assert list_exportable() == sorted(classes)


@dataclass(kw_only=True)
class Wide(schema.Variant):
    """A variant with all fields of the algebra, those that the schema does not have yet included."""

    gate_args: dict[str, float] = field(default_factory=dict)
    value_args: dict[str, float] = field(default_factory=dict)
    activation_args: dict[str, float] = field(default_factory=dict)
    gate_clamp: float | None = None
    gate_out_clamp: float | None = None
    up_clamp: float | None = None
    offset: float = 0.0
    mult: float = 1.0
    learned: list[str] = field(default_factory=list)
    learned_per_unit: list[str] = field(default_factory=list)
    norm: str | None = None
    norm_eps: float = 1e-5


@pytest.fixture(autouse=True)
def wide_schema(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The schema with all fields, for tests that make variants out of them."""
    if "fields" in request.fixturenames:
        monkeypatch.setattr(schema, "Variant", Wide)


def make(**fields: Any) -> Wide:
    return Wide(name="own", family="mine", formula="f", source="me", **fields)


SWIGLU: dict[str, Any] = {"gated": True, "gate": "silu"}
XIELU: dict[str, Any] = {
    "gated": False,
    "activation": "xielu",
    "activation_args": {"p": 0.2, "n": -1.0, "beta": 0.5, "eps": -1e-6},
    "learned": ["activation.p", "activation.n"],
}


@pytest.mark.parametrize(
    ("fields", "hidden_act"),
    [
        (SWIGLU, "silu"),
        ({**SWIGLU, "norm_eps": 1e-3}, "silu"),  # of a norm that is not there
        ({"gated": True, "gate": "swish", "gate_args": {"beta": 1}}, "silu"),
        ({"gated": True, "gate": "swish", "gate_args": {"beta": 1.702}}, "quick_gelu"),
        ({"gated": False, "activation": "swish", "activation_args": {"beta": 1.0}}, "silu"),
        (XIELU, "xielu"),
        ({**XIELU, "learned": []}, "xielu"),
    ],
)
def test_a_variant_of_any_name_is_known_by_its_formula(fields: dict[str, Any], hidden_act: str) -> None:
    stock = match_stock(make(**fields))
    assert stock is not None
    assert (stock.hidden_act, stock.gated) == (hidden_act, fields["gated"])


@pytest.mark.parametrize(
    "fields",
    [
        {**SWIGLU, "value": "sigmoid"},
        {**SWIGLU, "offset": 1.0},
        {**SWIGLU, "mult": 2.0},
        {**SWIGLU, "learned_per_unit": ["mult"]},
        {**SWIGLU, "gate_clamp": 10.0},
        {**SWIGLU, "gate_out_clamp": 7.0},
        {**SWIGLU, "up_clamp": 10.0},
        {**SWIGLU, "norm": "rms"},
        {"gated": True, "gate": "swish", "gate_args": {"beta": 1.7}},
        {"gated": True, "gate": "swish", "gate_args": {"beta": 1.0}, "learned": ["gate.beta"]},
        {"gated": True, "gate": "tanh"},
        {"gated": False, "activation": "sigmoid"},
        {**XIELU, "activation_args": {"p": 0.2, "n": -1.0, "beta": 0.6, "eps": -1e-6}},
        {**XIELU, "learned": ["activation.beta"]},
        {**XIELU, "learned": [], "learned_per_unit": ["activation.p"]},
    ],
)
def test_a_variant_that_says_more_has_no_class(fields: dict[str, Any]) -> None:
    assert match_stock(make(**fields)) is None


def test_a_refusal_names_the_variant_its_formula_and_those_that_can() -> None:
    spec = dataclasses.replace(
        load_variant("swiglu").spec, name="tanhglu", gate="tanh", formula="tanh(g) * u"
    )
    with pytest.raises(ConfigError, match=r"tanhglu: .*tanh\(g\) \* u.*bilinear, .*swish") as caught:
        find_stock(spec)
    assert "\n" not in str(caught.value)
