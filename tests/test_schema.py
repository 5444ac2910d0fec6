"""Types, ranges and rules of the configuration's keys."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glu_bench import rules, schema
from glu_bench.config import list_group
from glu_bench.errors import ConfigError
from glu_bench.schema import list_keys
from tests.conftest import TinyConfig


def test_every_key_explains_itself() -> None:
    without = [dotted for dotted, entry in list_keys().items() if not entry.metadata.get("help")]
    assert without == []


def test_no_field_but_the_formulas_has_a_default() -> None:
    with_default = {
        dotted
        for dotted, entry in list_keys().items()
        if entry.default is not dataclasses.MISSING or entry.default_factory is not dataclasses.MISSING
    }
    assert {dotted.split(".")[0] for dotted in with_default} <= {"variant"}


def test_every_name_left_out_of_the_identity_is_a_key_or_a_group() -> None:
    keys = set(list_keys())
    groups = {dotted.split(".")[0] for dotted in keys}
    assert keys | groups >= schema.NOT_IN_IDENTITY


WITHOUT_EFFECT = {
    *("train.device", "train.threads", "parallel", "tracker"),
    *("train.log_every", "train.eval_every", "train.eval_tokens", "train.diagnostics"),
    *("train.checkpoint_every", "train.keep_checkpoints"),
    *("variant.family", "variant.formula", "variant.source", "variant.used_by"),
    *("data.source", "data.files", "data.path", "data.name", "data.revision", "data.column"),
    *("data.rows", "data.streaming", "tokenizer.path", "tokenizer.revision"),
}


def test_no_key_joins_or_leaves_the_identity_by_accident() -> None:
    assert schema.NOT_IN_IDENTITY == WITHOUT_EFFECT


def test_select_identity_leaves_out_exactly_the_named_keys(tiny_config: TinyConfig) -> None:
    config = tiny_config()
    left_out = set(schema.flatten_config(config)) - set(schema.select_identity(config))
    assert left_out == {
        dotted
        for dotted in list_keys()
        if dotted in schema.NOT_IN_IDENTITY or dotted.split(".")[0] in schema.NOT_IN_IDENTITY
    }


def _numbers_outside(metadata: Any) -> list[float]:
    outside = [math.nan, math.inf]
    outside += [metadata["low"] - 1] if metadata["low"] is not None else []
    outside += [metadata["high"] * 2 + 1] if metadata["high"] is not None else []
    outside += [metadata[name] for name in ("above", "below") if metadata[name] is not None]
    return outside


NUMBER_KEYS = [
    dotted
    for dotted, entry in list_keys().items()
    if any(entry.metadata[bound] is not None for bound in ("low", "above", "high", "below"))
]


@pytest.mark.parametrize("dotted", NUMBER_KEYS)
def test_a_number_outside_its_range_is_refused_by_name(dotted: str, tiny_config: TinyConfig) -> None:
    for number in _numbers_outside(list_keys()[dotted].metadata):
        config = tiny_config()
        *group, name = dotted.split(".")
        setattr(getattr(config, group[0]) if group else config, name, number)
        with pytest.raises(ConfigError, match=dotted.replace(".", r"\.")):
            rules.check_config(config)


CHOICE_KEYS = [dotted for dotted, entry in list_keys().items() if entry.metadata["choices"]]


@pytest.mark.parametrize("dotted", CHOICE_KEYS)
def test_a_word_outside_its_choices_is_refused_by_name(dotted: str, tiny_config: TinyConfig) -> None:
    config = tiny_config()
    *group, name = dotted.split(".")
    setattr(getattr(config, group[0]) if group else config, name, "nosuch")
    with pytest.raises(ConfigError, match=f"{dotted}=nosuch"):
        rules.check_config(config)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["model.d_model=33"], "even heads"),
        (["model.n_heads=5"], "heads that work: 1, 2, 3, 4, 6, 8, 12, 24"),
        (["train.batch_size=4", "train.grad_accum=3"], "must divide train.batch_size=4"),
        (["match=none"], r"match\.d_ff"),
        (["match.d_ff=64"], "only match=none"),
        (["data.files=[]"], r"data\.files="),
        (["evaluation.stride=17"], r"at most model\.seq_len=16"),
        (["optim.schedule=wsd", "optim.warmup_share=0.9"], "at most 1"),
        (["optim.momentum=0.9"], "optim=adamw does not read it, leave it null; optim=muon would"),
        (["optim=muon", "optim.momentum=null"], "optim=muon needs a number"),
        (["optim=muon", "optim.beta2_power=0.8"], "optim=adafactor would"),
        (["optim=adafactor", "optim.beta1=0.9"], "optim=adamw and optim=muon would"),
        (["optim=adafactor", "optim.eps=1e-30"], r"the paper's 1e-30 is optim\.eps=1e-15"),
        (["optim=adafactor", "optim.max_update=null"], r"optim\.max_update=null"),
        (["train.device=gpu"], "cuda"),
        (["model.preset=a/b"], "names a folder"),
        (["model.preset=../x"], "names a folder"),
        (["model.preset='a b'"], "names a folder"),
        (["data.corpus=.hidden"], "names a folder"),
    ],
)
def test_keys_that_contradict_one_another_are_refused(
    words: list[str], message: str, tiny_config: TinyConfig
) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        tiny_config(*words)
    assert "\n" not in str(caught.value)


def test_every_optimiser_has_a_file_and_every_nullable_key_of_it_a_reader() -> None:
    assert set(list_group("optim")) == set(list_keys()["optim.name"].metadata["choices"])
    nullable = {entry.name for entry in dataclasses.fields(schema.Optim) if "None" in str(entry.type)}
    assert nullable == set(rules.OPTIM_READERS)


@pytest.mark.parametrize("name", list_group("optim"))
@pytest.mark.parametrize("key", rules.OPTIM_READERS)
def test_a_key_is_given_just_where_the_optimiser_reads_it(
    key: str, name: str, tiny_config: TinyConfig
) -> None:
    optim = tiny_config(f"optim={name}").optim
    reads = name in rules.OPTIM_READERS[key]
    assert (getattr(optim, key) is not None) == reads
    with pytest.raises(ConfigError, match=f"optim.{key}="):
        rules.check_optim(dataclasses.replace(optim, **{key: None if reads else 1.0}))


@pytest.mark.parametrize("n_heads", [1, 2, 3, 4, 6, 8, 12, 24])
def test_every_number_of_heads_that_the_message_names_works(n_heads: int, tiny_config: TinyConfig) -> None:
    assert tiny_config(f"model.n_heads={n_heads}").model.n_heads == n_heads


def test_two_budgets_at_once_are_refused(tiny_config: TinyConfig) -> None:
    config = tiny_config("train.steps=3")
    config.train.tokens = 5
    with pytest.raises(ConfigError, match=r"train\.tokens, train\.steps"):
        rules.check_config(config)


CLAMPS = ("gate_clamp", "gate_out_clamp", "up_clamp")
GATED: dict[str, Any] = {"gated": True, "gate": "silu"}
UNGATED: dict[str, Any] = {"gated": False, "activation": "relu"}
SWISH = {"gate": "swish", "gate_args": {"beta": 1.0}}


def variant_of(**fields: Any) -> schema.Variant:
    return schema.Variant(name="mine", family="own", formula="f", source="me", **fields)


@pytest.mark.parametrize("fields", [GATED, UNGATED, {**GATED, **SWISH, "learned": ["gate.beta"]}])
def test_a_variant_that_agrees_with_itself_passes(fields: dict[str, Any]) -> None:
    rules.check_variant(variant_of(**fields))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({**GATED, "gate": None}, "gated: true needs a gate"),
        ({**GATED, "activation": "relu"}, "has gate and value, not activation"),
        ({**GATED, "gated": False}, "needs an activation"),
        ({**UNGATED, "gated": True}, "needs a gate"),
        ({**UNGATED, "gate": "silu"}, "not gate or value"),
        ({**UNGATED, "value": "silu"}, "not gate or value"),
        ({**GATED, "activation_args": {"beta": 1.0}}, "activation_args without a activation function"),
        ({**UNGATED, "gate_args": {"beta": 1.0}}, "gate_args without a gate function"),
        ({**UNGATED, "value_args": {"beta": 1.0}}, "value_args without a value function"),
        *[
            ({**UNGATED, field: 2.0}, f"{field} is for gated variants")
            for field in (*CLAMPS, "offset", "mult")
        ],
        *[
            ({**GATED, field: value}, rf"variant\.{field}={value}: must be a finite number > 0")
            for field in (*CLAMPS, "norm_eps")
            for value in (0.0, -1.0)
        ],
        *[
            ({**GATED, field: value}, rf"variant\.{field}={value}: must be a finite number")
            for field in (*CLAMPS, "offset", "mult", "norm_eps")
            for value in (math.nan, math.inf)
        ],
        ({**GATED, "gate_args": {"beta": math.nan}}, r"gate_args\.beta=nan: must be a finite number"),
        ({**GATED, "value_args": {"beta": -math.inf}}, r"value_args\.beta=-inf: must be a finite number"),
        ({**UNGATED, "activation_args": {"t": math.inf}}, r"activation_args\.t=inf: must be a finite number"),
        ({**GATED, **SWISH, "learned": ["gate.bet"]}, r"learned gate\.bet: .*did you mean 'gate\.beta'"),
        ({**GATED, **SWISH, "learned_per_unit": ["beta"]}, "what can be learned: gate.beta, mult, offset"),
        (
            {**UNGATED, "activation_args": {"beta": 1.0, "eps": 1e-6}, "learned": ["activation.eps"]},
            r"learned activation\.eps: no such argument; what can be learned: activation\.beta",
        ),
        ({**UNGATED, "learned": ["mult"]}, "learned mult: .*what can be learned: none here"),
        ({**UNGATED, "learned": ["gate.beta"]}, "no such argument"),
        ({**GATED, "learned": ["mult", "mult"]}, "mult is learned twice"),
        ({**GATED, "learned": ["mult"], "learned_per_unit": ["mult"]}, "mult is learned twice"),
        ({**GATED, "norm": "batch"}, r"variant\.norm=batch: one of rms, layer"),
    ],
)
def test_a_variant_that_contradicts_itself_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        rules.check_variant(variant_of(**fields))
    assert caught.value.exit_code == 2
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("field", ["formula", "source"])
def test_a_variant_says_what_it_is_and_where_from(field: str) -> None:
    for text in ("", "  "):
        with pytest.raises(ConfigError, match=f"{field} is empty"):
            rules.check_variant(dataclasses.replace(variant_of(**GATED), **{field: text}))


def test_a_contradiction_is_refused_in_a_configuration_too(tiny_config: TinyConfig) -> None:
    config = tiny_config()
    config.variant.activation = "relu"
    with pytest.raises(ConfigError, match="not activation"):
        rules.check_config(config)


OTHER_VALUES: dict[str, Any] = {
    "activation": "relu",
    "gate": "silu",
    "value": "tanh",
    "gate_clamp": 1.0,
    "gate_out_clamp": 2.0,
    "up_clamp": 3.0,
    "offset": 1.0,
    "mult": 0.0,
    "learned": ["mult"],
    "learned_per_unit": ["mult"],
    "norm": "rms",
    "norm_eps": 1e-6,
}
DEFAULTS = {
    entry.name: [] if entry.default is dataclasses.MISSING else entry.default
    for entry in dataclasses.fields(schema.Variant)
}
ARGS = ("activation_args", "gate_args", "value_args")


def identity_of(**fields: Any) -> dict[str, Any]:
    """A variant's part of an identity."""
    tree = {"variant": dataclasses.asdict(variant_of(gated=True, **fields))}
    return {k: v for k, v in schema.flatten(tree).items() if k not in schema.NOT_IN_IDENTITY}


