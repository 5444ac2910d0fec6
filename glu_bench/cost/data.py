"""What text costs: tokenising speed and memory, and whether batches ever keep training waiting.

Each preparation runs in a process of its own, so that its peak memory is its own.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from glu_bench.config import load_config
from glu_bench.cost.alone import run_alone
from glu_bench.cost.row import Row
from glu_bench.data.corpora import find_corpus
from glu_bench.data.documents import list_stdlib
from glu_bench.data.order import make_order
from glu_bench.data.prepared import prepare_tokens, write_tokens
from glu_bench.data.splits import split_documents
from glu_bench.host import read_peak_rss_bytes

MB = 10**6
BPE_VOCAB_SIZE = 2048
BATCH_CHARS = 2**20


def bench_data(small_mb: int = 10, large_mb: int = 1000) -> list[Row]:
    """Rows: byte tokenising at two sizes (speed, peak memory), BPE against its library, batch supply.

    The peer is the tokenizers library alone on the same text and cores.
    """
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        texts = {size: _write_text(Path(folder) / f"{size}.txt", size * MB) for size in (small_mb, large_mb)}
        for size, path in texts.items():
            elapsed_s, peak_bytes = run_alone(_prepare, path, folder, ())
            speed = path.stat().st_size / MB / elapsed_s
            rows.append(Row(name=f"bytes, {size} MB of text", ours=speed, unit="MB/s"))
            rows.append(Row(name=f"peak memory, {size} MB of text", ours=peak_bytes / MB, unit="MB"))
        path = texts[small_mb]
        words = ("tokenizer=bpe", f"tokenizer.vocab_size={BPE_VOCAB_SIZE}")
        ours_s, peer_s = run_alone(_encode_bpe, path, folder, words)
        size_mb = path.stat().st_size / MB
        rows.append(
            Row(
                name=f"bpe, {small_mb} MB of text",
                ours=size_mb / ours_s,
                peer=size_mb / peer_s,
                ratio=peer_s / ours_s,
                unit="MB/s",
            )
        )
        rows.append(Row(name="a batch of 16 x 256", ours=1e3 * _time_batch(path, folder), unit="ms"))
    return rows


def _write_text(path: Path, n_bytes: int) -> Path:
    """The standard library over and over, each copy marked, so that no two documents are equal."""
    source = b"".join(file.read_bytes() for file in list_stdlib())
    with path.open("wb") as file:
        number = 0
        while file.tell() < n_bytes:
            number += 1
            file.write(source.replace(b"\n\n", b"\n# copy %d\n" % number)[: n_bytes - file.tell() + 4096])
    return path


def _prepare(path: Path, folder: str, words: tuple[str, ...]) -> tuple[float, float]:
    """Seconds of a whole preparation, imports left out, and its process's peak memory in bytes."""
    os.environ["GLU_BENCH_CACHE"] = f"{folder}/cache"
    config = load_config(["data=text", f"data.files={path}", *words])
    next(iter(find_corpus(config.data).documents()))  # imports take a second or two, whatever the text
    began = time.perf_counter()
    prepare_tokens(config)
    elapsed_s = time.perf_counter() - began
    return elapsed_s, read_peak_rss_bytes()


def _encode_bpe(path: Path, folder: str, words: tuple[str, ...]) -> tuple[float, float]:
    """Seconds in which we tokenise and write a text, the tokenizer being trained, and the library's alone."""
    import tokenizers

    from glu_bench.data.tokenizers import FileTokenizer
    from glu_bench.data.writer import SplitWriter

    os.environ["GLU_BENCH_CACHE"] = f"{folder}/cache"
    config = load_config(["data=text", f"data.files={path}", *words])
    tokens = prepare_tokens(config)
    corpus = find_corpus(config.data)
    tokenizer = tokens.tokenizer
    assert isinstance(tokenizer, FileTokenizer)
    began = time.perf_counter()
    with tempfile.TemporaryDirectory(dir=folder) as work:
        writer = SplitWriter(Path(work), tokenizer, "<u2", config.data)
        write_tokens(writer, config.data, corpus, tokenizer, None)
        writer.close()
    ours_s = time.perf_counter() - began
    library = tokenizers.Tokenizer.from_str(tokenizer.content)
    batches = list(_batch(document.text for document in split_documents(corpus, config.data)))
    began = time.perf_counter()
    for batch in batches:
        library.encode_batch_fast(batch, add_special_tokens=False)
    return ours_s, time.perf_counter() - began


def _batch(texts: Iterator[str]) -> Iterator[list[str]]:
    waiting, n_chars = [], 0
    for text in texts:
        waiting.append(text)
        n_chars += len(text)
        if n_chars >= BATCH_CHARS:
            yield waiting
            waiting, n_chars = [], 0
    if waiting:
        yield waiting


def _time_batch(path: Path, folder: str, n_batches: int = 500) -> float:
    """Seconds to gather one batch from the token file."""
    os.environ["GLU_BENCH_CACHE"] = f"{folder}/cache"
    tokens = prepare_tokens(load_config(["data=text", f"data.files={path}"]))
    order = make_order(tokens.stream("train"), seq_len=256, batch_size=16, seed=0)
    order.batch(0)
    began = time.perf_counter()
    for step in range(n_batches):
        order.batch(step)
    return (time.perf_counter() - began) / n_batches
