"""glu-bench sample: streams, and says the same as JSON."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from glu_bench.runs.folder import Run

Command = Callable[..., Any]


def test_text_and_json_agree(call_command: Command, finished_run: Run) -> None:
    words = ("sample", str(finished_run.path), "--prompt", "ab", "--tokens", "30", "--top-p", "0.9")
    value = json.loads(call_command(*words, "--json").out)
    assert value["tokens"] == 30
    shown = "".join(c if c.isprintable() or c in "\n\t" else "�" for c in "ab" + value["text"])
    assert call_command(*words).out == shown + "\n"


def test_a_probability_above_1_is_refused(call_command: Command, finished_run: Run) -> None:
    assert call_command("sample", str(finished_run.path), "--top-p", "1.5").code == 2


def test_the_command_that_train_names_finds_the_run(
    call_command: Command, tiny_words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text("def half(x):\n    return x / 2\n\nACTIVATIONS = {'half': half}\n")
    words = ["train", *tiny_words, "--plugin", "mine.py", "variant=relu", "variant.activation=half"]
    ended = call_command(*words, "variant.name=halved", "--output-dir", "elsewhere")
    assert ended.code == 0, ended.err
    (command,) = re.findall(r"^read from it: glu-bench (.*)$", ended.err, re.MULTILINE)
    sampled = call_command(*shlex.split(command), "--tokens", "4")
    assert sampled.code == 0, sampled.err
