"""Atomic writes, strict JSON, locks."""

from __future__ import annotations

import contextlib
import errno
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glu_bench import files
from glu_bench.errors import BusyError, ConfigError, DataError, ResourceError
from glu_bench.files import (
    dump_json,
    explain_disk,
    hide_folder,
    hold_lock,
    is_locked,
    make_folder,
    read_json,
    remove_strays,
    sha256_bytes,
    sha256_file,
    write_bytes,
    write_folder,
    write_json,
    write_text,
)
from tests.conftest import command_env


def test_what_is_written_is_read_and_nothing_else_stays(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_text(path, "ü\r\n")
    write_text(path, "new\r\n")
    assert path.read_bytes() == b"new\r\n"
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_write_that_fails_leaves_the_old_content_and_no_stray(
    step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.txt"
    write_text(path, "old")

    def fail(*arguments: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(*((os, "fsync", fail) if step == "fsync" else (Path, "replace", fail)))
    with pytest.raises(OSError, match="Input/output"):
        write_text(path, "new")
    assert path.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


def test_content_is_durable_before_its_name_and_the_name_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    fsync, replace = os.fsync, Path.replace

    def tell_fsync(fd: int) -> None:
        told.append("folder" if os.path.isdir(f"/proc/self/fd/{fd}") else "file")  # noqa: PTH112
        fsync(fd)

    def tell_replace(self: Path, target: Path) -> Path:
        told.append("rename")
        return replace(self, target)

    monkeypatch.setattr(os, "fsync", tell_fsync)
    monkeypatch.setattr(Path, "replace", tell_replace)
    write_text(tmp_path / "a.txt", "new")
    assert told == ["file", "rename", "folder"]


@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o077, 0o600)])
def test_modes_follow_the_umask(mask: int, mode: int, tmp_path: Path) -> None:
    before = os.umask(mask)
    try:
        write_bytes(tmp_path / "a", b"x")
    finally:
        os.umask(before)
    assert (tmp_path / "a").stat().st_mode & 0o777 == mode


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_full_disk_is_one_line_with_path_and_bytes(number: int, tmp_path: Path) -> None:
    path = tmp_path / "a"
    message = r"a: the disk is full, 12,345 bytes needed, [\d,]+ bytes free"
    with pytest.raises(ResourceError, match=message), explain_disk(path, 12_345):
        raise OSError(number, os.strerror(number))


@pytest.mark.parametrize("words", ["No space left on device", "File too large", "Disk quota exceeded"])
def test_a_full_disk_is_known_by_the_words_of_other_libraries(words: str, tmp_path: Path) -> None:
    with pytest.raises(ResourceError), explain_disk(tmp_path):
        raise RuntimeError(f"safetensors: I/O error: {words} (os error 28)")


def test_errors_that_are_not_of_the_disk_pass_through(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="shape"), explain_disk(tmp_path):
        raise RuntimeError("shape mismatch")


def test_a_file_in_the_place_of_a_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("x")
    for folder in (tmp_path / "a", tmp_path / "a" / "b"):
        with pytest.raises(ConfigError, match="cannot write there"):
            make_folder(folder)


def test_a_name_too_long_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="not a usable name"):
        make_folder(tmp_path / ("x" * 300))


def test_a_folder_that_forbids_writing_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda *arguments: False)
    with pytest.raises(ConfigError, match="permission denied"):
        make_folder(tmp_path)


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner),
    max_leaves=8,
)


