"""What the tests compose at the cost of a copy is what Hydra composes."""

from __future__ import annotations

import pytest

from glu_bench.config import load_config
from glu_bench.errors import ConfigError
from tests.composed import compose


@pytest.mark.parametrize(
    "words",
    [
        ("variant=xielu", "seed=3"),
        ("optim=muon", "optim.lr=1", "train.compile=False", "train.precision=fp32"),
        ("train.tokens=4096", "evaluation.stride=8"),
        ("train=quick", "train.epochs=2", "variant=relu", "variant.gated=false"),
        ("model=micro", "model.dropout=0.1", "match=width", "data=text", "data.files=[a,b c]"),
        ("experiment=smoke", "train.steps=2"),
        ("seed=1", "seed=2"),
        ("train.diagnostics=false",),
        ("data.val_split=7", "variant=swish_beta", "init=fan_in", "train.log_every=2"),
    ],
    ids=" ".join,
)
def test_the_same_configuration(words: tuple[str, ...]) -> None:
    expected = load_config(words)
    assert repr(compose(*words)) == repr(expected)
    compose(*words).variant.name = "changed"
    assert repr(compose(*words)) == repr(expected)  # each caller has a copy


@pytest.mark.parametrize(
    "word", ["variant=swigloo", "optim.lr=-1", "seed=1.5", "optim.lrr=1", "train.steps=a"]
)
def test_the_same_refusal(word: str) -> None:
    with pytest.raises(ConfigError) as expected:
        load_config([word])
    with pytest.raises(ConfigError) as found:
        compose(word)
    assert str(found.value) == str(expected.value)
