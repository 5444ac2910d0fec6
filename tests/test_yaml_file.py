"""A YAML file as plain values: those that OmegaConf reads, and nothing that a stranger can abuse."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from glu_bench.config import find_config_root
from glu_bench.errors import ConfigError
from glu_bench.yaml_file import MAX_DEPTH, read_yaml

FILES = sorted(find_config_root().rglob("*.yaml"))
ODD = """
a: [1, 2.5, 1e-3, 1E+3, 1.5e3, 1_000, 0x1f, 010, 0b11, 1:30, .5, 5., .inf, -.INF, .nan, 1e, e3, +1, -0]
b: {x: yes, y: off, z: True, n: null, t: ~, empty: , date: 2001-01-01, time: 2001-01-01 10:00:00}
c: 'single ''quoted'''
d: "double \\u00e9 \\x41 \\n"
e: |
  literal
  text
f: >-
  folded
  text
g: plain text
  that goes on
h: "1"
i: '1e-3'
"0x1": a word
"""


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "file.yaml"
    path.write_text(text, encoding="utf-8", newline="")
    return path


def refused(tmp_path: Path, text: str) -> str:
    path = written(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        read_yaml(path)
    assert "\n" not in str(caught.value)
    return str(caught.value).removeprefix(str(path))


@pytest.fixture(params=["libyaml", "without"])
def parser(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """PyYAML as it is, and one that was built without libyaml."""
    if request.param == "without":
        monkeypatch.delattr(yaml, "CSafeLoader")


@pytest.mark.usefixtures("parser")
@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_every_file_of_ours_is_read_as_omegaconf_reads_it(path: Path) -> None:
    assert repr(read_yaml(path)) == repr(OmegaConf.to_container(OmegaConf.load(path), resolve=False))


@pytest.mark.usefixtures("parser")
def test_odd_spellings_are_read_as_omegaconf_reads_them(tmp_path: Path) -> None:
    found = read_yaml(written(tmp_path, ODD))
    assert repr(found) == repr(OmegaConf.to_container(OmegaConf.create(ODD)))


@settings(max_examples=300)
@given(scalar=st.text("0123456789+-._eE:xbo", min_size=1, max_size=9))
@example(scalar="1e5")
@example(scalar="1_0e5")
@example(scalar="1.e5")
@example(scalar="0b_")
@example(scalar="-")
def test_any_number_is_read_as_omegaconf_reads_it(scalar: str, tmp_path: Path) -> None:
    text = f"a: {scalar}\n"
    try:
        wanted = repr(OmegaConf.to_container(OmegaConf.create(text)))
    except Exception:
        refused(tmp_path, text)
    else:
        assert repr(read_yaml(written(tmp_path, text))) == wanted


@pytest.mark.usefixtures("parser")
@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: &x 1\nb: *x\n", ":1: aliases and tags"),
        ("a: 1\nb: *x\n", ":2: "),
        ("a: !!str 1\n", ":1: aliases and tags"),
        ("a: 1\nb: !x {}\n", ":2: aliases and tags"),
        ("a: {b: 1,\n b: 2}\n", ":2: found duplicate key b"),
        ("1: a\n", ":1: 1 is not a word"),
        ("a: 1\non: 2\n", ":2: on is not a word"),
        ("? [a]\n: 1\n", ":1: a list is not a word"),
        ("a: 1\n---\nb: 2\n", ": holds 2 documents"),
        ("a: 1\nb: [", ":2: "),
        ("a: '${oc.env:HOME}'\n", ": a: '${' is not allowed"),
        ('a: ["\\x24{b}"]\n', ": a: '${' is not allowed"),
    ],
)
def test_what_is_no_plain_mapping_is_refused_with_its_line(text: str, said: str, tmp_path: Path) -> None:
    assert refused(tmp_path, text).startswith(said)


@pytest.mark.parametrize("opening", ["[", "{a: ", "- "])
def test_nesting_that_would_end_the_process_is_refused(opening: str, tmp_path: Path) -> None:
    """libyaml's own composer calls itself for each level and dies of a stack overflow."""
    assert f"nested more than {MAX_DEPTH} deep" in refused(tmp_path, opening * 250_000)


def test_a_long_word_of_digits_is_text(tmp_path: Path) -> None:
    assert read_yaml(written(tmp_path, f"a: {'9' * 101}\n")) == {"a": "9" * 101}
