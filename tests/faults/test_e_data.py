"""Group E: texts, tokenizers and checkpoints that cannot be used as they are."""

from __future__ import annotations

import gzip
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from glu_bench.data.tokenizers import train_bpe
from glu_bench.errors import InterruptedRunError
from glu_bench.files import sha256_bytes, sha256_file
from glu_bench.runs.folder import Run
from tests.conftest import Command, Ended, StopAt, Train, command_line, make_text
from tests.data.test_hub import parquet
from tests.faults.conftest import Processes, TinyTrain, check_refused, find_run, snapshot, tiny_command
from tests.standin_hub import StandInHub

SEQ_LEN = 16  # of the tiny run


Refused = Callable[..., None]


@pytest.fixture
def check_text(call_command: Command, tiny_words: list[str], tmp_path: Path) -> Refused:
    """Trains in this process on a text that cannot be used, and looks at how it is refused."""

    def check(path: Path, *parts: str) -> None:
        words = tiny_command(tiny_words, f"data.files={path}", "--output-dir", str(tmp_path / "outputs"))
        check_refused(call_command(*words), 3, *parts)
        assert not (tmp_path / "outputs").exists()

    return check


def make_documents(folder: Path, n_tokens: int) -> Path:
    """Three files whose split for training is one of them, of so many tokens with the end token."""
    # the least digests are held out, and a file is a document here
    texts = [f"{number:04d}".ljust(40) for number in range(200)]
    held_out = sorted(texts, key=lambda text: sha256_bytes(text.encode()))[:2]
    trained = max(
        (f"{number:04d}".ljust(n_tokens - 1) for number in range(200)),
        key=lambda text: sha256_bytes(text.encode()),
    )
    folder.mkdir()
    for name, text in zip("abc", [*held_out, trained], strict=True):
        (folder / name).write_text(text)
    return folder


@pytest.mark.slow
def test_e5_a_text_of_no_use(
    tiny_train: TinyTrain, processes: Processes, check_text: Refused, tmp_path: Path
) -> None:
    """A text that is missing, a folder without a file, empty, white space, one character, or as long as a
    block; a FIFO and /dev/zero.

    Exit 3 with the file or the sizes, at once also where reading would never end; no run folder.
    """
    os.mkfifo(tmp_path / "pipe")
    check_refused(tiny_train(f"data.files={tmp_path / 'pipe'}"), 3, "pipe: not a regular file")
    ended = processes.run("data", "prepare", "-q", "data=text", "data.files=/dev/zero")
    check_refused(ended, 3, "/dev/zero: not a regular file")
    (tmp_path / "folder" / "below").mkdir(parents=True)
    for name, content in {"empty": "", "white": " \n\t\n", "long-white": " \n" * 5000, "one": "x"}.items():
        (tmp_path / name).write_text(content)
    check_text(tmp_path / "nosuch", "nosuch: no such file")
    check_text(tmp_path / "folder", "folder: no such file, no file in it")
    check_text(tmp_path / "empty", "empty: empty")
    check_text(tmp_path / "white", "white: nothing but white space")
    check_text(tmp_path / "long-white", "long-white: nothing but white space")
    check_text(tmp_path / "one", "the train split has 2 tokens, one block needs 17")
    folder = make_documents(tmp_path / "block", SEQ_LEN)
    check_text(folder, "the train split has 16 tokens, one block needs 17")
    assert not (tmp_path / "outputs").exists()


def test_e5_the_smallest_text(
    call_command: Command, tiny_words: list[str], check_text: Refused, tmp_path: Path
) -> None:
    """A text whose training split is one token longer than a block; one of two documents.

    The first trains, exit 0; the second ends with 3 and says how many documents of how many bytes.
    """
    folder = make_documents(tmp_path / "in", SEQ_LEN + 1)
    words = tiny_command(
        tiny_words, f"data.files={folder}", "--output-dir", str(tmp_path / "works"), "--json"
    )
    ended = call_command(*words)
    assert ended.code == 0, ended.err
    splits = Run(find_run(tmp_path / "works")).environment()["splits"]
    assert splits["train"]["n_tokens"] == SEQ_LEN + 1
    (folder / "a").unlink()
    check_text(folder, "the text is 2 documents of 56 bytes, too few different ones to hold any out")


