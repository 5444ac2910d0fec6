"""Checkpoints: whole or not there, verified before use, never deleted when broken."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from glu_bench.errors import DataError
from glu_bench.runs import checkpoint as room
from glu_bench.runs.checkpoint import (
    FILES,
    list_checkpoints,
    load_checkpoint,
    load_latest,
    save_checkpoint,
)

RUN_ID = "swiglu-pico-text-s0-0123456789"


def tensors(step: int) -> dict[str, torch.Tensor]:
    return {"a.weight": torch.full((3, 4), float(step)), "b": torch.arange(step, dtype=torch.float32)}


def save(folder: Path, step: int, keep: int = 9, run_id: str = RUN_ID) -> Path:
    optimizer = {"exp_avg/a.weight": torch.full((3, 4), -float(step)), "generator/cpu": torch.get_rng_state()}
    return save_checkpoint(folder, run_id, step, tensors(step), optimizer, {"step": step}, keep)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def flip_byte(path: Path, at: int = -1) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    loaded = load_checkpoint(save(tmp_path, 7), RUN_ID)
    assert loaded.step == 7
    assert loaded.state == {"step": 7}
    assert set(loaded.model) == {"a.weight", "b"}
    torch.testing.assert_close(loaded.model, tensors(7), rtol=0, atol=0)
    torch.testing.assert_close(loaded.optimizer["exp_avg/a.weight"], torch.full((3, 4), -7.0))
    assert torch.equal(loaded.optimizer["generator/cpu"], torch.get_rng_state())


def test_only_the_last_few_are_kept(tmp_path: Path) -> None:
    for step in (2, 9, 10, 100):
        save(tmp_path, step, keep=2)
    assert names(tmp_path) == ["step-00000010", "step-00000100"]


def test_a_step_saved_again_replaces_the_first(tmp_path: Path) -> None:
    save(tmp_path, 1)
    (tmp_path / "step-00000001" / "state.json").write_text("broken")
    assert load_checkpoint(save(tmp_path, 1), RUN_ID).step == 1
    assert names(tmp_path) == ["step-00000001"]


def test_the_newest_is_the_highest_step_whatever_the_times_on_disk(tmp_path: Path) -> None:
    for step in (1, 2, 3):
        os.utime(save(tmp_path, step), (4e9 - step * 1e9, 4e9 - step * 1e9))
    latest, reasons = load_latest(tmp_path, RUN_ID)
    assert latest is not None
    assert (latest.step, reasons) == (3, [])
    save(tmp_path, 4, keep=2)
    assert names(tmp_path) == ["step-00000003", "step-00000004"]


def test_names_that_are_no_checkpoint_are_neither_loaded_nor_deleted(tmp_path: Path) -> None:
    odd = ["step-0010x", "step-5.tmp", "old-step-9", "step-5", "step-000000050", "corrupt-step-00000099"]
    for name in odd:
        (tmp_path / name).mkdir()
    (tmp_path / "step-00000050").write_text("a file")
    save(tmp_path, 1, keep=1)
    save(tmp_path, 2, keep=1)
    assert [path.name for path in list_checkpoints(tmp_path)] == ["step-00000002"]
    assert set(names(tmp_path)) == {*odd, "step-00000050", "step-00000002"}


def test_strays_of_a_killed_process_are_swept(tmp_path: Path) -> None:
    (tmp_path / ".step-00000004.123.tmp").mkdir(parents=True)
    save(tmp_path, 5)
    assert names(tmp_path) == ["step-00000005"]


def test_no_checkpoint_is_no_error(tmp_path: Path) -> None:
    assert load_latest(tmp_path / "nosuch", RUN_ID) == (None, [])


@pytest.mark.parametrize("mask", [0o022, 0o077])
def test_modes_follow_the_umask(mask: int, tmp_path: Path) -> None:
    before = os.umask(mask)
    try:
        path = save(tmp_path, 1)
    finally:
        os.umask(before)
    modes = {name: (path / name).stat().st_mode & 0o777 for name in names(path)}
    assert set(modes.values()) == {0o666 & ~mask}
    assert path.stat().st_mode & 0o777 == 0o777 & ~mask


@pytest.mark.parametrize("name", [*FILES, "manifest.json"])
def test_a_flipped_byte_is_found_and_the_previous_checkpoint_is_used(name: str, tmp_path: Path) -> None:
    save(tmp_path, 1)
    newest = save(tmp_path, 2)
    flip_byte(newest / name, at=len((newest / name).read_bytes()) // 2)
    latest, reasons = load_latest(tmp_path, RUN_ID)
    assert latest is not None
    assert latest.step == 1
    assert len(reasons) == 1
    assert names(tmp_path) == ["corrupt-step-00000002", "step-00000001"]


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _link(path: Path) -> None:
    shutil.move(path, path.with_name("elsewhere"))
    path.symlink_to("elsewhere")


def _replace_by_pickle(path: Path) -> None:
    torch.save({"a": torch.zeros(2)}, path)


DAMAGES: list[Callable[[Path], Any]] = [
    _truncate,
    Path.unlink,
    _link,
    _replace_by_pickle,
    lambda path: path.write_bytes(b""),
]


@pytest.mark.parametrize("name", [*FILES, "manifest.json"])
@pytest.mark.parametrize("damage", DAMAGES, ids=["half", "missing", "link", "pickle", "empty"])
def test_a_damaged_checkpoint_is_set_aside(name: str, damage: Callable[[Path], Any], tmp_path: Path) -> None:
    save(tmp_path, 1)
    damage(save(tmp_path, 2) / name)
    latest, reasons = load_latest(tmp_path, RUN_ID)
    assert latest is not None
    assert latest.step == 1
    assert "step-00000002" in reasons[0]
    assert names(tmp_path) == ["corrupt-step-00000002", "step-00000001"]


def test_if_none_verifies_each_is_named_and_nothing_deleted(tmp_path: Path) -> None:
    for step in (1, 2, 3):
        flip_byte(save(tmp_path, step) / "model.safetensors")
    with pytest.raises(DataError, match=r"(?s)--restart.*step-00000003.*step-00000002.*step-00000001"):
        load_latest(tmp_path, RUN_ID)
    assert names(tmp_path) == [f"corrupt-step-0000000{step}" for step in (1, 2, 3)]


def test_starting_again_after_none_verified_does_not_begin_anew_in_silence(tmp_path: Path) -> None:
    flip_byte(save(tmp_path, 1) / "model.safetensors")
    for _ in range(2):
        with pytest.raises(DataError, match="--restart"):
            load_latest(tmp_path, RUN_ID)


def test_corrupt_folders_of_one_name_do_not_collide(tmp_path: Path) -> None:
    save(tmp_path, 1)
    for _ in range(2):
        flip_byte(save(tmp_path, 2) / "model.safetensors")
        load_latest(tmp_path, RUN_ID)
    assert names(tmp_path) == ["corrupt-step-00000002", "corrupt-step-00000002-1", "step-00000001"]


def test_a_checkpoint_of_another_run_is_never_loaded(tmp_path: Path) -> None:
    save(tmp_path, 1)
    save(tmp_path, 5000, run_id="relu-pico-text-s0-9876543210")
    latest, reasons = load_latest(tmp_path, RUN_ID)
    assert latest is not None
    assert latest.step == 1
    assert "belongs to run relu" in reasons[0]


def test_a_checkpoint_of_another_run_pushes_none_of_this_run_out(tmp_path: Path) -> None:
    save(tmp_path, 5000, run_id="relu-pico-text-s0-9876543210")
    for step in (1, 2):
        assert save(tmp_path, step, keep=1).is_dir()


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("format_version", 2, "format version 2"),
        ("sha256", {}, "manifest does not name"),
        ("sha256", {"../../evil": "x"}, "manifest does not name"),
        ("sha256", None, "manifest does not name"),
        ("step", "x", "step"),
        ("step", None, "step"),
    ],
)
def test_an_odd_manifest_is_refused(key: str, value: Any, message: str, tmp_path: Path) -> None:
    path = save(tmp_path, 1)
    manifest = json.loads((path / "manifest.json").read_text())
    manifest[key] = value
    (path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(DataError, match=message):
        load_checkpoint(path, RUN_ID)


def test_a_checkpoint_folder_that_is_a_link_is_not_used(tmp_path: Path) -> None:
    save(tmp_path / "other", 1)
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "step-00000001").symlink_to(tmp_path / "other" / "step-00000001")
    with pytest.raises(DataError):
        load_checkpoint(tmp_path / "here" / "step-00000001", RUN_ID)


@pytest.mark.parametrize("moment", ["save_file", "write_json", "fsync_file", "fsync_dir"])
def test_saving_that_breaks_off_leaves_the_earlier_checkpoints_alone(
    moment: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(tmp_path, 1)

    def fail(*arguments: object) -> None:
        raise KeyboardInterrupt

    where = {"save_file": "safetensors.torch", "fsync_dir": "glu_bench.files"}.get(moment, room.__name__)
    with monkeypatch.context() as patch:
        patch.setattr(f"{where}.{moment}", fail)
        with pytest.raises(KeyboardInterrupt):
            save(tmp_path, 2, keep=1)
    assert names(tmp_path) == ["step-00000001"]
    assert load_checkpoint(tmp_path / "step-00000001", RUN_ID).step == 1


def test_files_are_durable_before_the_name_and_the_old_goes_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(tmp_path, 1)
    told: list[str] = []
    fsync, rename, rmtree = os.fsync, Path.rename, shutil.rmtree

    def tell_fsync(fd: int) -> None:
        told.append("fsync " + Path(os.readlink(f"/proc/self/fd/{fd}")).name.split(".")[0])  # noqa: PTH115
        fsync(fd)

    def tell_rename(self: Path, target: Path) -> Path:
        told.append("rename")
        return rename(self, target)

    def tell_rmtree(path: Path, **options: Any) -> None:
        told.append("delete")
        rmtree(path, **options)

    monkeypatch.setattr(os, "fsync", tell_fsync)
    monkeypatch.setattr(Path, "rename", tell_rename)
    monkeypatch.setattr(shutil, "rmtree", tell_rmtree)
    save(tmp_path, 2, keep=1)
    last_file = max(at for at, word in enumerate(told) if word in ("fsync model", "fsync optimizer"))
    renamed = told.index("rename")
    assert last_file < renamed
    assert told[renamed + 1] == f"fsync {tmp_path.name}"
    assert told[-1] == "delete"
