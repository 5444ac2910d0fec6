"""Streams of text: pieces add up to the whole, and no character is split."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from glu_bench.data.stream import TextStream
from glu_bench.data.tokenizers import ByteTokenizer

decode = ByteTokenizer().decode


def pieces_of(ids: list[int]) -> list[str]:
    stream = TextStream(decode)
    return [*(stream.push(token) for token in ids), stream.close()]


def test_a_character_appears_when_its_last_byte_has_come() -> None:
    assert pieces_of(list("a€😀b".encode())) == ["a", "", "", "€", "", "", "", "😀", "b", ""]


def test_bytes_that_are_no_character_appear_once_that_is_certain() -> None:
    assert pieces_of([0xE2, 0x82, 0x41]) == ["", "", "�A", ""]
    assert pieces_of([0xE2, 0x82]) == ["", "", "�"]


@given(st.lists(st.integers(0, 256), max_size=60))
def test_pieces_of_any_bytes_are_the_whole(ids: list[int]) -> None:
    assert "".join(pieces_of(ids)) == decode(ids)


@given(st.text(max_size=40))
def test_pieces_of_any_text_are_characters_of_it(text: str) -> None:
    ids = list(text.encode("utf-8", errors="replace"))
    pieces = pieces_of(ids)
    assert "".join(pieces) == decode(ids)
    assert "�" not in "".join(pieces[:-1]) or "�" in text


def test_only_the_end_of_a_long_text_is_decoded_again() -> None:
    lengths: list[int] = []
    stream = TextStream(lambda ids: (lengths.append(len(ids)), decode(ids))[1])
    for token in b"x" * 500:
        stream.push(token)
    assert max(lengths) <= 3
