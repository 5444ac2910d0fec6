"""The real loading code of the Hub, against a stand-in of it on loopback."""

from __future__ import annotations

import io
import json
import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from tests.conftest import Command, Ended, make_text
from tests.standin_hub import StandInHub

WIKITEXT_SHA = "b08601e04326c79dfdd32d625aee71d232d685c3"  # the pin of configs/data/wikitext2.yaml
CARD = """---
configs:
- config_name: wikitext-2-raw-v1
  data_files:
  - split: test
    path: wikitext-2-raw-v1/test-*
  - split: train
    path: wikitext-2-raw-v1/train-*
  - split: validation
    path: wikitext-2-raw-v1/validation-*
---
"""
Fetch = Callable[..., Ended]


def parquet(rows: list[str], column: str = "text") -> bytes:
    buffer = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table({column: rows}), buffer)
    return buffer.getvalue()


TRAIN, VAL, TEST = ([f" {line}\n" for line in make_text(n, seed=n).splitlines()] for n in (1500, 90, 80))


@pytest.fixture(scope="module")
def hub() -> Iterator[StandInHub]:
    hub = StandInHub()
    folder = "wikitext-2-raw-v1"
    files = {
        "README.md": CARD.encode(),
        f"{folder}/train-00000-of-00001.parquet": parquet(["", *TRAIN]),
        f"{folder}/validation-00000-of-00001.parquet": parquet(VAL),
        f"{folder}/test-00000-of-00001.parquet": parquet(TEST),
    }
    hub.add("datasets", "Salesforce/wikitext", files, sha=WIKITEXT_SHA)
    stories = [make_text(3, seed=i) for i in range(400)]
    hub.add("datasets", "own/stories", {"README.md": b"", "train.parquet": parquet(stories, "story")})
    hub.add("datasets", "own/gated", {"README.md": b"", "train.parquet": parquet(["x"])}, gated=True)
    noise = [random.Random(i).randbytes(40).hex() for i in range(3000)]
    hub.add("datasets", "own/broken", {"README.md": b"", "train.parquet": parquet(noise)}, cut_after=2000)
    hub.start()
    yield hub
    hub.stop()


@pytest.fixture
def fetch(hub: StandInHub, run_command: Command, tmp_path: Path) -> Fetch:
    """Runs `data prepare` against the stand-in with caches of its own."""

    def run(*words: str, **changes: str | None) -> Ended:
        env: dict[str, str | None] = {
            "HF_ENDPOINT": hub.endpoint,
            "HF_HUB_OFFLINE": None,
            "HF_HOME": str(tmp_path / "hf"),
            "HF_UPDATE_DOWNLOAD_COUNTS": "false",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "GLU_BENCH_CACHE": str(tmp_path / "cache"),
        }
        return run_command("data", "prepare", "--json", *words, env=[*(env | changes).items()])

    return run


def found(ended: Ended) -> dict[str, Any]:
    assert ended.code == 0, ended.err
    parsed: dict[str, Any] = json.loads(ended.out)
    return parsed


def refusal(ended: Ended) -> str:
    assert ended.code == 3, ended.err
    return ended.err.strip().splitlines()[-1]


def test_lines_of_a_dataset_with_splits_of_its_own_follow_one_another(fetch: Fetch) -> None:
    splits = found(fetch("data=wikitext2"))["splits"]
    for split, rows in (("train", TRAIN), ("val", VAL), ("test", TEST)):
        n_bytes = len("".join(rows).encode())
        assert splits[split]["n_bytes"] == n_bytes
        assert splits[split]["n_tokens"] == n_bytes + 1  # one end token a split
        assert splits[split]["n_documents"] == 1


@pytest.mark.slow
def test_a_prepared_dataset_is_never_asked_for_again(fetch: Fetch, hub: StandInHub) -> None:
    first = found(fetch("data=wikitext2"))
    n_requests = len(hub.requests)
    again = found(fetch("data=wikitext2", HF_ENDPOINT="http://127.0.0.1:9", HF_HUB_OFFLINE="1"))
    assert len(hub.requests) == n_requests
    assert again == first


