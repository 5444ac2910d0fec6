"""Text tokenised once into memory-mapped files; training reads nothing else.

A prepared folder holds train.bin, val.bin, test.bin (ids, little endian) and manifest.json,
which is written last and holds the checksum of each. It lies under the cache folder, named
after what it was made from, so another text or another tokenizer is another folder.
"""

from __future__ import annotations

import dataclasses
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from glu_bench import schema
from glu_bench.data.documents import Corpus, find_corpus
from glu_bench.data.tokenizers import Tokenizer, make_tokenizer
from glu_bench.errors import DataError
from glu_bench.files import (
    dump_json,
    explain_disk,
    fsync_dir,
    fsync_file,
    hold_lock,
    make_folder,
    read_json,
    sha256_bytes,
    sha256_file,
    write_json,
)

SPLITS = ("train", "val", "test")
FORMAT_VERSION = 1


@dataclass(frozen=True)
class TokenStream:
    """One split: documents, each followed by the end token, as one array of ids."""

    split: str
    ids: NDArray[np.uint16]
    n_documents: int


@dataclass(frozen=True)
class TokenSet:
    """The three splits of one text under one tokenizer."""

    folder: Path
    tokenizer: Tokenizer
    data_fingerprint: str
    manifest: dict[str, Any]

    def stream(self, split: str) -> TokenStream:
        """A split, memory-mapped."""
        path = self.folder / f"{split}.bin"
        entry = self.manifest["splits"][split]
        if entry["n_tokens"] == 0:
            raise DataError(f"the {split} split is empty: the text has too few documents to hold any out")
        return TokenStream(split, np.memmap(path, dtype="<u2", mode="r"), entry["n_documents"])


def whole_stream(files: list[str], tokenizer: Tokenizer) -> TokenStream:
    """All documents of some files as one stream, held in memory; nothing is cached or split.

    Raises: DataError for files that cannot be used.
    """
    spec = schema.Data(corpus="text", source="files", files=files, val_share=0.05, test_share=0.05)
    corpus = dataclasses.replace(find_corpus(spec), cut_chars=None)
    end = np.array([tokenizer.end_id], dtype=np.uint16)
    pieces: list[NDArray[np.uint16]] = []
    for document in corpus.documents():
        pieces += [tokenizer.encode(document["text"]), end]
    return TokenStream(", ".join(files), np.concatenate(pieces), len(pieces) // 2)


def find_cache() -> Path:
    """The folder for prepared tokens: GLU_BENCH_CACHE, else the user's cache folder."""
    import platformdirs

    given = os.environ.get("GLU_BENCH_CACHE")
    return Path(given) if given else Path(platformdirs.user_cache_dir("glu-bench"))


def prepare_tokens(config: schema.Config, on_progress: Callable[[int, int], None] | None = None) -> TokenSet:
    """The token set of a configuration, from the cache or made now.

    `on_progress` is told (bytes done, bytes in all) while tokens are made.
    Raises: DataError for text that cannot be used; ResourceError if the disk is full.
    """
    corpus = find_corpus(config.data)
    tokenizer = make_tokenizer(config.tokenizer)
    recipe = {
        "format_version": FORMAT_VERSION,
        "data_fingerprint": corpus.fingerprint,
        "tokenizer_fingerprint": tokenizer.fingerprint,
        "val_share": config.data.val_share,
        "test_share": config.data.test_share,
    }
    folder = find_cache() / "tokens" / sha256_bytes(dump_json(recipe).encode())[:20]
    make_folder(folder)
    with hold_lock(folder, timeout_s=-1):  # a second process waits and then reads what the first made
        manifest = _read_whole(folder)
        if manifest is None:
            manifest = _tokenise(folder, corpus, tokenizer, recipe, on_progress)
    fingerprint = sha256_bytes(dump_json(recipe).encode())
    return TokenSet(folder, tokenizer, fingerprint, manifest)


def choose_split(digest: str, val_share: float, test_share: float) -> str:
    """The split of a document, from the sha256 of its content: equal documents never straddle two."""
    position = int(digest[:16], 16) / 2**64
    if position < test_share:
        return "test"
    return "val" if position < test_share + val_share else "train"


def _read_whole(folder: Path) -> dict[str, Any] | None:
    """The manifest if the folder holds exactly what it says, else None."""
    try:
        manifest = read_json(folder / "manifest.json")
        for split in SPLITS:
            entry = manifest["splits"][split]
            path = folder / f"{split}.bin"
            if path.stat().st_size != entry["n_file_bytes"] or sha256_file(path) != entry["sha256"]:
                return None
    except (DataError, KeyError, TypeError, OSError):
        return None
    return manifest


def _tokenise(
    folder: Path,
    corpus: Corpus,
    tokenizer: Tokenizer,
    recipe: dict[str, Any],
    on_progress: Callable[[int, int], None] | None,
) -> dict[str, Any]:
    (folder / "manifest.json").unlink(missing_ok=True)
    work = folder / "work"
    shutil.rmtree(work, ignore_errors=True)  # of a preparation that was killed
    make_folder(work)
    counts = {split: {"n_documents": 0, "n_bytes": 0, "n_tokens": 0} for split in SPLITS}
    end = np.array([tokenizer.end_id], dtype="<u2")
    n_done = 0
    splits = _assign_splits(corpus, recipe)
    with explain_disk(folder, 2 * corpus.n_bytes):
        handles = {split: (work / f"{split}.bin").open("wb") for split in SPLITS}
        try:
            for document, split in zip(corpus.documents(), splits, strict=True):
                ids = tokenizer.encode(document["text"])
                handles[split].write(np.concatenate((ids, end)).astype("<u2").tobytes())
                n_bytes = len(document["text"].encode("utf-8"))
                counts[split]["n_documents"] += 1
                counts[split]["n_bytes"] += n_bytes
                counts[split]["n_tokens"] += len(ids) + 1
                n_done += n_bytes
                if on_progress:
                    on_progress(n_done, corpus.n_bytes)
        finally:
            for handle in handles.values():
                handle.close()
        for split in SPLITS:
            path = work / f"{split}.bin"
            fsync_file(path)
            entry: dict[str, Any] = counts[split]
            entry |= {"n_file_bytes": path.stat().st_size, "sha256": sha256_file(path)}
            path.replace(folder / path.name)
        work.rmdir()
        fsync_dir(folder)
    manifest = {**recipe, "splits": counts}
    write_json(folder / "manifest.json", manifest)
    return manifest


def _assign_splits(corpus: Corpus, recipe: dict[str, Any]) -> list[str]:
    """The split of each document, in order.

    A small text may hash to an empty split; then its documents with the least digests become
    test and val, again a function of content alone.
    """
    digests = [sha256_bytes(document["text"].encode("utf-8")) for document in corpus.documents()]
    splits = [choose_split(digest, recipe["val_share"], recipe["test_share"]) for digest in digests]
    if set(splits) != set(SPLITS) and len(splits) >= len(SPLITS):
        order = sorted(range(len(splits)), key=lambda i: (digests[i], i))
        n_test = max(1, round(recipe["test_share"] * len(splits)))
        n_val = max(1, round(recipe["val_share"] * len(splits)))
        splits = ["train"] * len(splits)
        for rank, i in enumerate(order[: n_test + n_val]):
            splits[i] = "test" if rank < n_test else "val"
    return splits
