"""glibc is told once to keep what it has."""

from __future__ import annotations

import subprocess
import sys

import pytest

from glu_bench import allocator

# a block of 64 MiB, freed and taken again: the second time without a new page
PROGRAM = """
import ctypes, resource
from glu_bench.allocator import keep_freed_memory
assert keep_freed_memory()
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
def touch():
    block = libc.malloc(2**26)
    ctypes.memset(block, 1, 2**26)
    libc.free(ctypes.c_void_p(block))
touch()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
touch()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc alone")
def test_a_freed_block_is_taken_again_without_page_faults() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 100  # of 16,384 pages


HUGE = """
from glu_bench.allocator import RESERVED, keep_freed_memory
def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096
before = resident()
assert keep_freed_memory()
taken = resident() - before
marked = 0
for part in open("/proc/self/smaps").read().split("[heap]")[1:]:
    if " hg" in part.partition("VmFlags:")[2].splitlines()[0]:
        marked += int(part.split()[1]) * 1024
print(taken, sum(RESERVED) - marked)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc alone")
def test_large_pages_are_asked_for_and_none_is_taken() -> None:
    done = subprocess.run([sys.executable, "-c", HUGE], capture_output=True, text=True, check=True)
    taken_bytes, unmarked_bytes = map(int, done.stdout.split())
    assert taken_bytes < 2**24
    assert unmarked_bytes < 2**24  # of 1.5 GiB: what does not fill a page of 2 MiB


def test_other_systems_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(allocator.sys, "platform", "darwin")
    assert not allocator.keep_freed_memory()