@pytest.mark.slow
def test_a_stream_gives_the_tokens_of_a_download(fetch: Fetch) -> None:
    whole = found(fetch("data=wikitext2"))
    streamed = found(fetch("data=wikitext2", "data.streaming=true"))
    assert streamed["data_fingerprint"] == whole["data_fingerprint"]


@pytest.mark.slow
def test_a_stream_stops_at_its_limit(fetch: Fetch) -> None:
    splits = found(fetch("data=wikitext2", "data.streaming=true", "data.max_tokens=20_000"))["splits"]
    assert 20_000 <= splits["train"]["n_tokens"] < 20_200
    assert 1_000 <= splits["val"]["n_tokens"] < 1_200


@pytest.mark.slow
def test_a_dataset_without_held_out_splits_is_split_by_content(fetch: Fetch) -> None:
    splits = found(fetch("data=hub", "data.path=own/stories", "data.column=story"))["splits"]
    assert sum(entry["n_documents"] for entry in splits.values()) == 400
    assert all(entry["n_documents"] > 5 for entry in splits.values())


def test_rows_of_held_out_splits_that_are_in_train_are_counted(hub: StandInHub, fetch: Fetch) -> None:
    stories = [make_text(3, seed=i) for i in range(60)]
    hub.add(
        "datasets",
        "own/leaky",
        {
            "README.md": b"",
            "data/train.parquet": parquet(stories[:50]),
            "data/validation.parquet": parquet(stories[45:]),
            "data/test.parquet": parquet(stories[50:]),
        },
    )
    words = ("data.val_split=validation", "data.test_split=test")
    assert found(fetch("data=hub", "data.path=own/leaky", *words))["overlap"] == {"val": 5, "test": 0}


@pytest.mark.slow
def test_what_is_not_there_is_named(fetch: Fetch) -> None:
    assert "own/nosuch: not on the Hub" in refusal(fetch("data=hub", "data.path=own/nosuch"))
    assert "no column 'text'; there are story" in refusal(fetch("data=hub", "data.path=own/stories"))
    message = refusal(fetch("data=wikitext2", "data.val_split=valid"))
    assert "no split 'valid'; there are" in message
    assert "did you mean 'validation'" in message
    assert "Revision 'nosuch'" in refusal(fetch("data=wikitext2", "data.revision=nosuch"))


@pytest.mark.slow
def test_a_gated_dataset_says_what_to_do(fetch: Fetch) -> None:
    assert "accept its terms" in refusal(fetch("data=hub", "data.path=own/gated"))


@pytest.mark.slow
def test_a_connection_that_breaks_off_half_way_is_said_and_leaves_no_cache(
    fetch: Fetch, tmp_path: Path
) -> None:
    message = refusal(fetch("data=hub", "data.path=own/broken"))
    assert "broke off" in message
    left = {path.name for path in (tmp_path / "cache").rglob("*") if path.is_file()}
    assert left <= {".lock"}


@pytest.mark.slow
def test_a_tokenizer_of_the_hub_is_fetched_once(
    hub: StandInHub, fetch: Fetch, text_path: Path, tmp_path: Path
) -> None:
    words = ["data=text", f"data.files={text_path}"]
    trained = found(fetch(*words, "tokenizer=bpe", "tokenizer.vocab_size=400"))
    content = (Path(trained["folder"]) / "tokenizer.json").read_bytes()
    hub.add("models", "own/tokens", {"tokenizer.json": content})
    fetched = found(fetch(*words, "tokenizer=hub", "tokenizer.path=own/tokens"))
    assert fetched["splits"] == trained["splits"]
    again = fetch(
        *words, "tokenizer=hub", "tokenizer.path=own/tokens", HF_HUB_OFFLINE="1", HF_HOME=os.devnull
    )
    assert found(again) == fetched
