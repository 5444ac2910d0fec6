"""A configuration as words, and back without its files."""

from __future__ import annotations

from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given
from hypothesis import strategies as st

from glu_bench import config as room
from glu_bench.config import load_config
from glu_bench.errors import ConfigError
from glu_bench.schema import list_keys
from glu_bench.words import quote, spell_config, split_keys


@pytest.mark.parametrize(
    "words",
    [
        ["variant=relu", "model=pico", "match=width"],
        ["variant=swiglu_oai", "optim=muon", "variant.gate_args.beta=1.5"],
        ["variant=polynorm", "optim=adafactor", "train.compile=false"],
        ["variant=xielu", "match=none", "match.d_ff=100", "train.epochs=0.5"],
        ["data=text", "data.files='it\\'s [a], \\\\b=c.txt'", "parallel=ddp", "parallel.devices=2"],
        ["experiment=smoke", "data=wikitext2", "tokenizer=bpe", "tokenizer.vocab_size=400", "tracker=wandb"],
        ["model.preset=null_1", "data.corpus='1e3'", "tokenizer=file", "tokenizer.path='true'"],
    ],
)
def test_the_words_of_a_configuration_make_it_again_without_any_file(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = load_config(words)
    spelled = spell_config(config)
    monkeypatch.setattr(room, "find_config_root", lambda: tmp_path)
    assert load_config(spelled) == config


def test_every_key_is_spelled_and_only_a_whole_set_needs_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spelled = spell_config(load_config(["variant=relu"]))
    arguments = {f"variant.{place}_args" for place in ("activation", "gate", "value")}
    keys = {word.partition("=")[0] for word in spelled}
    assert keys == list_keys().keys() - arguments - {"numerics_version"}
    monkeypatch.setattr(room, "find_config_root", lambda: tmp_path)
    assert load_config(spelled).variant.name == "relu"
    for at in range(0, len(spelled), 8):
        with pytest.raises(ConfigError):
            load_config(spelled[:at] + spelled[at + 1 :])


def test_a_whole_set_is_checked_as_ever(tmp_path: Path) -> None:
    spelled = spell_config(load_config(["variant=relu", "model=pico"]))
    for word, message in (
        ("optim.lr=-1", "optim.lr"),
        ("variant.gate=silu", "an ungated variant"),
        ("variant.name='${oc.env:HOME}'", "not allowed"),
        ("seed=x", "seed=x"),
    ):
        with pytest.raises(ConfigError, match=message):
            load_config([*spelled, word])
    assert load_config([*spelled, "seed=7"]).seed == 7  # the last word counts


@given(
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1)
    | st.text(st.sampled_from("\\'\"$={}[]( ,:#\n"), min_size=1)
)
def test_a_quoted_text_is_read_as_it_was(text: str) -> None:
    read = OverridesParser.create().parse_override(f"data.path={quote(text)}").value()
    assert read == text


def test_keys_are_split_at_commas_whatever_the_blanks() -> None:
    assert split_keys("variant") == ["variant"]
    assert split_keys(" variant, model.d_model ,match") == ["variant", "model.d_model", "match"]