@given(value=st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), JSON))
def test_json_comes_back_equal(value: dict[str, object], tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", value)
    assert read_json(tmp_path / "a.json") == value


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_nan_and_infinity_are_not_written(number: float, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "a.json", {"x": number})
    with pytest.raises(ValueError, match="JSON"):
        dump_json({"x": number})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("text", ["NaN", "Infinity", "-Infinity"])
def test_nan_and_infinity_are_not_read(text: str, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(f'{{"x": {text}}}')
    with pytest.raises(DataError, match="not strict JSON"):
        read_json(tmp_path / "a.json")


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[1]", b"3", b'{"x": 1', b"\xff", b"[" * 100_000, b'{"x": 1} {}'],
    ids=["empty", "brace", "list", "number", "torn", "not UTF-8", "deep", "two"],
)
def test_what_is_no_json_object_is_refused_by_name(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(DataError, match=str(path)):
        read_json(path)


def test_a_missing_folder_or_oversized_record_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for path in (tmp_path / "nosuch.json", tmp_path):
        with pytest.raises(DataError, match=str(path)):
            read_json(path)
    monkeypatch.setattr(files, "JSON_LIMIT_BYTES", 10)
    (tmp_path / "a.json").write_text('{"x": "0123456789"}')
    with pytest.raises(DataError, match="larger than"):
        read_json(tmp_path / "a.json")


def test_canonical_json_has_one_spelling_a_value() -> None:
    assert (
        dump_json({"b": 1, "a": [1.0, "ü"]})
        == dump_json({"a": [1.0, "ü"], "b": 1})
        == '{"a":[1.0,"ü"],"b":1}'
    )


def test_a_files_digest_is_that_of_its_bytes(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    assert sha256_file(tmp_path / "a") == sha256_bytes(b"abc")
    assert sha256_bytes(b"abc").startswith("ba7816bf")


@pytest.fixture
def other_holder(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that holds the lock of the folder `held` under tmp_path."""
    (tmp_path / "held").mkdir()
    code = (
        "import sys, time; from pathlib import Path; from glu_bench.files import hold_lock\n"
        "with hold_lock(Path(sys.argv[1])): print('held', flush=True); time.sleep(60)"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "held")]
    with subprocess.Popen(command, env=command_env(), stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_a_folder_held_elsewhere_is_busy_and_its_holder_is_named(
    other_holder: subprocess.Popen[str], tmp_path: Path
) -> None:
    began = time.monotonic()
    with (
        pytest.raises(BusyError, match=rf"pid {other_holder.pid}\b"),
        hold_lock(tmp_path / "held", timeout_s=0.2),
    ):
        pass
    assert time.monotonic() - began < 2
    assert is_locked(tmp_path / "held")


def test_the_lock_of_a_killed_holder_is_free_at_once(
    other_holder: subprocess.Popen[str], tmp_path: Path
) -> None:
    other_holder.send_signal(signal.SIGKILL)
    other_holder.wait(timeout=10)
    assert not is_locked(tmp_path / "held")
    with hold_lock(tmp_path / "held", timeout_s=0):
        assert (tmp_path / "held" / ".lock.pid").read_text() == f"{os.getpid()}\n"


def test_a_lock_is_held_inside_and_free_outside(tmp_path: Path) -> None:
    assert not is_locked(tmp_path)
    with hold_lock(tmp_path):
        assert is_locked(tmp_path)
    assert not is_locked(tmp_path)
    with pytest.raises(ZeroDivisionError), hold_lock(tmp_path):
        raise ZeroDivisionError
    assert not is_locked(tmp_path)


def test_asking_who_holds_the_lock_disturbs_nobody(
    other_holder: subprocess.Popen[str], tmp_path: Path
) -> None:
    for _ in range(3):
        assert is_locked(tmp_path / "held")
    assert other_holder.poll() is None


def test_what_a_killed_process_was_writing_is_deleted(
    tmp_path: Path,
) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    stray = tmp_path / f".result.json.{ended.pid}.tmp"
    alive = tmp_path / f".result.json.{os.getpid()}.tmp"
    own = tmp_path / ".notes.tmp"
    for path in (stray, alive, own):
        path.write_text("half")
    folder = tmp_path / f".step-00000002.{ended.pid}.tmp"
    folder.mkdir()
    (folder / "model.safetensors").write_text("half")
    remove_strays(tmp_path)
    assert sorted(path for path in tmp_path.iterdir()) == sorted([alive, own])


def test_a_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    with write_folder(tmp_path / "a") as work:
        (work / "inner").mkdir()
        (work / "inner" / "x").write_text("x")
        assert not (tmp_path / "a").exists()
    assert (tmp_path / "a" / "inner" / "x").read_text() == "x"
    with contextlib.suppress(ZeroDivisionError), write_folder(tmp_path / "b") as work:
        (work / "x").write_text("x")
        raise ZeroDivisionError
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_folder_merged_keeps_what_it_does_not_replace(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    for name in ("old", "both"):
        (tmp_path / "a" / name).write_text("old")
    with write_folder(tmp_path / "a", merge=True) as work:
        for name in ("both", "new"):
            (work / name).write_text("new")
        assert (tmp_path / "a" / "both").read_text() == "old"
    found = {path.name: path.read_text() for path in (tmp_path / "a").iterdir()}
    assert found == {"old": "old", "both": "new", "new": "new"}


def test_a_hidden_folder_is_swept_with_what_is_in_it(tmp_path: Path) -> None:
    (tmp_path / "a" / "inner").mkdir(parents=True)
    hidden = hide_folder(tmp_path / "a")
    assert [path.name for path in tmp_path.iterdir()] == [hidden.name]
    remove_strays(tmp_path)  # its process lives
    assert hidden.is_dir()
    remove_strays(tmp_path, alone=True)
    assert list(tmp_path.iterdir()) == []


def test_a_name_is_durable_in_the_folder_that_was_made_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[Path] = []
    monkeypatch.setattr(files, "fsync_dir", told.append)
    make_folder(tmp_path / "a" / "b")
    assert set(told) == {tmp_path / "a", tmp_path}
    make_folder(tmp_path / "a" / "b")
    assert len(told) == 2


def test_a_disk_too_full_for_a_lock_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_text", fail)
    with pytest.raises(ResourceError, match=r"\.lock\.pid: the disk is full"), hold_lock(tmp_path):
        pass
    assert not is_locked(tmp_path)
