"""The prepared cache: exact tokens, splits by content, one whole folder whatever happens."""

from __future__ import annotations

import collections
import dataclasses
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from glu_bench import schema
from glu_bench.config import load_config
from glu_bench.data import hub, prepared
from glu_bench.data.corpora import find_corpus
from glu_bench.data.prepared import TokenSet, prepare_tokens, whole_stream
from glu_bench.data.splits import SPLITS, choose_split
from glu_bench.data.tokenizers import ByteTokenizer
from glu_bench.errors import DataError, ResourceError
from glu_bench.files import sha256_bytes
from tests.conftest import TinyConfig, command_env, make_text

END = ByteTokenizer.end_id
Prepare = Callable[..., TokenSet]


@pytest.fixture
def prepare(tiny_config: TinyConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Prepare:
    """Prepares some files with a cache of their own."""
    monkeypatch.setenv("GLU_BENCH_CACHE", str(tmp_path / "cache"))

    def run(*patterns: Path, words: tuple[str, ...] = ()) -> TokenSet:
        listed = ",".join(f"'{pattern}'" for pattern in patterns)
        return prepare_tokens(tiny_config(f"data.files=[{listed}]", *words))

    return run


def documents_of(tokens: TokenSet, split: str) -> list[bytes]:
    ids = tokens.stream(split).ids
    assert ids[-1] == END
    ends = np.flatnonzero(ids == END)
    return [bytes(piece[piece != END].astype(np.uint8)) for piece in np.split(ids, ends[:-1] + 1)]


def splits_of(tokens: TokenSet) -> dict[bytes, str]:
    return {document: split for split in SPLITS for document in documents_of(tokens, split)}


def write_files(folder: Path, n_files: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(n_files):
        (folder / f"{i:04d}.txt").write_text(make_text(3, seed=i))


@pytest.mark.parametrize(
    "content",
    [
        "".join(f"line {i}\r\n" for i in range(400)),
        "".join(f"line {i}\n" for i in range(400)) + "no end",
        "\ufeff" + "".join(f"mark {i}\n" for i in range(400)),
        "".join(f"🙂 naïve {i}\n" for i in range(400)),
    ],
    ids=["CRLF", "no final newline", "BOM", "emoji"],
)
def test_prepared_tokens_hold_every_byte_of_the_text(content: str, prepare: Prepare, tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(content.encode())
    tokens = prepare(path)
    kept = collections.Counter(b"".join(b"".join(documents_of(tokens, split)) for split in SPLITS))
    assert kept == collections.Counter(content.encode())


def test_documents_stand_in_the_order_of_the_text_each_behind_the_one_before(
    prepare: Prepare, text_path: Path
) -> None:
    tokens = prepare(text_path)
    text = text_path.read_bytes()
    for split in SPLITS:
        places = [text.index(document) for document in documents_of(tokens, split)]
        assert places == sorted(places)
        assert tokens.stream(split).n_documents == len(places)


def test_the_manifest_counts_what_is_there(prepare: Prepare, text_path: Path) -> None:
    tokens = prepare(text_path)
    for split in SPLITS:
        entry = tokens.manifest["splits"][split]
        documents = documents_of(tokens, split)
        assert entry["n_documents"] == len(documents)
        assert entry["n_bytes"] == sum(map(len, documents))
        assert entry["n_tokens"] == entry["n_bytes"] + len(documents) == len(tokens.stream(split).ids)
    assert sum(tokens.manifest["splits"][split]["n_bytes"] for split in SPLITS) == text_path.stat().st_size


def test_the_split_follows_content_whatever_the_order_and_the_names(prepare: Prepare, tmp_path: Path) -> None:
    write_files(tmp_path / "one", 200)
    (tmp_path / "other").mkdir()
    names = [f"x{i}.md" for i in range(200)]
    random.Random(1).shuffle(names)
    for path, name in zip(sorted((tmp_path / "one").iterdir()), names, strict=True):
        (tmp_path / "other" / name).write_bytes(path.read_bytes())
    assert splits_of(prepare(tmp_path / "one")) == splits_of(prepare(tmp_path / "other"))


def test_adding_a_file_moves_no_other_to_another_split(prepare: Prepare, tmp_path: Path) -> None:
    write_files(tmp_path / "in", 200)
    before = splits_of(prepare(tmp_path / "in"))
    (tmp_path / "in" / "0000a.txt").write_text(make_text(3, seed=999))
    after = splits_of(prepare(tmp_path / "in"))
    assert {document: after[document] for document in before} == before


def test_shares_of_the_splits_are_near_what_was_asked_for() -> None:
    draw = random.Random(0)
    digests = [f"{draw.getrandbits(256):064x}" for _ in range(20_000)]
    found = collections.Counter(choose_split(digest, 0.05, 0.1) for digest in digests)
    assert found["val"] / 20_000 == pytest.approx(0.05, abs=0.01)
    assert found["test"] / 20_000 == pytest.approx(0.1, abs=0.01)


def test_equal_documents_share_a_split(prepare: Prepare, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for i in range(300):
        (tmp_path / "in" / f"{i:03d}").write_text(make_text(3, seed=i % 60))
    tokens = prepare(tmp_path / "in")
    held = [set(documents_of(tokens, split)) for split in SPLITS]
    assert held[0].isdisjoint(held[1])
    assert held[0].isdisjoint(held[2])
    assert held[1].isdisjoint(held[2])


def test_equal_documents_of_a_small_text_share_a_split(prepare: Prepare, tmp_path: Path) -> None:
    lines = sorted((f"line {i}\n" for i in range(100)), key=lambda line: sha256_bytes(line.encode()))
    repeated, *others = lines[0], *lines[-6:]
    for i, line in enumerate([repeated] * 6 + others):
        (tmp_path / f"{i:02d}.txt").write_text(line)
    tokens = prepare(tmp_path / "*.txt")
    held = [set(documents_of(tokens, split)) for split in SPLITS]
    assert held[0].isdisjoint(held[1] | held[2])
    assert held[1].isdisjoint(held[2])


@pytest.mark.parametrize("n_files", [3, 4, 10])
def test_a_small_text_still_has_three_splits(n_files: int, prepare: Prepare, tmp_path: Path) -> None:
    write_files(tmp_path / "in", n_files)
    tokens = prepare(tmp_path / "in")
    assert all(tokens.manifest["splits"][split]["n_documents"] > 0 for split in SPLITS)


def test_a_text_of_one_document_cannot_be_held_out(prepare: Prepare, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one short line\n")
    tokens = prepare(tmp_path / "a.txt")
    with pytest.raises(DataError, match="split is empty"):
        [tokens.stream(split) for split in SPLITS]


def count_calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    calls: list[int] = []
    before = ByteTokenizer.encode

    def encode(self: ByteTokenizer, texts: list[str]) -> object:
        calls.append(1)
        return before(self, texts)

    monkeypatch.setattr(ByteTokenizer, "encode", encode)
    return calls


def test_a_text_is_tokenised_once(prepare: Prepare, text_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = count_calls(monkeypatch)
    first = prepare(text_path)
    n_first = len(calls)
    again = prepare(text_path, words=("seed=1", "variant=relu"))
    assert n_first > 0
    assert len(calls) == n_first
    assert again.folder == first.folder
    assert again.data_fingerprint == first.data_fingerprint


@pytest.mark.parametrize("word", ["data.val_share=0.1", "data.test_share=0.1"])
def test_other_shares_are_another_fingerprint(word: str, prepare: Prepare, text_path: Path) -> None:
    assert prepare(text_path).data_fingerprint != prepare(text_path, words=(word,)).data_fingerprint


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("name", ["train.bin", "val.bin", "test.bin", "manifest.json"])
@pytest.mark.parametrize("damage", [_flip, Path.unlink, lambda path: path.write_bytes(b"")])
def test_a_damaged_cache_is_made_anew(
    name: str, damage: Callable[[Path], object], prepare: Prepare, text_path: Path
) -> None:
    whole = prepare(text_path)
    content = {path.name: path.read_bytes() for path in whole.folder.iterdir() if path.suffix == ".bin"}
    damage(whole.folder / name)
    made = prepare(text_path)
    assert {path: (made.folder / path).read_bytes() for path in content} == content


def test_a_flipped_bit_is_found_whatever_the_files_time_says(prepare: Prepare, text_path: Path) -> None:
    path = prepare(text_path).folder / "train.bin"
    info, content = path.stat(), path.read_bytes()
    _flip(path)
    os.utime(path, ns=(info.st_atime_ns, info.st_mtime_ns))
    prepare(text_path)
    assert path.read_bytes() == content


def test_a_preparation_that_was_killed_leaves_nothing_that_counts(
    prepare: Prepare, text_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(prepared, "write_json", lambda path, value: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            prepare(text_path)
    tokens = prepare(text_path)
    assert splits_of(tokens)
    assert not (tokens.folder / "work").exists()


@pytest.mark.slow
def test_two_processes_that_prepare_at_once_make_one_whole_cache(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text(make_text(20_000))
    code = (
        "import sys; from pathlib import Path; from glu_bench.config import load_config\n"
        "from glu_bench.data.prepared import prepare_tokens\n"
        "tokens = prepare_tokens(load_config(['data=text', f'data.files={sys.argv[1]}']))\n"
        "print(tokens.folder, tokens.data_fingerprint, len(tokens.stream('train').ids))"
    )
    env = command_env(GLU_BENCH_CACHE=str(tmp_path / "cache"))
    processes = [
        subprocess.Popen([sys.executable, "-c", code, str(path)], env=env, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    printed = [process.communicate(timeout=60)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert printed[0] == printed[1] != ""
    assert len(list((tmp_path / "cache" / "tokens").iterdir())) == 1


def test_progress_counts_up_to_all_bytes(tiny_config: TinyConfig, text_path: Path, tmp_path: Path) -> None:
    told: list[tuple[int, int | None]] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GLU_BENCH_CACHE", str(tmp_path))
        prepare_tokens(tiny_config(), lambda n_done, n_bytes: told.append((n_done, n_bytes)))
    assert told[-1] == (text_path.stat().st_size, text_path.stat().st_size)
    assert [done for done, _ in told] == sorted(done for done, _ in told)


def test_a_whole_stream_is_every_byte_and_an_end_token_a_file(tmp_path: Path) -> None:
    for name, content in (("a", b"x\r\ny"), ("b", "ü".encode())):
        (tmp_path / name).write_bytes(content)
    stream = whole_stream([str(tmp_path / "a"), str(tmp_path / "b")], "text", ByteTokenizer())
    assert stream.ids.tolist() == [*b"x\r\ny", END, *"ü".encode(), END]
    assert stream.n_documents == 2


def test_every_text_comes_back_from_its_ids() -> None:
    text = "a\r\n🙂 \ufeffü"
    tokenizer = ByteTokenizer()
    assert tokenizer.decode(tokenizer.encode([text])[0].tolist()) == text


def test_a_disk_too_small_is_said_before_the_work(
    prepare: Prepare, text_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=10_000)
    monkeypatch.setattr(prepared.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(ResourceError, match=r"need about \d+,\d\d\d bytes, 10,000 are free") as caught:
        prepare(text_path)
    assert caught.value.exit_code == 6
    assert not list((tmp_path / "cache").rglob("*.bin"))


@pytest.mark.parametrize(
    ("words", "n_bytes"),
    [
        ((), 2_000_000),
        (("tokenizer=bpe",), 666_666),
        (("data.max_tokens=100_000", "data.val_share=0.1", "data.test_share=0.1"), 240_000),
    ],
)
def test_the_disk_is_estimated(words: tuple[str, ...], n_bytes: int, tiny_config: TinyConfig) -> None:
    config = tiny_config(*words)
    corpus = dataclasses.replace(find_corpus(config.data), n_bytes=1_000_000)
    assert prepared.estimate_disk(config, corpus) == n_bytes


@pytest.mark.parametrize("own", [("val",), ("test",), ("val", "test")])
def test_a_split_that_is_full_is_read_no_further(
    own: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Splits of the dataset's own come after train, however long that is."""
    read: dict[str, int] = {}

    def read_split(data: schema.Data, name: str) -> Iterator[str]:
        for number in range(100_000):
            read[name] = number
            yield f"{name} {number} " + "x" * 2_000

    monkeypatch.setenv("GLU_BENCH_CACHE", str(tmp_path))
    monkeypatch.setattr(hub, "read_split", read_split)
    words = [f"data.{split}_split={split}_rows" for split in own]
    config = load_config(["data=hub", "data.path=o/d", "data.column=text", "data.max_tokens=100_000", *words])
    counts = prepare_tokens(config).manifest["splits"]
    assert set(read) == {"train", *(f"{split}_rows" for split in own)}
    assert max(read.values()) < 2_000  # of 100,000: a batch of a million characters is read ahead
    assert 100_000 <= counts["train"]["n_tokens"] < 103_000
    assert all(counts[split]["n_tokens"] > 0 for split in ("val", "test"))


def test_a_text_is_described_by_its_sizes_and_the_head_of_each_split(
    prepare: Prepare, tmp_path: Path
) -> None:
    write_files(tmp_path / "in", 12)
    tokens = prepare(tmp_path / "in")
    told = tokens.describe()
    assert (told["vocab_size"], told["folder"]) == (257, str(tokens.folder))
    n_bytes = sum(path.stat().st_size for path in (tmp_path / "in").iterdir())
    assert sum(size["n_bytes"] for size in told["splits"].values()) == n_bytes
    assert set(told["heads"]) == set(SPLITS)
    for split in SPLITS:
        first = documents_of(tokens, split)[0].decode()
        assert told["heads"][split].startswith(first[:200])
        assert len(told["heads"][split]) <= 200 + 2 * told["splits"][split]["n_documents"]


def test_a_split_without_text_has_no_head(prepare: Prepare, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one short line\n")
    told = prepare(tmp_path / "a.txt").describe()
    assert list(told["heads"].values()) == ["one short line\n\n\n"]  # the end token is a blank line
    assert all(told["splits"][split]["n_tokens"] > 0 for split in told["heads"])
    assert set(told["heads"]) < set(SPLITS)
