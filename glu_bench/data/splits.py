"""Which documents are held out: by a hash of their content, unless the dataset says itself."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from glu_bench import schema
from glu_bench.data.corpora import Corpus, Document, FileCorpus, IsFull, never_full
from glu_bench.files import sha256_bytes

SPLITS = ("train", "val", "test")
SMALL_BYTES = 64 * 2**20  # below, all documents are looked at first, so that no split stays empty


def choose_split(digest: str, val_share: float, test_share: float) -> str:
    """The split of a document, from the sha256 of its content: equal documents never straddle two."""
    position = int(digest[:16], 16) / 2**64
    if position < test_share:
        return "test"
    return "val" if position < test_share + val_share else "train"


def split_documents(corpus: Corpus, data: schema.Data, is_full: IsFull = never_full) -> Iterator[Document]:
    """All documents of a corpus, each with its split; of a split that is full no more is read.

    A small text may hash to an empty split; then its documents with the least digests become
    test and val, again a function of content alone.
    """
    ranked = _rank_small(corpus, data)
    for number, document in enumerate(corpus.documents(is_full)):
        if document.split is not None:
            yield document
        elif ranked is not None:
            yield dataclasses.replace(document, split=ranked[number])
        else:
            split = choose_split(sha256_bytes(document.text.encode()), data.val_share, data.test_share)
            # a split of the dataset's own takes the place of the hashed one
            own = (split == "val" and data.val_split) or (split == "test" and data.test_split)
            yield dataclasses.replace(document, split="train" if own else split)


def _rank_small(corpus: Corpus, data: schema.Data) -> list[str] | None:
    if not isinstance(corpus, FileCorpus) or corpus.n_bytes > SMALL_BYTES:
        return None  # over 256 documents: an empty split has a chance below 1e-5
    digests = [sha256_bytes(document.text.encode()) for document in corpus.documents()]
    splits = [choose_split(digest, data.val_share, data.test_share) for digest in digests]
    if set(splits) == set(SPLITS) or len(splits) < len(SPLITS):
        return splits
    distinct = sorted(set(digests))  # equal documents move together
    n_test = max(1, round(data.test_share * len(distinct)))
    n_val = max(1, round(data.val_share * len(distinct)))
    held_out = dict.fromkeys(distinct[:n_test], "test") | dict.fromkeys(
        distinct[n_test : n_test + n_val], "val"
    )
    return [held_out.get(digest, "train") for digest in digests]
