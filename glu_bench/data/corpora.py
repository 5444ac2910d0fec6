"""Where text comes from, as one stream of documents: local files, or the Hugging Face Hub.

Every source says what identifies its text (the recipe), about how large it is, and yields
documents in a fixed order, each with the split it belongs to, or None where the split is to be
chosen from the document's content.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from glu_bench import schema
from glu_bench.data import hub
from glu_bench.data.documents import choose_cut, list_files, list_stdlib, read_documents
from glu_bench.data.rows import ROW_FORMATS, read_rows, row_format
from glu_bench.errors import DataError
from glu_bench.files import sha256_file

IsFull = Callable[[str], bool]  # of a split


def never_full(split: str) -> bool:
    """False: everything is wanted."""
    return False


@dataclass(frozen=True)
class Document:
    """Text of a document, or of a part of one if more of it follows."""

    text: str
    split: str | None  # train, val, test, or None: choose by content
    ends: bool = True  # the end token follows


@dataclass(frozen=True)
class FileCorpus:
    """Files in a fixed order, known by their content."""

    paths: tuple[Path, ...]
    n_bytes: int  # on disk
    column: str
    recipe: dict[str, Any]

    @property
    def name(self) -> str:
        """The file, or how many there are."""
        return str(self.paths[0]) if len(self.paths) == 1 else f"{len(self.paths)} files"

    def documents(self, is_full: IsFull = never_full) -> Iterator[Document]:
        """All documents until train is full, as a Hugging Face dataset streams them: no copy in its cache.

        Raises: DataError, while reading, for what is not text.
        """
        from datasets import IterableDataset

        stream = IterableDataset.from_generator(_read_files, gen_kwargs={"corpus": self})
        for row in stream:
            if is_full("train"):  # what is held out comes from the same stream
                return
            yield Document(row["text"], None)


@dataclass(frozen=True)
class HubCorpus:
    """A dataset of the Hub, known by its id, configuration and revision."""

    data: schema.Data
    n_bytes: int | None
    recipe: dict[str, Any]

    @property
    def name(self) -> str:
        """The dataset's id."""
        return str(self.data.path)

    def documents(self, is_full: IsFull = never_full) -> Iterator[Document]:
        """Train, then val and test if the dataset has splits of its own for them; each until it is full.

        Raises: DataError if the Hub, the dataset, a split or the column cannot be had.
        """
        own = {"train": self.data.train_split, "val": self.data.val_split, "test": self.data.test_split}
        hashed = None in own.values()
        for split, name in own.items():
            if name is None:
                continue
            chosen = None if split == "train" and hashed else split
            waiting: str | None = None
            for text in hub.read_split(self.data, name):
                if is_full(split):
                    break
                if self.data.rows == "documents":
                    if text:
                        yield Document(text, chosen)
                    continue
                if waiting is not None:
                    yield Document(waiting, split, ends=False)
                waiting = text
            if waiting is not None:
                yield Document(waiting, split, ends=True)


Corpus = FileCorpus | HubCorpus


def find_corpus(data: schema.Data) -> Corpus:
    """The corpus that the configuration names; files are hashed, the Hub is not asked yet.

    Raises: DataError if there is no file, or none that can be read.
    """
    if data.source == "hub":
        keys = ("path", "name", "revision", "column", "rows", "train_split", "val_split", "test_split")
        recipe = {"source": "hub"} | {key: getattr(data, key) for key in keys}
        return HubCorpus(data, None, recipe)
    paths = list_stdlib() if data.source == "stdlib" else list_files(data.files)
    try:
        n_bytes = sum(path.stat().st_size for path in paths)
        digests = [sha256_file(path) for path in paths]
    except OSError as error:
        raise DataError(f"{error.filename}: cannot be read ({error.strerror})") from None
    structured = any(row_format(path) for path in paths)
    recipe = {
        "source": "files",
        "sha256": digests,
        "cut_chars": choose_cut(len(paths), n_bytes),
        "column": data.column if structured else None,
    }
    corpus = FileCorpus(tuple(paths), n_bytes, data.column, recipe)
    if n_bytes == 0:
        raise DataError(f"{corpus.name}: empty, there is no text to train on")
    return corpus


def _read_files(corpus: FileCorpus) -> Iterator[dict[str, str]]:
    cut_chars = int(corpus.recipe["cut_chars"])
    whole = cut_chars == choose_cut(10**9, 0)  # many files: each stays in one piece
    for path in corpus.paths:
        if row_format(path) in ROW_FORMATS:
            texts = read_rows(path, corpus.column)
        else:
            texts = read_documents(path, cut_chars, whole)
        for text in texts:
            if text:
                yield {"text": text}