@pytest.mark.slow
# the JSON reader of datasets leaves its file to the garbage collector when it gives up
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_e6_bytes_that_are_no_text(
    tiny_train: TinyTrain,
    call_command: Command,
    check_text: Refused,
    text_path: Path,
    tmp_path: Path,
) -> None:
    """Latin-1; gzip under a name in .txt; a NUL; a lone surrogate, in a text and escaped in JSON lines;
    CRLF instead of LF.

    Exit 3 with the place of the first such byte or the row, no run folder; line ends are kept as
    they are, so another fingerprint.
    """
    path = tmp_path / "a.txt"
    path.write_bytes(text_path.read_bytes() + "naïve".encode("latin-1"))
    offset = f"byte 0xef at offset {len(text_path.read_bytes()) + 2:,}"
    check_refused(tiny_train(f"data.files={path}"), 3, str(path), "not UTF-8", offset)
    path.write_bytes(gzip.compress(text_path.read_bytes()))
    check_text(path, str(path), "a NUL at byte 3")  # the flags of its header
    path.write_bytes(b"text\0more")
    check_text(path, "binary, a NUL at byte 4")
    path.write_bytes("a\ud800".encode("utf-8", errors="surrogatepass"))
    check_text(path, "not UTF-8, byte 0xed at offset 1")
    rows = tmp_path / "a.jsonl"
    rows.write_text('{"text": "whole"}\n{"text": "a\\ud800"}\n')
    check_text(rows, str(rows), "surrogate", "in row 1")
    fingerprints = set()
    for ends in ("\n", "\r\n"):
        path.write_bytes(text_path.read_text().replace("\n", ends).encode())
        ended = call_command("data", "show", "data=text", f"data.files={path}", "--json", "-q")
        found = json.loads(ended.out)
        assert sum(split["n_bytes"] for split in found["splits"].values()) == path.stat().st_size
        fingerprints.add(found["data_fingerprint"])
    assert len(fingerprints) == 2


def call_hub(processes: Processes, words: list[str], folder: Path, endpoint: str, **env: Any) -> Ended:
    """A command that asks a Hub elsewhere, with caches of its own."""
    own = {
        "HF_ENDPOINT": endpoint,
        "HF_HUB_OFFLINE": None,
        "HF_HOME": str(folder / "hf"),
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_UPDATE_DOWNLOAD_COUNTS": "false",
        "GLU_BENCH_CACHE": str(folder / "cache"),
    }
    return processes.run(*words, env=own | env)


@pytest.mark.slow
def test_e7_validation_on_training_text(
    processes: Processes, tiny_train: TinyTrain, tiny_words: list[str], text_path: Path, tmp_path: Path
) -> None:
    """A dataset of the Hub whose validation split is its training split; a text given twice as files.

    The first trains with a warning that validation overlaps training, and environment.json says by
    how many bytes; equal texts in files share a split, so nothing overlaps.
    """
    hub = StandInHub()
    rows = [line for line in make_text(300).splitlines() if line]
    files = {"README.md": b"", "data/train.parquet": parquet(rows), "data/validation.parquet": parquet(rows)}
    files["data/test.parquet"] = parquet(make_text(60, seed=1).splitlines())
    hub.add("datasets", "own/leaky", files)
    hub.start()
    try:
        words = [
            word for word in tiny_command(tiny_words) if not word.startswith("data") and word != "--quiet"
        ]
        words += ["data=hub", "data.path=own/leaky", "data.val_split=validation", "data.test_split=test"]
        ended = call_hub(processes, words, tmp_path, hub.endpoint)
    finally:
        hub.stop()
    assert ended.code == 0, ended.err
    assert "validation overlaps training: 100.0% of its bytes" in ended.err
    assert "test overlaps" not in ended.err
    n_bytes = sum(len(row.encode()) for row in rows)
    environment = Run(find_run(tmp_path / "outputs")).environment()
    assert environment["overlap_bytes"] == {"val": n_bytes, "test": 0}

    (tmp_path / "again.txt").write_bytes(text_path.read_bytes())
    twice = f"data.files=['{text_path}','{tmp_path / 'again.txt'}']"
    command = [word for word in tiny_command(tiny_words, twice, "--output-dir", "twice") if word != "--quiet"]
    ended = processes.run(*command)
    assert ended.code == 0, ended.err
    assert "overlaps" not in ended.err
    assert "overlap_bytes" not in Run(find_run(tmp_path / "twice")).environment()


