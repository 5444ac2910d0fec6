"""The command that makes a run: short, and the same configuration when it is read again."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from glu_bench.config import load_config
from glu_bench.runs.command import find_words, spell_train
from tests.conftest import REPO, TinyConfig


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("", "variant=swiglu model=nano data=stdlib seed=0"),
        ("train.tokens=524_288", "variant=swiglu model=nano data=stdlib train.tokens=524288 seed=0"),
        (
            "variant=relu match=width optim=muon train.batch_size=4",
            "variant=relu model=nano match=width data=stdlib optim=muon train.batch_size=4 seed=0",
        ),
        (
            "match=none match.d_ff=96 data=text 'data.files=[a b.txt,c.txt]'",
            """variant=swiglu model=nano match=none match.d_ff=96 data=text seed=0
            "data.files=['a b.txt','c.txt']" """,
        ),
    ],
)
def test_only_what_is_not_the_default_is_said(words: str, expected: str) -> None:
    config = load_config(shlex.split(words))
    found = find_words(config)
    assert sorted(found) == sorted(shlex.split(expected))
    assert load_config(found) == config


@pytest.mark.parametrize(
    "path", sorted((REPO / "configs" / "variant").glob("*.yaml"))[::9], ids=lambda p: p.stem
)
def test_what_the_words_make_is_the_same_configuration(tiny_config: TinyConfig, path: Path) -> None:
    config = tiny_config(f"variant={path.stem}", "tokenizer=bpe", "tokenizer.vocab_size=300", "tracker=wandb")
    assert load_config(find_words(config)) == config


def test_a_variant_of_ones_own_is_spelled_out(tiny_config: TinyConfig) -> None:
    config = tiny_config("variant=swiglu", "variant.name=mine", "variant.gate_clamp=3")
    words = find_words(config)
    assert load_config(words) == config
    assert "variant.gate_clamp=3.0" in words


def test_what_the_run_began_with_is_asked_for_again(tiny_config: TinyConfig) -> None:
    facts = {"n_threads": 7, "plugins": [{"name": "my snake.py"}], "deterministic": True}
    command = spell_train(tiny_config(), facts, Path("some where"), "--restart")
    words = shlex.split(command)
    assert words[:2] == ["glu-bench", "train"]
    assert "train.threads=7" in words
    assert words[words.index("--plugin") + 1] == "my snake.py"
    assert words[-3:] == ["--restart", "--output-dir", "some where"]
    assert "--deterministic" not in words  # it changes nothing on a CPU
    config = tiny_config()
    config.train.device = "cuda:0"
    assert "--deterministic" in spell_train(config, facts, Path("outputs"))
    unmatched = spell_train(tiny_config("match.multiple_of=50"), {}, Path("outputs"))
    assert "--allow-unmatched" in unmatched
    assert "--output-dir" not in unmatched
