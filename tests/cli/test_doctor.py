"""glu-bench doctor: streams and exit codes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

Command = Callable[..., Any]


def test_a_sound_machine(call_command: Command, tmp_path: Path) -> None:
    ended = call_command("doctor", "--output-dir", str(tmp_path))
    assert ended.code == 0
    assert ended.err == ""
    assert "torch" in ended.out
    value = json.loads(call_command("doctor", "--json", "--output-dir", str(tmp_path)).out)
    assert next(iter(value)) == "schema_version"
    assert value["can_train"] is True


def test_a_machine_that_cannot_train(call_command: Command, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    ended = call_command("doctor", "--output-dir", str(tmp_path / "file" / "inner"))
    assert ended.code == 7
    assert ended.err.splitlines() == ["glu-bench: nothing can be trained here: output folder"]
