"""Where text comes from: an ordered list of files, read as documents of exact UTF-8.

A document is what ends with the end token and what a split is made of. A corpus of many files
has one document a file. One of few files (a novel, a log) is cut at line ends into about a
hundred documents, or there would be nothing to hold out.
"""

from __future__ import annotations

import glob
import hashlib
import stat
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from glu_bench import schema
from glu_bench.errors import DataError
from glu_bench.files import sha256_file

if TYPE_CHECKING:
    from datasets import IterableDataset

FEW_FILES = 100  # a corpus of fewer files is cut into about as many documents
SHORTEST_CUT = 256  # characters; shorter documents than this are not made by cutting

# tests hold odd encodings and generated data; the others differ from one build of Python to the next
STDLIB_LEFT_OUT = frozenset(
    {"test", "tests", "idle_test", "site-packages", "dist-packages", "__pycache__", "lib-dynload"}
)
STDLIB_GENERATED = ("_sysconfigdata", "topics.py")


@dataclass(frozen=True)
class Corpus:
    """Files in a fixed order, and a fingerprint of their content."""

    paths: tuple[Path, ...]
    n_bytes: int
    cut_chars: int | None  # files are cut into documents of about this length; None: one a file
    fingerprint: str

    def documents(self) -> IterableDataset:
        """A Hugging Face dataset of {"text": str}, streamed: nothing is copied to its cache.

        Raises: DataError, while reading, for bytes that are not text.
        """
        from datasets import IterableDataset

        return IterableDataset.from_generator(
            read_documents,
            gen_kwargs={"paths": [str(path) for path in self.paths], "cut_chars": self.cut_chars},
        )


def find_corpus(data: schema.Data) -> Corpus:
    """The corpus that the configuration names.

    Raises: DataError if there is no file, or one that is not a regular file.
    """
    paths = list_stdlib() if data.source == "stdlib" else list_files(data.files)
    sizes, digests = [], []
    for path in paths:
        try:
            info = path.stat()
            if not stat.S_ISREG(info.st_mode):
                raise DataError(f"{path}: not a regular file")
            sizes.append(info.st_size)
            digests.append(sha256_file(path))
        except OSError as error:
            raise DataError(f"{path}: cannot be read ({error.strerror})") from None
    n_bytes = sum(sizes)
    if n_bytes == 0:
        raise DataError(f"{_name_files(paths)}: empty, there is no text to train on")
    cut_chars = max(SHORTEST_CUT, n_bytes // FEW_FILES) if len(paths) < FEW_FILES else None
    whole = hashlib.sha256("\n".join([str(cut_chars), *digests]).encode()).hexdigest()
    return Corpus(tuple(paths), n_bytes, cut_chars, whole)


def list_stdlib() -> list[Path]:
    """Source files of the running Python's standard library, sorted.

    Without tests, installed packages and generated files, so that two installations of one
    Python version give the same list.
    """
    root = Path(sysconfig.get_path("stdlib"))
    return sorted(
        path
        for path in root.rglob("*.py")
        if not STDLIB_LEFT_OUT & set(path.relative_to(root).parts)
        and not path.relative_to(root).parts[0].startswith("config-")
        and not path.name.startswith(STDLIB_GENERATED)
    )


def list_files(patterns: list[str]) -> list[Path]:
    """Files that paths, folders and globs name: patterns in their order, matches sorted, none twice.

    Raises: DataError for a pattern that matches nothing.
    """
    found: dict[Path, None] = {}
    for pattern in patterns:
        path = Path(pattern)
        if path.is_dir():
            matches = [
                inner
                for inner in sorted(path.rglob("*"))
                if inner.is_file() and not any(part.startswith(".") for part in inner.relative_to(path).parts)
            ]
        elif path.exists():
            matches = [path]
        else:
            names = glob.glob(pattern, recursive=True)  # noqa: PTH207  (Path.glob takes no absolute pattern)
            matches = sorted(Path(name) for name in names if Path(name).is_file())
        if not matches:
            raise DataError(
                f"data.files={pattern}: no such file" + (", no file in it" if path.is_dir() else "")
            )
        found.update(dict.fromkeys(matches))
    return list(found)


def read_documents(paths: list[str], cut_chars: int | None) -> Iterator[dict[str, str]]:
    """Each document as {"text": …}; a file that is cut gives its documents in order.

    Raises: DataError for a file that is not UTF-8 or holds NUL, with the byte offset.
    """
    for name in paths:
        text = read_text(Path(name))
        for document in cut_text(text, cut_chars) if cut_chars else [text]:
            if document:
                yield {"text": document}


def read_text(path: Path) -> str:
    """The whole file, every byte kept (line ends are not translated).

    Raises: DataError with the offset of the first byte that is not text.
    """
    content = path.read_bytes()
    if b"\0" in content:
        raise DataError(f"{path}: binary, a NUL at byte {content.index(0):,}; only UTF-8 text is taken")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path}: not UTF-8, byte 0x{content[error.start]:02x} at offset {error.start:,}; "
            "convert it, or leave it out of data.files"
        ) from None


def cut_text(text: str, cut_chars: int) -> Iterator[str]:
    """Pieces of at least `cut_chars` that end at a line end; together they are the text.

    A line longer than four pieces is cut inside.
    """
    start = 0
    while start < len(text):
        line_end = text.find("\n", start + cut_chars - 1, start + 4 * cut_chars)
        stop = line_end + 1 if line_end >= 0 else start + 4 * cut_chars
        yield text[start:stop]
        start = stop


def _name_files(paths: list[Path]) -> str:
    return str(paths[0]) if len(paths) == 1 else f"{len(paths)} files"
