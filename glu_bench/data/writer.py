"""The three files of a token set while they are written, and what is counted on the way."""

from __future__ import annotations

import hashlib
import os
from array import array
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from glu_bench import schema
from glu_bench.data.corpora import Document
from glu_bench.data.splits import SPLITS
from glu_bench.data.tokenizers import Tokenizer


class SplitWriter:
    """Appends documents' tokens to <split>.bin; memory grows by 16 bytes a document."""

    def __init__(self, folder: Path, tokenizer: Tokenizer, dtype: str, data: schema.Data) -> None:
        self.dtype = dtype
        self.data = data
        self.end = np.array([tokenizer.end_id], dtype=dtype).tobytes()
        self.files = {split: (folder / f"{split}.bin").open("wb") for split in SPLITS}
        self.hashes = {split: hashlib.sha256() for split in SPLITS}
        self.content = hashlib.sha256()
        self.counts: dict[str, dict[str, Any]] = {
            split: {"n_documents": 0, "n_bytes": 0, "n_tokens": 0, "n_first_bytes": 0} for split in SPLITS
        }
        self.digests: dict[str, str] = {}
        self.document_hashes = {split: array("Q") for split in SPLITS}
        self.document_bytes = {split: array("Q") for split in SPLITS}
        self.is_blank = True  # nothing but white space so far

    @property
    def n_text_bytes(self) -> int:
        """Bytes of text written so far."""
        return sum(int(count["n_bytes"]) for count in self.counts.values())

    @property
    def content_sha256(self) -> str:
        """Digest of all documents with their splits, in order."""
        return self.content.hexdigest()

    def is_full(self, split: str) -> bool:
        """Whether a split has its share of data.max_tokens; the document that reaches it is kept whole."""
        data = self.data
        if data.max_tokens is None:
            return False
        share = {"train": 1.0, "val": data.val_share, "test": data.test_share}[split]
        return bool(self.counts[split]["n_tokens"] >= share * data.max_tokens)

    def write(self, documents: Sequence[Document], tokenizer: Tokenizer) -> None:
        """Tokenise and append some documents."""
        for document, ids in zip(documents, tokenizer.encode([d.text for d in documents]), strict=True):
            split = str(document.split)
            if self.is_full(split):
                continue
            content = document.text.encode("utf-8")
            digest = hashlib.sha256(content).digest()
            self.content.update(f"{split} {document.ends} ".encode() + digest)
            self.document_hashes[split].append(int.from_bytes(digest[:8], "big"))
            self.document_bytes[split].append(len(content))
            self.is_blank = self.is_blank and (not document.text or document.text.isspace())
            tokens = ids.astype(self.dtype).tobytes() + (self.end if document.ends else b"")
            self.files[split].write(tokens)
            self.hashes[split].update(tokens)
            count = self.counts[split]
            if count["n_tokens"] == 0:
                count["n_first_bytes"] = tokenizer.count_first_bytes(document.text)
            count["n_documents"] += document.ends
            count["n_bytes"] += len(content)
            count["n_tokens"] += len(ids) + document.ends

    def close(self) -> dict[str, dict[str, Any]]:
        """Make the files durable; what each split holds."""
        for split, file in self.files.items():
            file.flush()
            os.fsync(file.fileno())
            file.close()
            self.digests[f"{split}.bin"] = self.hashes[split].hexdigest()
        return self.counts

    def count_overlap(self) -> dict[str, dict[str, int]]:
        """Documents (or rows) of val and test whose very text is in train as well, and their bytes."""
        train = np.unique(np.array(self.document_hashes["train"], dtype=np.uint64))
        counts: dict[str, dict[str, int]] = {"overlap": {}, "overlap_bytes": {}}
        for split in ("val", "test"):
            again = np.isin(np.array(self.document_hashes[split], dtype=np.uint64), train)
            n_bytes = np.array(self.document_bytes[split], dtype=np.uint64)[again].sum()
            counts["overlap"][split] = int(again.sum())
            counts["overlap_bytes"][split] = int(n_bytes)
        return counts
