"""Text tokenised once into memory-mapped files; training reads nothing else.

A prepared folder holds train.bin, val.bin, test.bin (ids, little endian), tokenizer.json where
there is one, and manifest.json, which is written last and holds the checksum of each. It lies
under the cache folder, named after its recipe, so another text, another tokenizer or another
split is another folder.
"""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from glu_bench import schema
from glu_bench.cache import find_cache
from glu_bench.data.corpora import Corpus, find_corpus
from glu_bench.data.documents import list_files, read_text
from glu_bench.data.rows import read_rows, row_format
from glu_bench.data.splits import SPLITS, split_documents
from glu_bench.data.tokenizers import (
    ByteTokenizer,
    FileTokenizer,
    Ids,
    Tokenizer,
    find_hub_tokenizer,
    load_tokenizer_file,
    train_bpe,
)
from glu_bench.data.writer import SplitWriter
from glu_bench.errors import DataError, ResourceError
from glu_bench.files import (
    dump_json,
    explain_disk,
    hold_lock,
    make_folder,
    read_json,
    remove_strays,
    sha256_bytes,
    sha256_file,
    write_folder,
    write_json,
    write_text,
)

FORMAT_VERSION = 3
BATCH_CHARS = 2**20  # text handed to the tokenizer at a time
HEAD_TOKENS = 200  # of each split, shown to people
MUCH_OVERLAP = 0.01  # of a held-out split's bytes; below, texts share headings and blank rows

OnProgress = Callable[[int, int | None], None]  # (bytes of text done, bytes in all if known)


@dataclass(frozen=True)
class TokenStream:
    """One split: documents, each followed by the end token, as one array of ids."""

    split: str
    ids: Ids
    n_documents: int
    n_bytes: int  # of text; end tokens have none
    n_first_bytes: int  # of the first token, which no pass can score


@dataclass(frozen=True)
class TokenSet:
    """The three splits of one text under one tokenizer."""

    folder: Path
    tokenizer: Tokenizer
    manifest: dict[str, Any]

    @property
    def data_fingerprint(self) -> str:
        """sha256 over the documents and their splits, whatever they were read from."""
        return str(self.manifest["content_sha256"])

    def stream(self, split: str) -> TokenStream:
        """A split, memory-mapped.

        Raises: DataError if it is empty.
        """
        entry = self.manifest["splits"][split]
        if entry["n_tokens"] == 0:
            counts = self.manifest["splits"].values()
            n_documents, n_bytes = (sum(each[key] for each in counts) for key in ("n_documents", "n_bytes"))
            raise DataError(
                f"the {split} split is empty: the text is {n_documents:,} documents of {n_bytes:,} bytes, "
                "too few different ones to hold any out"
            )
        ids = np.memmap(self.folder / f"{split}.bin", dtype=self.manifest["dtype"], mode="r")
        return TokenStream(split, ids, entry["n_documents"], entry["n_bytes"], entry["n_first_bytes"])

    def describe_overlap(self) -> list[str]:
        """A remark for each held-out split of which much stands in the training text as well."""
        remarks = []
        for split, name in (("val", "validation"), ("test", "test")):
            n_bytes = self.manifest["splits"][split]["n_bytes"]
            share = self.manifest["overlap_bytes"][split] / max(1, n_bytes)
            if share > MUCH_OVERLAP:
                remarks.append(f"{name} overlaps training: {share:.1%} of its bytes are documents of both")
        return remarks

    def describe(self) -> dict[str, Any]:
        """Fingerprints, sizes and overlap of the text, and the head of each split that has one."""
        splits = self.manifest["splits"]
        return {
            "data_fingerprint": self.data_fingerprint,
            "tokenizer_fingerprint": self.tokenizer.fingerprint,
            "vocab_size": self.tokenizer.vocab_size,
            "folder": str(self.folder),
            "splits": splits,
            "overlap": self.manifest["overlap"],
            "heads": {
                split: self.tokenizer.decode(self.stream(split).ids[:HEAD_TOKENS].tolist())
                for split, entry in splits.items()
                if entry["n_tokens"]
            },
        }


