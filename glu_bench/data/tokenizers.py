"""Text to token ids and back: bytes, a BPE of one's own, or any tokenizer.json.

Whatever the tokenizer, the bytes of the original text are counted beside its tokens, so losses
in bits per byte compare across tokenizers.
"""

from __future__ import annotations

import hashlib
import stat
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from glu_bench import schema
from glu_bench.data.hub import explain_hub
from glu_bench.errors import DataError
from glu_bench.files import sha256_bytes

if TYPE_CHECKING:
    import tokenizers

Ids = NDArray[np.uint32] | NDArray[np.uint16]
MAX_FILE_BYTES = 2**28  # the largest in use takes 35 MB
END_TOKENS = ("<|endoftext|>", "<|end_of_text|>", "</s>", "<eos>", "<|im_end|>", "[SEP]")


class Tokenizer(Protocol):
    """What a tokenizer must offer."""

    vocab_size: int
    end_id: int
    fingerprint: str

    def encode(self, texts: Sequence[str]) -> list[Ids]:
        """Ids of each text, without the end token."""

    def decode(self, ids: Iterable[int]) -> str:
        """The text of some ids."""

    def count_first_bytes(self, text: str) -> int:
        """Bytes of text that the first token of a non-empty text stands for."""


class ByteTokenizer:
    """Ids 0 to 255 are the bytes of the UTF-8 text, 256 ends a document. Nothing is lost."""

    vocab_size = 257
    end_id = 256
    fingerprint = hashlib.sha256(b"utf-8 bytes, end 256").hexdigest()

    def encode(self, texts: Sequence[str]) -> list[Ids]:
        """Ids of each text, without the end token."""
        return [np.frombuffer(text.encode("utf-8"), dtype=np.uint8).astype(np.uint16) for text in texts]

    def decode(self, ids: Iterable[int]) -> str:
        """The text of some ids; bytes that are not UTF-8 become U+FFFD, the end token a blank line."""
        pieces = (bytes([i]) if i < 256 else b"\n\n" for i in ids)
        return b"".join(pieces).decode("utf-8", errors="replace")

    def count_first_bytes(self, text: str) -> int:
        """1: a token is a byte."""
        return 1


class FileTokenizer:
    """A tokenizer.json of the tokenizers library."""

    def __init__(self, content: str, end_token: str | None, where: str) -> None:
        import tokenizers

        try:
            self.inner: tokenizers.Tokenizer = tokenizers.Tokenizer.from_str(content)
        except Exception as error:  # the library raises plain Exception
            raise DataError(f"{where}: not a tokenizer.json ({error})") from None
        candidates = [end_token] if end_token else list(END_TOKENS)
        known = [token for token in candidates if self.inner.token_to_id(token) is not None]
        if not known:
            raise DataError(
                f"{where}: has no end token {' or '.join(candidates)}; name one with tokenizer.end_token"
            )
        self.inner.no_padding()
        self.inner.no_truncation()
        self.content = content
        self.end_id = self.inner.get_vocab(with_added_tokens=True)[known[0]]
        # ids may have gaps, so the greatest id counts, not their number
        self.vocab_size = max(self.inner.get_vocab(with_added_tokens=True).values()) + 1
        self.fingerprint = sha256_bytes(f"{known[0]}\n{content}".encode())

    def encode(self, texts: Sequence[str]) -> list[Ids]:
        """Ids of each text, without the end token; the library spreads them over the cores."""
        found = self.inner.encode_batch_fast(list(texts), add_special_tokens=False)
        return [np.array(one.ids, dtype=np.uint32) for one in found]

    def decode(self, ids: Iterable[int]) -> str:
        """The text of some ids, the end token left out."""
        return str(self.inner.decode(list(ids), skip_special_tokens=True))

    def count_first_bytes(self, text: str) -> int:
        """Bytes from the start of the text to the end of its first token, at least 1."""
        encoded: Any = self.inner.encode(text, add_special_tokens=False)
        if len(encoded.offsets) < 2:
            return len(text.encode("utf-8"))
        return max(1, len(text[: encoded.offsets[1][0]].encode("utf-8")))


def train_bpe(texts: Iterator[str], vocab_size: int) -> str:
    """A byte-level BPE as tokenizer.json: no text is lost, none is unknown; the end token has id 0.

    The same texts in the same order give the same bytes.
    Source: Sennrich et al. 2016, arXiv 1508.07909; byte-level as GPT-2.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        show_progress=False,
        special_tokens=[END_TOKENS[0]],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
    )
    tokenizer.train_from_iterator(texts, trainer)
    return str(tokenizer.to_str())


def load_tokenizer_file(path: Path, end_token: str | None) -> FileTokenizer:
    """The tokenizer in a file.

    Raises: DataError if the file is missing or is not one.
    """
    if path.exists() and not path.is_file():  # a pipe would never end
        raise DataError(f"tokenizer.path={path}: not a regular file")
    try:
        info = path.stat()
        if not stat.S_ISREG(info.st_mode) or info.st_size > MAX_FILE_BYTES:
            raise DataError(f"tokenizer.path={path}: no file, or of more than {MAX_FILE_BYTES // 2**20} MiB")
        content = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"tokenizer.path={path}: cannot be read ({error})") from None
    return FileTokenizer(content, end_token, str(path))


def find_hub_tokenizer(spec: schema.Tokenizer) -> Path:
    """tokenizer.json of a repository of the Hub, downloaded or from the Hub's cache.

    Raises: DataError if it cannot be had.
    """
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(str(spec.path), "tokenizer.json", revision=spec.revision))
    except Exception as error:  # the hub client and the HTTP client each have their own
        raise DataError(f"tokenizer.path={spec.path}: {explain_hub(error)}") from None
