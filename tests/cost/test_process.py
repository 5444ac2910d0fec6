"""A command's cost: what it took, that its output is thrown away, that a failure is one."""

from __future__ import annotations

import subprocess
import sys

import pytest

from glu_bench.cost.process import glu_bench_command, time_command


def test_a_process_that_computes_and_sleeps(capfd: pytest.CaptureFixture[str]) -> None:
    """Waiting counts as elapsed and not as busy; 64 MiB are seen in the peak."""
    code = "import time; held = b'x' * 2**26; time.sleep(1); print(len(held))"
    spent = time_command([sys.executable, "-c", code])
    assert spent.elapsed_s > 1
    assert 0 < spent.busy_s < spent.elapsed_s - 0.5
    assert spent.peak_bytes > 2**26
    assert capfd.readouterr().out == ""


def test_changes_reach_the_process_and_a_failure_comes_back() -> None:
    code = "import os, sys; sys.exit(int(os.environ['CODE']))"
    time_command([sys.executable, "-c", code], {"CODE": "0"})
    with pytest.raises(subprocess.CalledProcessError) as failed:
        time_command([sys.executable, "-c", code], {"CODE": "3"})
    assert failed.value.returncode == 3


def test_the_command_is_the_package_of_this_folder(tmp_path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PYTHONPATH", raising=False)
    time_command(glu_bench_command("--help"))
    with pytest.raises(subprocess.CalledProcessError):
        time_command(glu_bench_command("no-such-verb"))