def test_neutral_values_say_nothing_and_every_other_does() -> None:
    plain = schema.drop_absent(identity_of())
    assert plain == {"variant.name": "mine", "variant.gated": True}
    with_default = {
        entry.name
        for entry in dataclasses.fields(schema.Variant)
        if entry.default is not dataclasses.MISSING or entry.default_factory is not dataclasses.MISSING
    }
    assert with_default == {*OTHER_VALUES, *ARGS, "used_by"}
    for field, value in OTHER_VALUES.items():
        assert schema.drop_absent(identity_of(**{field: value})) == {**plain, f"variant.{field}": value}
    for field in ARGS:
        for value in (0.0, 1.0):  # neutral for an offset or a factor, not for a constant
            found = schema.drop_absent(identity_of(**{field: {"offset": value}}))
            assert found == {**plain, f"variant.{field}.offset": value}


@settings(max_examples=200)
@given(
    *[
        st.fixed_dictionaries(
            {},
            optional={
                **{field: st.sampled_from([value, DEFAULTS[field]]) for field, value in OTHER_VALUES.items()},
                **{field: st.dictionaries(st.just("a"), st.sampled_from([0.0, 1.0])) for field in ARGS},
            },
        )
    ]
    * 2
)
def test_two_identities_differ_short_if_and_only_if_they_differ_in_full(
    one: dict[str, Any], other: dict[str, Any]
) -> None:
    full = identity_of(**one) == identity_of(**other)
    assert (schema.drop_absent(identity_of(**one)) == schema.drop_absent(identity_of(**other))) == full
