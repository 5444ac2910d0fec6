"""Where text comes from, and how it becomes documents."""

from __future__ import annotations

import gzip
import os
import random
import tracemalloc
from pathlib import Path

import pandas
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from glu_bench import schema
from glu_bench.config import load_config
from glu_bench.data.corpora import Corpus, find_corpus
from glu_bench.data.documents import (
    LONGEST_CUT,
    list_files,
    list_stdlib,
    read_documents,
    read_text,
    split_once,
)
from glu_bench.errors import DataError


def corpus_of(*patterns: Path | str) -> Corpus:
    listed = ",".join(f"'{pattern}'" for pattern in patterns)
    return find_corpus(load_config(["data=text", f"data.files=[{listed}]"]).data)


def texts_of(corpus: Corpus) -> list[str]:
    return [document.text for document in corpus.documents()]


def cut_text(text: str, cut_chars: int) -> list[str]:
    pieces = []
    while text:
        piece, text = split_once(text, cut_chars)
        pieces.append(piece)
    return pieces


@pytest.mark.parametrize(
    "content",
    ["a\r\nb\r\n", "no final newline", "\ufeffwith a mark\n", "🙂 emoji\n", "a\rb\u2028c\x0bd\x1ce\x85f"],
    ids=["CRLF", "no final newline", "BOM", "emoji", "odd line ends"],
)
def test_every_byte_of_a_file_is_kept(content: str, tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(content.encode())
    assert "".join(read_text(path)).encode() == content.encode()
    assert "".join(texts_of(corpus_of(path))).encode() == content.encode()


@example("\n" * 50, 3)
@example("x" * 50 + "\n", 3)
@given(st.text(st.sampled_from("ab\n\r🙂"), max_size=300), st.integers(1, 40))
def test_pieces_join_to_the_text_and_none_is_long_or_empty(text: str, cut_chars: int) -> None:
    pieces = list(cut_text(text, cut_chars))
    assert "".join(pieces) == text
    assert all(0 < len(piece) <= 4 * cut_chars for piece in pieces)
    assert all(len(piece) >= cut_chars for piece in pieces[:-1])


@given(st.lists(st.text(st.sampled_from("ab"), max_size=9), max_size=60))
def test_pieces_of_short_lines_end_at_line_ends(lines: list[str]) -> None:
    text = "".join(line + "\n" for line in lines)
    assert all(piece.endswith("\n") for piece in cut_text(text, 10))


def test_one_file_becomes_about_a_hundred_documents(text_path: Path) -> None:
    assert 60 <= len(texts_of(corpus_of(text_path))) <= 100


def test_a_hundred_files_become_a_document_each(tmp_path: Path) -> None:
    for i in range(100):
        (tmp_path / f"{i:03d}.txt").write_text(f"file {i}\n" * 100)
    corpus = corpus_of(tmp_path)
    assert texts_of(corpus) == [f"file {i}\n" * 100 for i in range(100)]


def test_folders_globs_and_files_mix_without_doubling(tmp_path: Path) -> None:
    (tmp_path / "sub" / ".git").mkdir(parents=True)
    for name in ("b.txt", "a.txt", "sub/c.py", ".hidden", "sub/.git/x"):
        (tmp_path / name).write_text("x")
    found = list_files([str(tmp_path / "b.txt"), str(tmp_path), str(tmp_path / "**" / "*.py")])
    assert [path.relative_to(tmp_path).as_posix() for path in found] == ["b.txt", "a.txt", "sub/c.py"]


def test_a_file_whose_name_looks_like_a_glob_is_that_file(tmp_path: Path) -> None:
    for name in ("a[1].txt", "a1.txt"):
        (tmp_path / name).write_text(name)
    assert [path.name for path in list_files([str(tmp_path / "a[1].txt")])] == ["a[1].txt"]


def test_a_link_in_a_folder_counts_like_its_target_does(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("x")
    (tmp_path / "dangling.txt").symlink_to(tmp_path / "nosuch")
    assert [path.name for path in list_files([str(tmp_path)])] == ["a.txt"]


def test_the_recipe_follows_content_not_names(tmp_path: Path) -> None:
    one, other = tmp_path / "a.txt", tmp_path / "b.md"
    one.write_text("some text\n" * 50)
    other.write_text("some text\n" * 50)
    assert corpus_of(one).recipe == corpus_of(other).recipe
    other.write_text("some text\n" * 49 + "some tex!\n")
    assert corpus_of(one).recipe != corpus_of(other).recipe


def test_the_recipe_tells_line_ends_apart(tmp_path: Path) -> None:
    one, other = tmp_path / "a.txt", tmp_path / "b.txt"
    one.write_bytes(b"a\nb\n")
    other.write_bytes(b"a\r\nb\r\n")
    assert corpus_of(one).recipe != corpus_of(other).recipe


def test_the_recipe_tells_two_files_from_one_of_the_same_text(tmp_path: Path) -> None:
    for name, content in (("ab", "ab"), ("a", "a"), ("b", "b")):
        (tmp_path / name).write_text(content)
    whole = corpus_of(tmp_path / "ab").recipe
    assert whole != corpus_of(tmp_path / "a", tmp_path / "b").recipe


def test_the_standard_library_is_listed_without_its_tests() -> None:
    found = list_stdlib()
    names = {path.name for path in found}
    assert {"argparse.py", "random.py"} <= names
    assert not any("test" in path.parts or "site-packages" in path.parts for path in found)
    assert found == sorted(found)


def refusal(path: Path | str) -> str:
    listed = load_config(["data=text", f"data.files=['{path}']"]).data
    return refusal_of(listed)


def refusal_of(data: schema.Data) -> str:
    with pytest.raises(DataError) as caught:
        texts_of(find_corpus(data))
    assert caught.value.exit_code == 3
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_missing_file_and_a_glob_without_match_are_named(tmp_path: Path) -> None:
    for pattern in (tmp_path / "nosuch.txt", tmp_path / "*.txt"):
        assert str(pattern) in refusal(pattern)


def test_a_folder_without_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "only" / "folders").mkdir(parents=True)
    assert str(tmp_path / "only") in refusal(tmp_path / "only")


def test_an_empty_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.txt").touch()
    assert "a.txt: empty" in refusal(tmp_path / "a.txt")


def test_a_fifo_is_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert "not a regular file" in refusal(tmp_path / "pipe")


@pytest.mark.parametrize("device", ["/dev/zero", "/dev/null"])
def test_a_device_is_refused(device: str) -> None:
    assert "not a regular file" in refusal(device)


def test_bytes_that_are_not_utf8_are_refused_with_their_offset(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes("naïve".encode("latin-1"))
    message = refusal(path)
    assert str(path) in message
    assert "0xef at offset 2" in message


def test_lone_surrogates_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes("a\ud800".encode("utf-8", errors="surrogatepass"))
    assert "offset 1" in refusal(path)


def test_nul_bytes_and_compressed_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"text\0more")
    assert "NUL at byte 4" in refusal(path)
    path.write_bytes(gzip.compress(b"text " * 100))
    assert str(path) in refusal(path)


def test_a_file_that_may_not_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.txt"
    path.write_text("x")

    def forbid(self: Path, *args: object, **kwargs: object) -> None:
        raise PermissionError(13, "Permission denied", str(self))

    data = load_config(["data=text", f"data.files={path}"]).data
    monkeypatch.setattr(Path, "open", forbid)
    message = refusal_of(data)
    assert "a.txt" in message
    assert "Permission denied" in message


@pytest.mark.parametrize("ending", [".gz", ".zst"])
def test_packed_files_are_unpacked(ending: str, tmp_path: Path) -> None:
    text = "naïve 🙂 line\r\n" * 5000
    path = tmp_path / f"a.txt{ending}"
    if ending == ".gz":
        path.write_bytes(gzip.compress(text.encode()))
    else:
        zstandard = pytest.importorskip("zstandard")
        path.write_bytes(zstandard.compress(text.encode()))
    assert "".join(texts_of(corpus_of(path))) == text


def test_a_packed_file_that_breaks_off_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.txt.gz"
    path.write_bytes(gzip.compress(random.Random(0).randbytes(5000).hex().encode())[:-100])
    assert "a.txt.gz: cannot be read" in refusal(path)


def test_a_huge_file_is_cut_without_being_held(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("0123456789abcde\n" * 800_000)  # 12.8 MB
    tracemalloc.start()
    n_chars = max_chars = 0
    for document in read_documents(path, LONGEST_CUT, whole=True):
        n_chars += len(document)
        max_chars = max(max_chars, len(document))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert n_chars == path.stat().st_size
    assert max_chars <= LONGEST_CUT + 16
    # 1 MiB read and decoded at a time beside what waits to be cut: far below the file
    assert peak < 8_000_000


def test_the_offset_of_a_bad_byte_is_right_beyond_the_first_piece(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes("é".encode() * (2**20) + b"\xff")
    assert "offset 2,097,152" in refusal(path)


# the csv reader of datasets leaves its file to the garbage collector when a stream is given up
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("name", ["a.jsonl", "a.csv", "a.parquet", "a.jsonl.gz"])
def test_rows_of_a_column_are_documents(name: str, tmp_path: Path) -> None:
    rows = [f'row {i}, "quoted" naïve\nsecond line' for i in range(50)]
    frame = pandas.DataFrame({"id": range(50), "body": rows})
    path = tmp_path / name
    if ".csv" in name:
        frame.to_csv(path, index=False)
    elif name.endswith(".parquet"):
        frame.to_parquet(path)
    else:
        frame.to_json(path, orient="records", lines=True)
    data = load_config(["data=text", f"data.files={path}", "data.column=body"]).data
    assert texts_of(find_corpus(data)) == rows
    assert "no column 'text'; there are id, body" in refusal(path)
    data.column = "id"
    with pytest.raises(DataError, match=r"column 'id' holds int in row 0"):
        texts_of(find_corpus(data))


def test_rows_that_are_not_what_the_ending_says_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("{not json\n")
    (tmp_path / "a.parquet").write_text("PAR0")
    assert "not readable as json" in refusal(tmp_path / "a.jsonl")
    assert "not readable as parquet" in refusal(tmp_path / "a.parquet")