def prepare_tokens(config: schema.Config, on_progress: OnProgress | None = None) -> TokenSet:
    """The token set of a configuration, from the cache or made now.

    `on_progress` is told how many bytes of text are done while tokens are made.
    Raises: DataError for text that cannot be used; ResourceError if the disk is too small.
    """
    corpus = find_corpus(config.data)
    recipe = _make_recipe(config, corpus)
    folder = find_cache() / "tokens" / sha256_bytes(dump_json(recipe).encode())[:20]
    make_folder(folder)
    with hold_lock(folder, timeout_s=-1):  # a second process waits and then reads what the first made
        manifest = _read_whole(folder)
        if manifest is None:
            manifest = _prepare(folder, config, corpus, recipe, on_progress)
    return TokenSet(folder, load_prepared_tokenizer(folder, config.tokenizer), manifest)


def estimate_disk(config: schema.Config, corpus: Corpus, n_id_bytes: int = 2) -> int | None:
    """Bytes that the tokens of a corpus will take, about; None if its size is unknown.

    An id a byte of text for bytes, one for some three bytes otherwise; no more than data.max_tokens.
    """
    n_tokens = corpus.n_bytes
    if n_tokens is not None and config.tokenizer.kind != "byte":
        n_tokens //= 3
    limit = config.data.max_tokens
    if limit is not None:
        held_out = config.data.val_share + config.data.test_share
        n_tokens = min(n_tokens or 2**62, round(limit * (1 + held_out)))
    return None if n_tokens is None else n_tokens * n_id_bytes


def load_prepared_tokenizer(folder: Path, spec: schema.Tokenizer) -> Tokenizer:
    """The tokenizer that a folder's tokens were made with (a prepared folder, or a run's)."""
    if spec.kind == "byte":
        return ByteTokenizer()
    end_token = None if spec.kind == "bpe" else spec.end_token
    return load_tokenizer_file(folder / "tokenizer.json", end_token)


