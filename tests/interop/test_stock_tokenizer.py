"""Exported tokenizers: AutoTokenizer gives the ids that training used, for any text."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import models, pre_tokenizers, processors

from glu_bench.data.tokenizers import ByteTokenizer, FileTokenizer, Tokenizer, train_bpe
from glu_bench.interop.export_check import PROBES
from glu_bench.interop.stock_tokenizer import make_tokenizer_files
from tests.conftest import make_text

transformers = pytest.importorskip("transformers")

END = "<|endoftext|>"
TEXTS = (*PROBES, END, f"a{END}b", f"{END} {END}\n", "abc " * 20, "<|endoftext", "[CLS] a [SEP]")


def load(tokenizer: Tokenizer, folder: Path) -> Any:
    for name, text in make_tokenizer_files(tokenizer, 64).items():
        (folder / name).write_text(text, encoding="utf-8")
    config = {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
    }  # has a tokenizer class of its own
    (folder / "config.json").write_text(json.dumps(config))
    return transformers.AutoTokenizer.from_pretrained(folder)


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[Tokenizer, Any]]:
    """Our tokenizer and what AutoTokenizer makes of its export: bytes, and a BPE of 400."""
    bpe = FileTokenizer(train_bpe(iter(make_text(200).splitlines(keepends=True)), 400), None, "test")
    both: list[Tokenizer] = [ByteTokenizer(), bpe]
    return [(ours, load(ours, tmp_path_factory.mktemp("tokenizer"))) for ours in both]


def ids_of(tokenizer: Tokenizer, text: str) -> list[int]:
    return [int(token) for token in tokenizer.encode([text])[0]]


@pytest.mark.parametrize("text", TEXTS)
def test_the_ids_are_the_same(text: str, pairs: list[tuple[Tokenizer, Any]]) -> None:
    for ours, theirs in pairs:
        assert theirs(text)["input_ids"] == ids_of(ours, text)


@given(st.text(max_size=60))
def test_the_ids_of_any_text_are_the_same(pairs: list[tuple[Tokenizer, Any]], text: str) -> None:
    for ours, theirs in pairs:
        assert theirs(text)["input_ids"] == ids_of(ours, text)
        assert theirs.decode(theirs(text)["input_ids"], skip_special_tokens=False) == text


def test_every_byte_has_its_own_id() -> None:
    inner = tokenizers.Tokenizer.from_str(make_tokenizer_files(ByteTokenizer(), 64)["tokenizer.json"])
    assert inner.get_vocab_size() == 257
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    assert {inner.id_to_token(i) for i in range(256)} == set(alphabet)
    assert inner.token_to_id(END) == 256


def test_the_end_token_is_named_and_its_spelling_in_bytes_is_text(pairs: list[tuple[Tokenizer, Any]]) -> None:
    for ours, theirs in pairs:
        assert (theirs.eos_token, theirs.eos_token_id, theirs.bos_token_id) == (END, ours.end_id, ours.end_id)
        assert len(theirs) == ours.vocab_size
        assert theirs.model_max_length == 64
        assert (ours.end_id in theirs(f"a{END}")["input_ids"]) is (ours.vocab_size == 400)


def test_a_file_that_adds_nothing_is_kept_byte_for_byte() -> None:
    content = train_bpe(iter(["some text"]), 300)
    files = make_tokenizer_files(FileTokenizer(content, None, "test"), 64)
    assert files["tokenizer.json"] == content


def test_what_would_cut_pad_or_frame_a_text_is_left_out(tmp_path: Path) -> None:
    inner = tokenizers.Tokenizer.from_str(train_bpe(iter(["some text"]), 300))
    inner.enable_truncation(3)
    inner.enable_padding(length=8, pad_id=0, pad_token=END)
    inner.post_processor = processors.TemplateProcessing(
        single=f"{END} $A {END}", special_tokens=[(END, inner.token_to_id(END))]
    )
    ours = FileTokenizer(inner.to_str(), None, "test")
    theirs = load(ours, tmp_path)
    kept = json.loads((tmp_path / "tokenizer.json").read_text())
    assert (kept["truncation"], kept["padding"]) == (None, None)  # not everybody reads it by transformers
    for text in ("", "some text of more than three", f"a{END}b"):
        assert theirs(text)["input_ids"] == ids_of(ours, text)


@pytest.mark.parametrize("special", [False, True, None], ids=["added", "special", "ordinary"])
def test_an_end_token_of_any_kind_leaves_the_ids_alone(special: bool | None, tmp_path: Path) -> None:
    inner = tokenizers.Tokenizer(models.WordLevel({"</s>": 0, "a": 1, "s": 2, "<unk>": 3}, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    if special is not None:
        inner.add_tokens([tokenizers.AddedToken("</s>", special=special, lstrip=True)])
    ours = FileTokenizer(inner.to_str(), None, "test")
    theirs = load(ours, tmp_path)
    for text in ("a </s>s", "</s>", "a</s>a x", "a </s> </s>"):
        assert theirs(text)["input_ids"] == ids_of(ours, text)
    assert theirs.eos_token == (None if special is None else "</s>")
