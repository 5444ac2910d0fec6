"""glu-bench sample: streams, and says the same as JSON."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

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
