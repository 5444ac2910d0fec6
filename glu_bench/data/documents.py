"""Text files as documents of exact UTF-8: a fixed order of files, read in pieces of bounded size.

A document is what ends with the end token and what a split is made of. In a corpus of many
files a file is a document. One of few files (a novel, a log) is cut at line ends into about a
hundred, or there would be nothing to hold out; and no document is longer than a few MiB, so
that memory does not grow with the text.
"""

from __future__ import annotations

import codecs
import errno
import glob
import gzip
import os
import stat
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import IO, cast

from glu_bench.errors import DataError

FEW_FILES = 100  # a corpus of fewer files is cut into about as many documents
SHORTEST_CUT = 256  # characters; shorter documents than this are not made by cutting
LONGEST_CUT = 2**18  # characters; longer files than this are cut in any corpus
READ_BYTES = 2**20

# tests hold odd encodings and generated data; the others differ from one build of Python to the next
STDLIB_LEFT_OUT = frozenset(
    {"test", "tests", "idle_test", "site-packages", "dist-packages", "__pycache__", "lib-dynload"}
)
STDLIB_GENERATED = ("_sysconfigdata", "topics.py")


def list_stdlib() -> list[Path]:
    """Source files of the running Python's standard library, sorted.

    Without tests, installed packages and generated files, so that two installations of one
    Python version give the same list.
    """
    root = sysconfig.get_path("stdlib")
    found = []
    for folder, below, names in os.walk(root):
        # not even entered: installed packages are many times the library
        below[:] = [
            name
            for name in below
            if name not in STDLIB_LEFT_OUT and not (folder == root and name.startswith("config-"))
        ]
        found += [
            Path(folder, name)
            for name in names
            if name.endswith(".py") and not name.startswith(STDLIB_GENERATED)
        ]
    return sorted(found)


def list_files(patterns: list[str]) -> list[Path]:
    """Files that paths, folders and globs name: patterns in their order, matches sorted, none twice.

    Raises: DataError for a pattern that matches nothing, or a file that is not a regular one.
    """
    found: dict[Path, None] = {}
    for pattern in patterns:
        path = Path(pattern)
        try:
            path.lstat()
        except (OSError, ValueError) as error:
            if getattr(error, "errno", None) not in (errno.ENOENT, errno.ENOTDIR):
                reason = getattr(error, "strerror", None) or error
                raise DataError(f"data.files={pattern}: cannot be read ({reason})") from None
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
    for path in found:
        if not stat.S_ISREG(path.stat().st_mode):
            raise DataError(f"{path}: not a regular file")
    return list(found)


def choose_cut(n_files: int, n_bytes: int) -> int:
    """Length in characters above which a file is cut."""
    if n_files >= FEW_FILES:
        return LONGEST_CUT
    return min(LONGEST_CUT, max(SHORTEST_CUT, n_bytes // FEW_FILES))


def read_documents(path: Path, cut_chars: int, whole: bool) -> Iterator[str]:
    """Documents of one text file in order; together they are its text, line ends as they are.

    `whole` keeps a file of up to LONGEST_CUT characters in one piece.
    Raises: DataError for bytes that are not UTF-8 text, with the offset.
    """
    text = ""
    for piece in read_text(path):
        text += piece
        # a line may be cut only once four cuts are at hand, or at the end of the file
        while len(text) > 4 * max(cut_chars, LONGEST_CUT if whole else 0):
            document, text = split_once(text, cut_chars)
            yield document
    if whole and len(text) <= LONGEST_CUT:
        yield from [text] if text else []
        return
    while text:
        document, text = split_once(text, cut_chars)
        yield document


def split_once(text: str, cut_chars: int) -> tuple[str, str]:
    """A first document of at least `cut_chars` that ends at a line end, and the rest.

    A line longer than four cuts is cut inside.
    """
    line_end = text.find("\n", cut_chars - 1, 4 * cut_chars)
    stop = line_end + 1 if line_end >= 0 else 4 * cut_chars
    return text[:stop], text[stop:]


def read_text(path: Path) -> Iterator[str]:
    """A file's text in pieces of about 1 MiB; .gz and .zst are unpacked.

    Raises: DataError with the offset of the first byte that is not text.
    """
    decoder = codecs.getincrementaldecoder("utf-8")()
    offset = 0
    try:
        with open_unpacked(path) as file:
            while True:
                content = file.read(READ_BYTES)
                nul = content.find(b"\0")
                if nul >= 0:
                    raise DataError(
                        f"{path}: binary, a NUL at byte {offset + nul:,}; only UTF-8 text is taken"
                    )
                n_pending = len(decoder.getstate()[0])
                try:
                    text = decoder.decode(content, final=not content)
                except UnicodeDecodeError as error:
                    at = offset - n_pending + error.start
                    raise DataError(
                        f"{path}: not UTF-8, byte 0x{error.object[error.start]:02x} at offset {at:,}; "
                        "convert it, or leave it out of data.files"
                    ) from None
                offset += len(content)
                if text:
                    yield text
                if not content:
                    return
    except (OSError, EOFError) as error:
        raise DataError(f"{path}: cannot be read ({error})") from None


def open_unpacked(path: Path) -> IO[bytes]:
    """The file's bytes, unpacked if its name ends in .gz or .zst.

    Raises: DataError for .zst without the package that reads it.
    """
    if path.suffix == ".gz":
        return cast(IO[bytes], gzip.open(path, "rb"))
    if path.suffix == ".zst":
        try:
            import zstandard
        except ImportError:
            raise DataError(f"{path}: needs the extra 'zstd': pip install '.[zstd]'") from None
        opened: IO[bytes] = zstandard.open(path, "rb")
        return opened
    return path.open("rb")
