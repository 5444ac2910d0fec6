"""What the operating system says of a process."""

from __future__ import annotations

import subprocess
import sys

import pytest

from glu_bench import host
from tests.conftest import command_env

ASK = "from glu_bench.host import read_peak_rss_bytes; print(read_peak_rss_bytes())"


def test_a_process_is_not_charged_with_what_its_parent_held() -> None:
    held = bytearray(2**28)
    held[:: 2**12] = b"1" * 2**16  # every page is touched
    own = int(
        subprocess.run([sys.executable, "-c", ASK], capture_output=True, env=command_env(), check=True).stdout
    )
    assert 2**20 < own < 2**28 < host.read_peak_rss_bytes()


def test_where_there_is_no_proc_the_peak_is_that_of_rusage(monkeypatch: pytest.MonkeyPatch) -> None:
    import resource

    def refuse(*args: object, **kwargs: object) -> str:
        raise FileNotFoundError

    monkeypatch.setattr(host.Path, "read_text", refuse)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for platform, times in (("darwin", 1), ("linux", 1024)):
        monkeypatch.setattr(sys, "platform", platform)
        assert host.read_peak_rss_bytes() == peak * times
