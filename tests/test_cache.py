"""The cache: where it lies, and that compiled graphs are kept in it for the next process."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from glu_bench import cache
from glu_bench.cache import GRAPHS, find_cache, keep_compiled_graphs, trim_graphs
from tests.conftest import Command, command_env


def test_the_cache_lies_where_the_variable_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("GLU_BENCH_CACHE", str(tmp_path))
    assert find_cache() == tmp_path
    monkeypatch.delenv("GLU_BENCH_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert find_cache() == tmp_path / "xdg" / "glu-bench"


def test_graphs_go_where_the_environment_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(GRAPHS, str(tmp_path / "own"))
    assert keep_compiled_graphs() == tmp_path / "own"
    assert os.environ[GRAPHS] == str(tmp_path / "own")


def test_each_kind_of_processor_has_its_graphs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("GLU_BENCH_CACHE", str(tmp_path))
    found = set()
    for machine in ("x86_64", "x86_64", "aarch64"):
        monkeypatch.setenv(GRAPHS, "restored by monkeypatch")
        monkeypatch.delenv(GRAPHS)
        monkeypatch.setattr(cache.platform, "machine", lambda name=machine: name)
        folder = keep_compiled_graphs()
        assert folder is not None
        assert folder.parent == tmp_path / "compiled"
        assert os.environ[GRAPHS] == str(folder)
        found.add(folder)
    assert len(found) == 2


def test_without_a_place_to_write_torch_takes_its_own(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("GLU_BENCH_CACHE", str(tmp_path / "file"))
    monkeypatch.setenv(GRAPHS, "restored by monkeypatch")
    monkeypatch.delenv(GRAPHS)
    assert keep_compiled_graphs() is None
    assert GRAPHS not in os.environ


def test_training_keeps_its_graphs_in_the_cache(
    call_command: Command, tiny_words: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv(GRAPHS, "restored by monkeypatch")
    monkeypatch.delenv(GRAPHS)
    ended = call_command("train", *tiny_words, "train.steps=1", "--output-dir", str(tmp_path))
    assert ended.code == 0, ended.err
    assert Path(os.environ[GRAPHS]).parent == find_cache() / "compiled"


def write_graph(place: Path, name: str, n_bytes: int, used_at: int) -> Path:
    """A file as torch leaves it in the cache, last read at a moment."""
    path = place / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"\0" * n_bytes)
    os.utime(path, (used_at, 1))
    return path


def test_graphs_used_longest_ago_go_first(tmp_path: Path) -> None:
    lock = write_graph(tmp_path, ".in-use", 5000, 0)
    old = write_graph(tmp_path, "cpu-a/fxgraph/xx/key/graph", 400, 100)
    mixed = (
        write_graph(tmp_path, "cpu-a/ab/old.so", 300, 50),
        write_graph(tmp_path, "cpu-a/ab/new.so", 300, 300),
    )
    other = write_graph(tmp_path, "cpu-b/ab/kernel.so", 200, 200)
    assert trim_graphs(tmp_path, 1200) == 0
    assert trim_graphs(tmp_path, 1199) == 400
    assert not old.parent.exists()
    assert all(path.exists() for path in (lock, *mixed, other))
    assert trim_graphs(tmp_path, 599) == 800  # 200 bytes would not have been enough
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [lock]


def test_a_link_in_the_cache_is_not_followed(tmp_path: Path) -> None:
    kept = write_graph(tmp_path, "elsewhere/file", 100, 0)
    write_graph(tmp_path, "compiled/ab/kernel.so", 100, 0)
    (tmp_path / "compiled" / "ab" / "link").symlink_to(kept)
    (tmp_path / "compiled" / "folder").symlink_to(kept.parent)
    trim_graphs(tmp_path / "compiled", 0)
    assert kept.exists()


START = """
import sys
from glu_bench import cache
cache.GRAPHS_LIMIT_BYTES = 0
cache.keep_compiled_graphs()
print("taken up", flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("inherited", [False, True], ids=["by itself", "named by its parent"])
def test_what_a_live_process_may_use_is_not_deleted(tmp_path: Path, inherited: bool) -> None:
    place = tmp_path / "compiled"
    path = place / "some" / "ab" / "kernel.so"
    env = command_env(GLU_BENCH_CACHE=str(tmp_path), **{GRAPHS: str(place / "some") if inherited else None})

    def start() -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", START],
            env=env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=tmp_path,
        )
        assert process.stdout is not None
        assert process.stdout.readline() == "taken up\n"
        return process

    place.mkdir()
    with start() as first:
        write_graph(place, "some/ab/kernel.so", 100, 0)
        with start() as second:
            assert path.exists()
            second.kill()
        first.kill()  # its lock goes with it
    with start() as third:
        assert not path.exists()
        third.kill()


SMALL = """
import torch
from glu_bench.cache import keep_compiled_graphs
from glu_bench.config import load_config
from glu_bench.lm.compiled import compile_decoder
from glu_bench.lm.decoder import make_decoder
keep_compiled_graphs()
from torch._dynamo.utils import counters
model = make_decoder(load_config(["model=pico", "model.n_layers=1", "model.seq_len=8"]), 17)
tokens = torch.zeros(1, 8, dtype=torch.int64)
with torch.no_grad():
    compile_decoder(model)(tokens, tokens)
print(counters["inductor"]["fxgraph_cache_miss"], counters["inductor"]["fxgraph_cache_hit"])
"""


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("g++"), reason="torch.compile needs a compiler")
def test_a_second_process_compiles_nothing_and_one_after_a_trim_what_is_gone(tmp_path: Path) -> None:
    env = command_env(GLU_BENCH_CACHE=str(tmp_path), TORCHINDUCTOR_CACHE_DIR=None)
    counts = []
    for turn in range(3):
        if turn == 2:  # every second folder goes: graphs without kernels, kernels without graphs
            folders = sorted({path.parent for path in tmp_path.glob("compiled/*/**/*") if path.is_file()})
            for folder in folders[::2]:
                for path in folder.iterdir():
                    if path.is_file():
                        path.unlink()
        done = subprocess.run(
            [sys.executable, "-c", SMALL], env=env, capture_output=True, text=True, timeout=600, check=True
        )
        n_missed, n_hit = map(int, done.stdout.split())
        counts.append((n_missed > 0, n_hit > 0))
    assert counts[0] == (True, False)
    assert counts[1][0] is False
    assert len(counts) == 3  # the last ended well
    assert any(tmp_path.glob("compiled/*/*"))
