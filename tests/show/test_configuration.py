"""The configuration with the meaning of each key: the same YAML, and nothing left unsaid."""

from __future__ import annotations

import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from glu_bench.config import load_config
from glu_bench.config_file import render_config
from glu_bench.schema import list_keys
from glu_bench.show.configuration import write_meanings

BREAKS = "a:# '\"\\-\n\u2028\x85\t|>é"


@settings(max_examples=60, deadline=None)
@given(
    formula=st.text(alphabet=BREAKS, max_size=150),
    path=st.text(max_size=120).filter(lambda text: "$" not in text),
    files=st.lists(st.text(alphabet=BREAKS, max_size=20), max_size=2),
)
@example(formula="lr: 1 # no\n  lr: 2", path="word " * 40, files=["  x", "- y"])
@example(formula="a\n\nb", path="it's \n" * 9, files=[])
def test_the_comments_change_nothing_whatever_the_values(formula: str, path: str, files: list[str]) -> None:
    config = load_config(["variant=polynorm"])
    config.variant.formula, config.data.path, config.data.files = formula, path, files
    with_meanings = write_meanings(config)
    assert yaml.safe_load(with_meanings) == yaml.safe_load(render_config(config))
    kept = [line for line in with_meanings.split("\n") if not line.startswith("  # ")]
    plain = render_config(config).split("\n")
    assert all(line.startswith(before) for line, before in zip(kept, plain, strict=True))


def test_every_key_comes_with_its_meaning_and_its_choices() -> None:
    text = write_meanings(load_config(["variant=swiglu"]))
    for key, entry in list_keys().items():
        assert f"# {entry.metadata['help']}" in text, key
    assert "  name: adamw  # optimiser; one of adamw, muon, adafactor\n" in text
    assert "  learned: []  # arguments that are trained" in text
    assert "  mode: params  # params: FFN" in text
    assert "expansion*D for all; none: d_ff\n" in text  # all choices are named there
