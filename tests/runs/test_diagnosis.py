"""What doctor says of a run folder, and that the command it names mends it."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from glu_bench.files import hold_lock
from glu_bench.runs.checkpoint import list_checkpoints
from glu_bench.runs.diagnosis import Finding, diagnose_run, find_leftovers
from glu_bench.runs.folder import Run
from tests.conftest import Command, command_env


@pytest.fixture
def copied(finished_run: Run, tmp_path: Path) -> Run:
    """A finished run of 6 steps, with checkpoints of steps 4 and 6, that a test may break."""
    folder = tmp_path / "outputs" / "runs" / finished_run.path.name
    return Run(Path(shutil.copytree(finished_run.path, folder)))


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-2] ^= 1
    path.write_bytes(content)


def break_checkpoints(run: Run, *numbers: int) -> None:
    for number in numbers:
        flip(list_checkpoints(run.checkpoints)[number] / "model.safetensors")


def leave_unfinished(run: Run) -> None:
    (run.path / "result.json").unlink()
    shutil.rmtree(list_checkpoints(run.checkpoints)[-1])


def tear_rows(run: Run) -> None:
    leave_unfinished(run)
    lines = run.metrics_path.read_text().splitlines(keepends=True)
    run.metrics_path.write_text("".join([lines[0], lines[1][:9] + "\n", *lines[2:]]))


def set_aside(run: Run) -> None:
    leave_unfinished(run)
    (last,) = list_checkpoints(run.checkpoints)
    last.rename(last.with_name(f"corrupt-{last.name}"))


def diagnose(run: Run) -> Finding:
    return diagnose_run(run, run.path.parent.parent)


# what is done to the run; what is said; what the command does
BREAKS: dict[str, tuple[Callable[[Run], object], str, str, str]] = {
    "last checkpoint": (lambda run: break_checkpoints(run, -1), "broken", "the manifest", "from step 4"),
    "all checkpoints": (
        lambda run: break_checkpoints(run, 0, -1),
        "broken",
        "the manifest",
        "from the start",
    ),
    "older checkpoint": (lambda run: break_checkpoints(run, 0), "broken", "the manifest", "deletes them"),
    "result": (lambda run: flip(run.path / "result.json"), "broken", "result.json", "from step 6"),
    "windows": (lambda run: flip(run.path / "blocks.safetensors"), "broken", "result.json", "from step 6"),
    "rows": (lambda run: flip(run.metrics_path), "broken", "metrics.jsonl", "from the start"),
    "facts": (lambda run: (run.path / "environment.json").write_text("{"), "broken", "JSON", "from step 6"),
    "no facts": (lambda run: (run.path / "environment.json").unlink(), "broken", "not there", "from step 6"),
    "note": (lambda run: (run.path / "failure.json").write_text("{}"), "broken", "no status", "from step 6"),
    "unfinished": (leave_unfinished, "unfinished", "before its end", "goes on from step 4"),
    "no checkpoint left": (set_aside, "unfinished", "before its first", "from the start: no checkpoint"),
    "torn rows": (tear_rows, "broken", "not a row of JSON", "from the start"),
}


@pytest.mark.parametrize("name", BREAKS)
def test_the_command_that_is_named_mends_the_run(copied: Run, name: str, call_command: Command) -> None:
    before = copied.result()
    assert diagnose(copied).state == "sound"
    break_it, state, said, effect = BREAKS[name]
    break_it(copied)
    found = diagnose(copied)
    assert found.state == state
    assert any(said in problem for problem in found.problems)
    assert effect in found.mends[0].effect
    for command in found.mends[0].command.split(" && "):
        words = shlex.split(command)
        if words[0] == "rm":
            subprocess.run(words, check=True)
        else:
            assert words[0] == "glu-bench"
            ended = call_command(*words[1:], "--quiet")
            assert ended.code == 0, ended.err
    assert diagnose(copied).state == "sound"
    assert copied.result()["parameters_sha256"] == before["parameters_sha256"]
    assert [row["step"] for row in copied.rows()] == [1, 2, 3, 4, 5, 6]


@pytest.mark.slow
def test_the_command_is_one_for_a_shell(copied: Run, tmp_path: Path) -> None:
    moved = tmp_path / "with space"
    (tmp_path / "outputs").rename(moved)
    run = Run(moved / "runs" / copied.path.name)
    break_checkpoints(run, -1)
    shim = tmp_path / "bin" / "glu-bench"
    shim.parent.mkdir()
    shim.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m glu_bench "$@"\n')
    shim.chmod(0o755)
    env = command_env(PATH=f"{shim.parent}:{os.environ['PATH']}")
    subprocess.run(["sh", "-ec", diagnose(run).mends[0].command], env=env, check=True, timeout=120)
    assert diagnose(run).state == "sound"


def test_edited_settings_are_mended_from_the_sweep_that_has_them(
    copied: Run, tiny_words: list[str], call_command: Command
) -> None:
    path = copied.path / "config.yaml"
    path.write_text(path.read_text().replace("seed: 0", "seed: 1"))
    alone = diagnose(copied)
    assert alone.state == "broken"
    assert [mend.command.split()[0:2] for mend in alone.mends] == [["rm", "-r"], ["rm", "-r"]]
    assert "runs import BACKUP" in alone.mends[0].command
    assert "put its settings back" in alone.mends[1].effect
    known = diagnose_run(copied, copied.path.parent.parent, tiny_words)
    gone, command = known.mends[0].command.split(" && ")
    subprocess.run(shlex.split(gone), check=True)
    assert call_command(*shlex.split(command)[1:], "--quiet").code == 0
    assert diagnose(copied).state == "sound"


def test_a_diverged_run_says_so_and_is_not_broken(copied: Run) -> None:
    leave_unfinished(copied)
    (copied.path / "failure.json").write_text('{"status": "diverged", "step": 5, "reason": "loss is nan"}')
    found = diagnose(copied)
    assert found.state == "unfinished"
    assert found.problems == ("diverged at step 5: loss is nan",)
    assert "--restart" in found.mends[0].command


def test_a_run_at_work_is_left_alone(copied: Run) -> None:
    (copied.path / ".environment.json.1.tmp").touch()
    break_checkpoints(copied, -1)
    with hold_lock(copied.path):
        found = diagnose(copied)
        assert found.state == "running"
        assert f"at work: process {os.getpid()}" in found.holds
        assert found.mends == ()
        assert find_leftovers(copied.path) == []


def test_other_instructions_than_the_checkpoints_are_said(
    copied: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    leave_unfinished(copied)
    here = {"cpu_capability": "ELSE", "torch": "0.0", "n_threads": 1}
    monkeypatch.setattr("glu_bench.runs.diagnosis.read_numerics", lambda *_: here)
    mend = diagnose(copied).mends[0]
    assert "--resume-inexact" in mend.command
    assert "is ELSE" in mend.effect


def test_what_processes_left_behind_is_found(copied: Run) -> None:
    gone = subprocess.Popen(["true"])
    gone.wait()
    alive, dead = os.getpid(), gone.pid
    (copied.path / f".result.json.{alive}.tmp").touch()
    (copied.path / f".result.json.{dead}.tmp").touch()
    (copied.checkpoints / f".step-00000006.{dead}.tmp").mkdir()
    (copied.checkpoints / "corrupt-step-00000002").mkdir()
    (copied.path / ".lock.pid").write_text(f"{dead}\n")
    assert [finding.path.name for finding in find_leftovers(copied.path)] == [
        f".result.json.{dead}.tmp",
        f".step-00000006.{dead}.tmp",
        "corrupt-step-00000002",
    ]
    assert f"process {dead} was killed" in diagnose(copied).holds
    assert diagnose(copied).state == "sound"