def whole_stream(files: list[str], column: str, tokenizer: Tokenizer) -> TokenStream:
    """Each file (or row) as one document, all in one stream held in memory; nothing is cached or split.

    Raises: DataError for files that cannot be used.
    """
    end = np.array([tokenizer.end_id], dtype=np.uint32)
    pieces: list[NDArray[Any]] = []
    n_bytes = n_first = 0
    for path in list_files(files):
        whole = () if row_format(path) else ("".join(read_text(path)),)
        for text in whole or read_rows(path, column):
            n_first = n_first or (tokenizer.count_first_bytes(text) if text else 0)
            pieces += [*tokenizer.encode([text]), end]
            n_bytes += len(text.encode("utf-8"))
    if not n_bytes:
        raise DataError(f"{', '.join(files)}: empty, there is no text to measure")
    return TokenStream(", ".join(files), np.concatenate(pieces), len(pieces) // 2, n_bytes, n_first)


def _make_recipe(config: schema.Config, corpus: Corpus) -> dict[str, Any]:
    spec = config.tokenizer
    tokenizer: dict[str, Any] = dataclasses.asdict(spec)
    if spec.kind == "file":
        tokenizer["fingerprint"] = load_tokenizer_file(Path(str(spec.path)), spec.end_token).fingerprint
        del tokenizer["path"]
    return {
        "format_version": FORMAT_VERSION,
        "corpus": corpus.recipe,
        "tokenizer": tokenizer,
        "val_share": config.data.val_share,
        "test_share": config.data.test_share,
        "max_tokens": config.data.max_tokens,
    }


def _read_whole(folder: Path) -> dict[str, Any] | None:
    """The manifest if the folder holds exactly what it says, else None."""
    try:
        manifest = read_json(folder / "manifest.json")
        for name, entry in manifest["files"].items():
            info = (folder / name).stat()
            if info.st_size != entry["n_bytes"]:
                return None
            # hashing 2 GB takes a second, so a file untouched since then is not hashed again; a copy
            # or a restore can set the time of change (mtime) back, that of the inode (ctime) nobody
            if info.st_ctime_ns != entry["ctime_ns"] and sha256_file(folder / name) != entry["sha256"]:
                return None
        if manifest["format_version"] != FORMAT_VERSION or set(manifest["splits"]) != set(SPLITS):
            return None
    except (DataError, KeyError, TypeError, AttributeError, OSError):
        return None
    return manifest


def _prepare(
    folder: Path,
    config: schema.Config,
    corpus: Corpus,
    recipe: dict[str, Any],
    on_progress: OnProgress | None,
) -> dict[str, Any]:
    (folder / "manifest.json").unlink(missing_ok=True)
    remove_strays(folder, alone=True)  # of a preparation that was killed; this one holds the lock
    with write_folder(folder, corpus.n_bytes, merge=True) as work, explain_disk(folder, corpus.n_bytes):
        tokenizer = _make_tokenizer(work, config, corpus)
        dtype = "<u2" if tokenizer.vocab_size <= 2**16 else "<u4"
        _check_space(folder, estimate_disk(config, corpus, np.dtype(dtype).itemsize))
        writer = SplitWriter(work, tokenizer, dtype, config.data)
        write_tokens(writer, config.data, corpus, tokenizer, on_progress)
        counts = writer.close()
        if writer.is_blank:
            raise DataError(f"{corpus.name}: nothing but white space, there is no text to train on")
        names = sorted(path.name for path in work.iterdir())
    files = {}
    for name in names:
        info = (folder / name).stat()
        digest = writer.digests.get(name) or sha256_file(folder / name)
        files[name] = {"n_bytes": info.st_size, "ctime_ns": info.st_ctime_ns, "sha256": digest}
    manifest = {
        "format_version": FORMAT_VERSION,
        "recipe": recipe,
        "dtype": dtype,
        "vocab_size": tokenizer.vocab_size,
        "tokenizer_fingerprint": tokenizer.fingerprint,
        "content_sha256": writer.content_sha256,
        "splits": counts,
        **writer.count_overlap(),
        "files": files,
    }
    write_json(folder / "manifest.json", manifest)
    return manifest


def _make_tokenizer(work: Path, config: schema.Config, corpus: Corpus) -> Tokenizer:
    spec = config.tokenizer
    if spec.kind == "byte":
        return ByteTokenizer()
    if spec.kind == "bpe":
        assert spec.vocab_size is not None  # check_config saw to it
        texts = (d.text for d in split_documents(corpus, config.data) if d.split == "train")
        content = train_bpe(_limit(texts, spec.train_bytes), spec.vocab_size)
        tokenizer = FileTokenizer(content, None, "the trained BPE")
    else:
        path = Path(str(spec.path)) if spec.kind == "file" else find_hub_tokenizer(spec)
        tokenizer = load_tokenizer_file(path, spec.end_token)
    write_text(work / "tokenizer.json", tokenizer.content)
    return tokenizer


def _limit(texts: Any, n_bytes: int) -> Any:
    """The first texts of about so many bytes."""
    n_done = 0
    for text in texts:
        yield text
        n_done += len(text.encode())
        if n_done >= n_bytes:
            return


def write_tokens(
    writer: SplitWriter,
    data: schema.Data,
    corpus: Corpus,
    tokenizer: Tokenizer,
    on_progress: OnProgress | None,
) -> None:
    """Split a corpus into documents and write their tokens, until the splits are full."""
    waiting, n_chars = [], 0
    for document in split_documents(corpus, data, writer.is_full):
        assert document.split is not None
        if writer.is_full(document.split):
            continue
        waiting.append(document)
        n_chars += len(document.text)
        if n_chars >= BATCH_CHARS:
            writer.write(waiting, tokenizer)
            waiting, n_chars = [], 0
            if on_progress:
                on_progress(writer.n_text_bytes, corpus.n_bytes)
    if waiting:
        writer.write(waiting, tokenizer)
        if on_progress:
            on_progress(writer.n_text_bytes, corpus.n_bytes)


def _check_space(folder: Path, n_needed: int | None) -> None:
    """Refuse before the work what the disk cannot hold.

    Raises: ResourceError with the estimate.
    """
    n_free = shutil.disk_usage(folder).free
    if n_needed is not None and n_needed > n_free:
        raise ResourceError(
            f"{folder}: the tokens need about {n_needed:,} bytes, {n_free:,} are free; "
            "set GLU_BENCH_CACHE to a larger disk, or data.max_tokens"
        )
