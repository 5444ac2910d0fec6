"""Text to token ids and back."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from glu_bench import schema

Ids = NDArray[np.uint16]


class ByteTokenizer:
    """Ids 0 to 255 are the bytes of the UTF-8 text, 256 ends a document. Nothing is lost."""

    vocab_size = 257
    end_id = 256
    fingerprint = hashlib.sha256(b"utf-8 bytes, end 256").hexdigest()

    def encode(self, text: str) -> Ids:
        """Token ids of a text, without the end token."""
        return np.frombuffer(text.encode("utf-8"), dtype=np.uint8).astype(np.uint16)

    def decode(self, ids: Iterable[int]) -> str:
        """The text of some ids; bytes that are not UTF-8 become U+FFFD, the end token a blank line."""
        pieces = (bytes([i]) if i < 256 else b"\n\n" for i in ids)
        return b"".join(pieces).decode("utf-8", errors="replace")

    def token_bytes(self) -> NDArray[np.int64]:
        """Bytes of original text behind each id: 1, and 0 for the end token. Shape: (V,)."""
        return np.array([1] * 256 + [0], dtype=np.int64)


Tokenizer = ByteTokenizer


def make_tokenizer(spec: schema.Tokenizer) -> Tokenizer:
    """The tokenizer that the configuration names."""
    assert spec.kind == "byte"  # the schema allows no other
    return ByteTokenizer()
