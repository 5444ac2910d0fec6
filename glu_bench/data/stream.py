"""Text while its tokens arrive: a character is given out once it is whole, and never taken back."""

from __future__ import annotations

from collections.abc import Callable, Sequence

UNFINISHED = "�"  # what decoders write for bytes that are no character, or not yet


class TextStream:
    """Turns ids into pieces of text; all pieces together are the decoding of all ids."""

    def __init__(self, decode: Callable[[Sequence[int]], str]) -> None:
        self.decode = decode
        self.ids: list[int] = []
        self.start = 0  # of the ids decoded again for each new one: a piece depends on the one before it
        self.whole_at = 0  # ids before this ended on a whole character
        self.n_given = 0  # characters of decode(ids[start:]) given out already

    def push(self, token: int) -> str:
        """The characters that this token makes certain; possibly none."""
        self.ids.append(token)
        text = self.decode(self.ids[self.start :])
        certain = text.rstrip(UNFINISHED)
        piece = certain[self.n_given :]
        self.n_given = max(self.n_given, len(certain))
        if certain == text and piece:
            kept = self.decode(self.ids[self.whole_at :])
            self.start, self.whole_at = self.whole_at, len(self.ids)
            self.n_given = len(kept)
        return piece

    def close(self) -> str:
        """What was held back: the rest is no character."""
        piece = self.decode(self.ids[self.start :])[self.n_given :]
        self.n_given += len(piece)
        return piece
