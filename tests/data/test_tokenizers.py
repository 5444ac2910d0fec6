"""Tokenizers: nothing is lost, bytes are counted, the same text gives the same tokenizer."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import tokenizers
from hypothesis import given
from hypothesis import strategies as st

from glu_bench.config import load_config
from glu_bench.data.corpora import find_corpus
from glu_bench.data.prepared import prepare_tokens
from glu_bench.data.splits import split_documents
from glu_bench.data.tokenizers import ByteTokenizer, FileTokenizer, train_bpe
from glu_bench.errors import DataError
from glu_bench.evaluate.run import evaluate_run
from glu_bench.runs.folder import list_runs
from tests.conftest import Train, make_text

LINES = make_text(400).splitlines(keepends=True)
BPE = FileTokenizer(train_bpe(iter(LINES), 400), None, "test")


@given(st.text(max_size=80))
def test_every_text_comes_back(text: str) -> None:
    for tokenizer in (ByteTokenizer(), BPE):
        (ids,) = tokenizer.encode([text])
        assert tokenizer.decode(ids.tolist()) == text
        assert tokenizer.end_id not in ids.tolist() or "<|endoftext|>" in text


def test_training_again_gives_the_same_bytes() -> None:
    assert train_bpe(iter(LINES), 400) == BPE.content
    assert train_bpe(iter(LINES[1:]), 400) != BPE.content


def test_the_vocabulary_is_as_large_as_asked_for() -> None:
    assert BPE.vocab_size == 400
    assert BPE.end_id == 0


@given(st.text(st.sampled_from("abcd é🙂\n"), min_size=1, max_size=40))
def test_the_bytes_of_the_first_token_are_counted(text: str) -> None:
    (ids,) = BPE.encode([text])
    n_bytes = BPE.count_first_bytes(text)
    assert 1 <= n_bytes <= len(text.encode())
    if all(c in "abcd \n" for c in text):  # tokens of ASCII end at characters
        assert BPE.decode(ids[:1].tolist()) == text.encode()[:n_bytes].decode()


def test_a_bpe_sees_the_train_split_alone(text_path: Path) -> None:
    config = load_config(
        ["data=text", f"data.files={text_path}", "tokenizer=bpe", "tokenizer.vocab_size=300"]
    )
    tokens = prepare_tokens(config)
    texts = [d.text for d in split_documents(find_corpus(config.data), config.data) if d.split == "train"]
    assert (tokens.folder / "tokenizer.json").read_text() == train_bpe(iter(texts), 300)


def test_losses_come_with_bits_per_byte_of_the_text(train: Train, text_path: Path, tmp_path: Path) -> None:
    as_bytes = train("train.steps=1")
    as_bpe = train("train.steps=1", "tokenizer=bpe", "tokenizer.vocab_size=300")
    # the first token of the stream is not scored, and a BPE's is longer than a byte
    assert 0 <= as_bytes["n_test_bytes"] - as_bpe["n_test_bytes"] < 20
    assert as_bpe["n_test_tokens"] < 0.8 * as_bytes["n_test_tokens"]
    for record in (as_bytes, as_bpe):
        bits = record["test_loss_nats"] * record["n_test_tokens"] / math.log(2)
        assert record["test_bits_per_byte"] == pytest.approx(bits / record["n_test_bytes"])
    assert as_bytes["test_bits_per_byte"] == pytest.approx(8, rel=0.15)  # 257 ids, nothing learned


def test_a_run_keeps_its_tokenizer_and_refuses_another(train: Train, tmp_path: Path) -> None:
    train("train.steps=1", "tokenizer=bpe", "tokenizer.vocab_size=300")
    (run,) = list_runs(tmp_path)
    assert run.load_tokenizer().vocab_size == 300
    (run.path / "tokenizer.json").write_text(BPE.content)
    with pytest.raises(DataError, match=r"400 ids.*trained with"):
        run.load_tokenizer()


def test_a_run_under_a_bpe_measures_other_text_in_bytes(
    train: Train, text_path: Path, tmp_path: Path
) -> None:
    train("train.steps=1", "tokenizer=bpe", "tokenizer.vocab_size=300")
    (run,) = list_runs(tmp_path)
    found = evaluate_run(run, files=[str(text_path)])
    assert found.n_bytes is not None
    assert text_path.stat().st_size - 20 < found.n_bytes < text_path.stat().st_size


def test_any_tokenizer_file_works_and_needs_an_end_token(tmp_path: Path) -> None:
    (tmp_path / "good.json").write_text(BPE.content)
    content = json.loads(BPE.content)
    content["added_tokens"] = []
    del content["model"]["vocab"]["<|endoftext|>"]
    (tmp_path / "bad.json").write_text(json.dumps(content))
    assert FileTokenizer(BPE.content, "<|endoftext|>", "x").end_id == 0
    with pytest.raises(DataError, match="has no end token <nosuch>"):
        FileTokenizer(BPE.content, "<nosuch>", "x")
    with pytest.raises(DataError, match=r"tokenizer\.end_token"):
        FileTokenizer(json.dumps(content), None, "x")
    with pytest.raises(DataError, match=r"not a tokenizer\.json"):
        FileTokenizer("{}", None, "x")


def test_large_vocabularies_are_stored_in_four_bytes(tmp_path: Path, text_path: Path) -> None:
    vocabulary = {"</s>": 0} | {f"w{i}": i for i in range(1, 70_001)}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="w70000"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    tokenizer.save(str(tmp_path / "t.json"))
    words = ["data=text", f"data.files={text_path}", "tokenizer=file", f"tokenizer.path={tmp_path}/t.json"]
    tokens = prepare_tokens(load_config(words))
    assert tokens.tokenizer.vocab_size == 70_001
    assert tokens.stream("train").ids.dtype == "<u4"
