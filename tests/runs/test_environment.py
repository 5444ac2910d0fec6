"""The commit that a run's record names."""

from __future__ import annotations

import inspect
import subprocess
from pathlib import Path

import pytest

from glu_bench.runs import environment


def test_the_commit_and_whether_the_code_differs_from_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = tmp_path / "glu_bench" / "runs" / "environment.py"
    code.parent.mkdir(parents=True)
    code.write_text("a = 1\n")
    (tmp_path / "notes.txt").write_text("no code\n")
    monkeypatch.setattr(environment, "__file__", str(code))
    read_commit = inspect.unwrap(environment._read_commit)  # kept for a whole session of tests elsewhere
    assert read_commit() == {"git_commit": None, "git_dirty": None}

    def git(*words: str) -> str:
        own = ("-c", "user.name=a", "-c", "user.email=a@example.org")
        done = subprocess.run(["git", *own, *words], cwd=tmp_path, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    git("init", "-q")
    assert read_commit() == {"git_commit": None, "git_dirty": None}  # there is none yet
    git("add", "glu_bench")
    git("commit", "-q", "-m", "all")
    head = git("rev-parse", "HEAD")
    assert len(head) == 40
    assert read_commit() == {"git_commit": head, "git_dirty": False}  # the notes are no code
    code.write_text("a = 2\n")
    assert read_commit() == {"git_commit": head, "git_dirty": True}
    git("checkout", "-q", "--", "glu_bench")
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "new.yaml").write_text("a: 1\n")
    assert read_commit() == {"git_commit": head, "git_dirty": True}