BPE = ("tokenizer=bpe", "tokenizer.vocab_size=300")


@pytest.mark.slow
def test_e8_a_tokenizer_that_was_swapped(
    train: Train, tiny_train: TinyTrain, call_command: Command, text_path: Path, tmp_path: Path
) -> None:
    """A stopped run's tokenizer.json is swapped for another of as many ids, and it is resumed and sampled.

    Exit 3 that names both, before any step; nothing is overwritten.
    """
    with pytest.raises(InterruptedRunError):
        train(*BPE, output_dir=tmp_path / "outputs", stop=StopAt(3))
    folder = find_run(tmp_path / "outputs")
    (folder / "tokenizer.json").write_text(train_bpe(iter([make_text(50, seed=5)]), 300))
    before = snapshot(folder)
    ended = tiny_train(*BPE)
    said = f"{folder.name}/tokenizer.json: is not the tokenizer the run was made with, which is"
    check_refused(ended, 3, said, os.environ["GLU_BENCH_CACHE"])
    ended = call_command("sample", str(folder))
    check_refused(ended, 3, f"{folder / 'tokenizer.json'}: 300 ids, fingerprint", "trained with 300 ids")
    after = snapshot(folder)
    assert {name: after.get(name) for name in before} == before


@pytest.mark.slow
def test_e8_a_tokenizer_of_another_size(
    train: Train, processes: Processes, call_command: Command, text_path: Path, tmp_path: Path
) -> None:
    """The tokenizer file that a finished run was trained with gives way to one of as many ids, and of
    fewer; a model of 257 ids is claimed where the tokenizer has 300.

    `eval` ends with 3 and names both sizes and fingerprints; nothing is measured.
    """
    path = tmp_path / "tokens.json"
    path.write_text(train_bpe(iter([text_path.read_text()]), 300))
    words = ("tokenizer=file", f"tokenizer.path={path}", "train.steps=1")
    train(*words, output_dir=tmp_path / "outputs")
    folder = find_run(tmp_path / "outputs")
    path.write_text(train_bpe(iter([make_text(50, seed=5)]), 300))
    said = f"{folder.name}: the text's tokenizer: "
    ended = processes.run("eval", str(folder), "-q")
    check_refused(ended, 3, f"{said}300 ids, fingerprint", "the run was trained with 300 ids")
    path.write_text(train_bpe(iter([make_text(50, seed=5)]), 280))
    ended = call_command("eval", str(folder), "-q")
    check_refused(ended, 3, f"{said}280 ids, fingerprint", "the run was trained with 300 ids")
    path.write_bytes((folder / "tokenizer.json").read_bytes())
    assert call_command("eval", str(folder), "-q").code == 0
    facts = json.loads((folder / "environment.json").read_text())
    (folder / "environment.json").write_text(json.dumps(facts | {"vocab_size": 257}))
    ended = call_command("eval", str(folder), "-q")
    own = f"{folder / 'tokenizer.json'}: "
    check_refused(ended, 3, f"{own}300 ids, fingerprint", "the run was trained with 257 ids")


