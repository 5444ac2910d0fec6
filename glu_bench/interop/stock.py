"""Which variants the stock classes of transformers compute: decided by the formula, not by the name.

LlamaForCausalLM has down(act(gate) * up), ArceeForCausalLM has down(act(up)), with `hidden_act`
out of transformers' own table. A variant that says anything more than that has no stock class.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from glu_bench import schema
from glu_bench.errors import ConfigError
from glu_bench.ffn.formula import list_variants, load_variant

LLAMA, ARCEE = "LlamaForCausalLM", "ArceeForCausalLM"
MODEL_TYPES = {LLAMA: "llama", ARCEE: "arcee"}

# what a variant's file says for people; all other fields are the formula
DESCRIPTIVE = ("name", "family", "formula", "source", "used_by")


@dataclass(frozen=True, kw_only=True)
class Stock:
    """A class, its hidden_act, and what the function must be for it."""

    architecture: str
    hidden_act: str
    function: str
    constants: dict[str, float] = field(default_factory=dict)
    # constants that may have any value and be learned, one a layer: name, tensor of the stock MLP
    learned: dict[str, str] = field(default_factory=dict)
    # tensors that the stock MLP keeps beside them: name, value
    buffers: dict[str, float] = field(default_factory=dict)

    @property
    def gated(self) -> bool:
        """Whether the class has a gate projection."""
        return self.architecture == LLAMA

    @property
    def slot(self) -> str:
        """The field of a variant that names the function."""
        return "gate" if self.gated else "activation"


XIELU = Stock(
    architecture=ARCEE,
    hidden_act="xielu",
    function="xielu",
    constants={"beta": 0.5, "eps": -1e-6},
    learned={"p": "act_fn.alpha_p", "n": "act_fn.alpha_n"},
    buffers={"act_fn.beta": 0.5, "act_fn.eps": -1e-6},
)
STOCKS = (
    Stock(architecture=LLAMA, hidden_act="sigmoid", function="sigmoid"),
    Stock(architecture=LLAMA, hidden_act="linear", function="identity"),
    Stock(architecture=LLAMA, hidden_act="relu", function="relu"),
    Stock(architecture=LLAMA, hidden_act="gelu", function="gelu"),
    Stock(architecture=LLAMA, hidden_act="gelu_pytorch_tanh", function="gelu_tanh"),
    Stock(architecture=LLAMA, hidden_act="silu", function="silu"),
    Stock(architecture=LLAMA, hidden_act="silu", function="swish", constants={"beta": 1.0}),
    Stock(architecture=LLAMA, hidden_act="relu2", function="relu2"),
    Stock(architecture=LLAMA, hidden_act="mish", function="mish"),
    Stock(architecture=LLAMA, hidden_act="quick_gelu", function="swish", constants={"beta": 1.702}),
    Stock(architecture=ARCEE, hidden_act="relu", function="relu"),
    Stock(architecture=ARCEE, hidden_act="gelu", function="gelu"),
    Stock(architecture=ARCEE, hidden_act="silu", function="silu"),
    Stock(architecture=ARCEE, hidden_act="silu", function="swish", constants={"beta": 1.0}),
    Stock(architecture=ARCEE, hidden_act="relu2", function="relu2"),
    Stock(architecture=ARCEE, hidden_act="mish", function="mish"),
    XIELU,
)


def find_stock(spec: schema.Variant) -> Stock:
    """The stock class that computes a variant.

    Raises: ConfigError with the variants that have one.
    """
    found = match_stock(spec)
    if found is None:
        raise ConfigError(
            f"variant {spec.name}: no stock class of transformers computes hidden = {spec.formula}; "
            f"these can be exported: {', '.join(list_exportable())}"
        )
    return found


def match_stock(spec: schema.Variant) -> Stock | None:
    """The stock class that computes a variant, or None."""
    return next((stock for stock in STOCKS if _read_formula(spec, stock) == _write_formula(stock)), None)


def list_exportable() -> list[str]:
    """Names of all built-in variants that a stock class computes, sorted."""
    return [name for name in list_variants() if match_stock(load_variant(name).spec)]


def _write_formula(stock: Stock) -> dict[str, Any]:
    """The fields of the variant that the class computes: its function, all else neutral."""
    neutral: dict[str, Any] = {}
    for entry in dataclasses.fields(schema.Variant):
        if entry.default is not dataclasses.MISSING:
            neutral[entry.name] = entry.default
        elif entry.default_factory is not dataclasses.MISSING:
            neutral[entry.name] = entry.default_factory()
    told: dict[str, Any] = {"gated": stock.gated, stock.slot: stock.function}
    if stock.constants:
        told[f"{stock.slot}_args"] = stock.constants
    return _drop_silent(neutral | told)


def _read_formula(spec: schema.Variant, stock: Stock) -> dict[str, Any]:
    """The fields of a variant without those that the class takes as they come."""
    fields = dataclasses.asdict(spec)
    args = f"{stock.slot}_args"
    if stock.learned and fields.get(args):
        fields[args] = {name: value for name, value in fields[args].items() if name not in stock.learned}
        taken = {f"{stock.slot}.{name}" for name in stock.learned}
        fields["learned"] = [name for name in fields["learned"] if name not in taken]
    return _drop_silent(fields)


def _drop_silent(fields: dict[str, Any]) -> dict[str, Any]:
    """Without what cannot change a number: the words for people, the epsilon of a norm that is not there."""
    silent = {*DESCRIPTIVE, *(("norm_eps",) if fields.get("norm") is None else ())}
    return {name: value for name, value in fields.items() if name not in silent}
