"""The cache: where it lies, and that compiled graphs are kept in it for the next process."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from glu_bench import cache
from glu_bench.cache import GRAPHS, find_cache, keep_compiled_graphs
from tests.conftest import Command, command_env


def test_the_cache_lies_where_the_variable_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("GLU_BENCH_CACHE", str(tmp_path))
    assert find_cache() == tmp_path
    monkeypatch.delenv("GLU_BENCH_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert find_cache().name == "glu-bench"


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
def test_a_second_process_compiles_nothing(tmp_path: Path) -> None:
    env = command_env(GLU_BENCH_CACHE=str(tmp_path), TORCHINDUCTOR_CACHE_DIR=None)
    counts = []
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-c", SMALL], env=env, capture_output=True, text=True, timeout=300, check=True
        )
        n_missed, n_hit = map(int, done.stdout.split())
        counts.append((n_missed > 0, n_hit > 0))
    assert counts[0] == (True, False)
    assert counts[1][0] is False
    assert any(tmp_path.glob("compiled/*/*"))
