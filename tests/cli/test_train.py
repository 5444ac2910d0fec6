"""glu-bench train --deterministic: the same bits twice, and a record of what they depend on."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from glu_bench.runs.folder import Run
from tests.conftest import Command, command_env, command_line

SETTINGS = ("train.steps=4", "model.dropout=0.1", "--output-dir")


def read_fact(facts: dict[str, Any], dotted: str) -> Any:
    for name in dotted.split("."):
        facts = facts[name]
    return facts


@pytest.fixture
def free_bits(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], None]]:
    """Sets torch free again, now and after the test."""
    for name in ("CUBLAS_WORKSPACE_CONFIG", "TORCHINDUCTOR_DETERMINISTIC"):
        monkeypatch.setenv(name, "restored by monkeypatch")
        monkeypatch.delenv(name)
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", torch.backends.cudnn.benchmark)
    yield lambda: torch.use_deterministic_algorithms(False)
    torch.use_deterministic_algorithms(False)


def test_deterministic_gives_the_same_bits_twice_and_those_of_a_plain_run(
    call_command: Command, free_bits: Callable[[], None], tiny_words: list[str], tmp_path: Path
) -> None:
    def train(*words: str) -> Any:
        free_bits()
        ended = call_command(*words)
        assert ended.code == 0, ended.err
        return json.loads(ended.out)

    check_bits(train, tiny_words, tmp_path, "false")


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("g++"), reason="torch.compile needs a compiler")
def test_compiled_processes_give_the_same_bits_too(tiny_words: list[str], tmp_path: Path) -> None:
    def train(*words: str) -> Any:
        command = command_line(*words)
        ended = subprocess.run(command, env=command_env(), capture_output=True, timeout=600, check=False)
        assert ended.returncode == 0, ended.stderr
        return json.loads(ended.stdout)

    check_bits(train, tiny_words, tmp_path, "true")


def check_bits(train: Callable[..., Any], tiny_words: list[str], tmp_path: Path, compiled: str) -> None:
    """Two runs with --deterministic and one without: the same bits, and only the first two say so."""
    records = []
    for name, options in (("a", ["--deterministic"]), ("b", ["--deterministic"]), ("c", [])):
        words = [word for word in tiny_words if not word.startswith(("train.steps=", "train.compile="))]
        words += [f"train.compile={compiled}", *SETTINGS, str(tmp_path / name), *options]
        records.append(train("train", *words, "--json", "--quiet"))
    once, again, plain = records
    assert once["parameters_sha256"] == again["parameters_sha256"]
    assert once["test_loss_nats"] == again["test_loss_nats"]
    assert plain["run_id"] == once["run_id"]
    assert plain["parameters_sha256"] == once["parameters_sha256"]  # on a CPU
    facts = Run(Path(once["run_dir"])).environment()
    assert facts["deterministic"] is True
    assert {"n_threads", "cpu_capability", "versions.torch"} <= set(facts["bits_depend_on"])
    assert ("compiler" in facts["bits_depend_on"]) is (compiled == "true")
    assert all(read_fact(facts, dotted) is not None for dotted in facts["bits_depend_on"])
    assert Run(Path(plain["run_dir"])).environment()["deterministic"] is False


PLUGIN = """
import torch

def put(x):
    y = x.clone()
    y.detach().put_(torch.tensor([0]), torch.tensor([0.5], dtype=y.dtype))
    return y

ACTIVATIONS = {"put": put}
"""


@pytest.mark.usefixtures("free_bits")
def test_what_has_no_deterministic_form_is_refused_in_one_line(
    call_command: Command, tiny_words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "put.py").write_text(PLUGIN, encoding="utf-8")
    words = ["train", *tiny_words, "--plugin", "put.py", "variant=relu", "variant.activation=put", "--quiet"]
    ended = call_command(*words, "--deterministic", "variant.name=put")
    assert ended.code == 7
    assert len(ended.err.splitlines()) == 1
    assert "torch has no algorithm for put_ here" in ended.err