Tensors = dict[str, torch.Tensor]


def forge(checkpoint: Path, tensors: Tensors) -> None:
    """Other weights in a checkpoint, and a manifest that agrees with them."""
    save_file(tensors, checkpoint / "model.safetensors")
    manifest = json.loads((checkpoint / "manifest.json").read_text())
    manifest["sha256"]["model.safetensors"] = sha256_file(checkpoint / "model.safetensors")
    (checkpoint / "manifest.json").write_text(json.dumps(manifest))


def test_e9_a_checkpoint_that_does_not_fit(
    finished_run: Run, train: Train, call_command: Command, tmp_path: Path
) -> None:
    """`eval` on a checkpoint of another variant, of another width, of a future format version, with a
    tensor missing, one too many, or in bf16; checksums agree with all of it.

    Exit 3, what is there and what was expected both named; nothing is loaded in part.
    """
    folder = shutil.copytree(finished_run.path, tmp_path / finished_run.path.name)
    checkpoint = folder / "checkpoints" / "step-00000006"
    own = load_file(checkpoint / "model.safetensors")
    manifest = json.loads((checkpoint / "manifest.json").read_text())
    name = "blocks.1.ffn.down.weight"
    assert name in own, sorted(own)

    def check(*parts: str) -> None:
        check_refused(call_command("eval", str(folder), "-q"), 3, str(checkpoint), *parts)

    forge(checkpoint, own | {name: own[name].bfloat16()})
    check(name, "torch.bfloat16 in the checkpoint", "torch.float32 in the model")
    forge(checkpoint, {key: tensor for key, tensor in own.items() if key != name})
    check(f"{name} is missing from the checkpoint")
    forge(checkpoint, own | {"blocks.9.extra": torch.zeros(3)})
    check("blocks.9.extra is not in the model but in the checkpoint")
    forge(checkpoint, own | {name: own[name][:, :-1].contiguous()})
    check(name, "(48, 127)", "(48, 128)")
    train("variant=gelu", output_dir=tmp_path / "other")
    other = find_run(tmp_path / "other")
    forge(checkpoint, load_file(other / "checkpoints" / "step-00000006" / "model.safetensors"))
    check("in the checkpoint", "in the model")
    shutil.rmtree(checkpoint)
    shutil.copytree(other / "checkpoints" / "step-00000006", checkpoint)
    check(f"belongs to run {other.name}, not to {folder.name}")
    forge(checkpoint, own)
    (checkpoint / "manifest.json").write_text(json.dumps(manifest | {"format_version": 2}))
    check("format version 2, this glu-bench reads 1")


@pytest.mark.slow
def test_e15_no_connection(
    processes: Processes, tiny_words: list[str], text_path: Path, tmp_path: Path
) -> None:
    """A dataset and a tokenizer of the Hub that no cache holds, with HF_HUB_OFFLINE=1 and no network.

    Exit 3 without a wait, and that it is offline and not in the cache; nothing half-made is kept.
    """
    if processes.run(command=["unshare", "-rn", "true"]).code != 0:
        pytest.skip("no namespace without a network can be made here")
    for words, said in (
        (("data=hub", "data.path=own/nosuch"), "own/nosuch: offline (HF_HUB_OFFLINE) and not in the cache"),
        (
            (*tiny_words, "tokenizer=hub", "tokenizer.path=own/tokens"),
            "tokenizer.path=own/tokens: offline (HF_HUB_OFFLINE) and not in the cache",
        ),
    ):
        env = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "hf")}
        env["GLU_BENCH_CACHE"] = str(tmp_path / "cache")
        command = ["unshare", "-rn", *command_line("train", "--quiet", *words)]
        check_refused(processes.run(command=command, env=env), 3, said)
    assert not (tmp_path / "outputs").exists()
    assert not [path for path in tmp_path.rglob("*") if path.suffix == ".bin" or path.name == "manifest.json"]
