"""Group B: a disk that is full, forbidden or damaged, and a clock that is wrong."""

from __future__ import annotations

import json
import os
import re
import resource
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from tests.conftest import REPO, Train, command_line
from tests.faults.conftest import (
    Processes,
    TinyTrain,
    find_run,
    hash_file,
    intact_steps,
    snapshot,
    tiny_command,
    worth_of,
)

FULL = r"the disk is full, [\d,]+ bytes needed, [\d,]+ bytes free"
ALL_KEPT = ("train.checkpoint_every=1", "train.keep_checkpoints=9")


@pytest.fixture(scope="module")
def five_checkpoints(tiny_words: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output folder of a run that was killed in its last step, with a checkpoint of each before."""
    folder = tmp_path_factory.mktemp("five")
    env = {"GLU_BENCH_TESTING": "1", "GLU_BENCH_FAULT": "step.after_backward:kill9:6"}
    ended = Processes(folder).run(*tiny_command(tiny_words, *ALL_KEPT), env=env)
    assert ended.code == -9, ended.err
    return folder / "outputs"


@pytest.fixture
def killed(five_checkpoints: Path, tmp_path: Path) -> Path:
    """The folder of such a run, to be damaged, where the same command looks for it."""
    shutil.copytree(five_checkpoints, tmp_path / "outputs")
    run = find_run(tmp_path / "outputs")
    assert intact_steps(run) == [1, 2, 3, 4, 5]
    return run


def _step(run: Path, step: int) -> Path:
    return run / "checkpoints" / f"step-{step:08d}"


def _flip(path: Path) -> None:
    """Change one bit of the last tensor."""
    content = bytearray(path.read_bytes())
    content[-2] ^= 1
    path.write_bytes(content)


def _loud(tiny_words: list[str], *words: str) -> list[str]:
    return [word for word in tiny_command(tiny_words, *words) if word != "--quiet"]


@pytest.mark.slow
def test_b8_a_full_disk(
    processes: Processes, tiny_words: list[str], straight: dict[str, Any], tmp_path: Path
) -> None:
    """The output folder is a disk of 4 MiB, and every checkpoint of 1.2 MB is to be kept; then the disk
    is made larger.

    Exit 6 with a line that names the checkpoint, the bytes it needs and those free; the earlier ones
    are intact, nothing torn or temporary is there; with room, the same command ends in the bits of the
    undisturbed run.
    """
    script = """
        mkdir outputs && mount -t tmpfs -o size=4m none outputs || exit 99
        "$@" 2>full.err; echo $? >full.code; cp -a outputs full
        mount -o remount,size=64m none outputs
        "$@" 2>grown.err; echo $? >grown.code; cp -a outputs grown
    """
    _mount(processes, script, *command_line(*tiny_command(tiny_words, *ALL_KEPT)))
    full, grown = find_run(tmp_path / "full"), find_run(tmp_path / "grown")
    assert (tmp_path / "full.code").read_text() == "6\n"
    steps = intact_steps(full)
    assert 2 <= len(steps) < 6
    message = (tmp_path / "full.err").read_text()
    assert re.fullmatch(rf"glu-bench: outputs/\S+/step-{len(steps) + 1:08d}: {FULL}\n", message), message
    assert sorted(path.name for path in (full / "checkpoints").iterdir()) == [
        f"step-{step:08d}" for step in steps
    ]
    assert not list(full.rglob("*.tmp"))
    assert (tmp_path / "grown.code").read_text() == "0\n", (tmp_path / "grown.err").read_text()
    assert worth_of(grown) == straight


@pytest.mark.slow
def test_b8_a_disk_full_before_it_begins(processes: Processes, tiny_words: list[str], tmp_path: Path) -> None:
    """The output folder is a disk with room for one page, then two, then three: too few for a run's
    second file, for the pid beside its lock, for the first row of its log.

    Exit 6 each time, with one line that names the file and the bytes it needs.
    """
    script = """
        mkdir outputs && mount -t tmpfs -o size=4k none outputs || exit 99
        for size in 4k 8k 12k; do
            mount -o remount,size=$size none outputs
            "$@" 2>$size.err; echo $? >$size.code
        done
    """
    _mount(processes, script, *command_line(*tiny_command(tiny_words)))
    for size, name in (("4k", "environment.json"), ("8k", ".lock.pid"), ("12k", "metrics.jsonl")):
        message = (tmp_path / f"{size}.err").read_text()
        assert (tmp_path / f"{size}.code").read_text() == "6\n", message
        assert re.fullmatch(rf"glu-bench: outputs/\S+/{re.escape(name)}: {FULL}\n", message), message


def _mount(processes: Processes, script: str, *command: str) -> None:
    """Run a shell script in mounts of its own."""
    if subprocess.run(["unshare", "-rm", "true"], check=False, capture_output=True).returncode:
        pytest.skip("no mounts of one's own here")
    ended = processes.run(command=["unshare", "-rm", "sh", "-c", script, "sh", *command], limit_s=120)
    assert ended.code == 0, ended.err


@pytest.mark.slow
def test_b9_a_limit_on_files(
    killed: Path, tiny_train: TinyTrain, straight: dict[str, Any], tmp_path: Path
) -> None:
    """RLIMIT_FSIZE of 100 kB, less than a checkpoint's weights, for a run that goes on; then no limit.

    Exit 6 with one line that names the checkpoint, the bytes it needs and `ulimit -f`; the earlier
    checkpoints are untouched; without the limit it ends in the bits of the undisturbed run.
    """
    before = snapshot(killed / "checkpoints")
    ended = tiny_train(preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000)))
    assert ended.code == 6
    assert re.fullmatch(rf"glu-bench: \S+/step-00000006: {FULL}; .*ulimit -f\)\n", ended.err), ended.err
    assert snapshot(killed / "checkpoints") == before
    assert tiny_train().code == 0
    assert worth_of(killed) == straight


@pytest.mark.slow
def test_b9_a_limit_on_the_tokens(tiny_train: TinyTrain, tmp_path: Path) -> None:
    """RLIMIT_FSIZE of 10 kB, less than the tokens of the text, with an empty cache.

    Exit 6 with one line that names the cache's folder; it holds nothing that could be taken for tokens.
    """
    ended = tiny_train(
        env={"GLU_BENCH_CACHE": str(tmp_path / "cache")},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000)),
    )
    assert ended.code == 6
    assert re.fullmatch(rf"glu-bench: \S+/cache/tokens/\w+: {FULL}; .*\n", ended.err), ended.err
    assert not (tmp_path / "outputs").exists()
    left = {path.name for path in (tmp_path / "cache").rglob("*") if path.is_file()}
    assert left <= {".lock"}


@pytest.mark.slow
def test_b10_a_folder_that_forbids_writing(
    processes: Processes, tiny_words: list[str], tmp_path: Path
) -> None:
    """The output folder has mode 0555, and the process lacks the privilege to write there nonetheless.

    Exit 2 with one line, before anything is trained or written.
    """
    outputs = tmp_path / "outputs"
    outputs.mkdir(mode=0o555)
    command = command_line(*tiny_command(tiny_words))
    if os.geteuid() == 0:
        taken = "-dac_override,-dac_read_search"
        command = ["setpriv", f"--bounding-set={taken}", f"--inh-caps={taken}", *command]
    ended = processes.run(command=command)
    assert ended.code == 2
    assert re.fullmatch(r"glu-bench: outputs/\S+: cannot write there \(Permission denied\)\n", ended.err)
    assert list(outputs.iterdir()) == []


@pytest.mark.slow
def test_b10_a_file_in_the_place_of_the_folder(tiny_train: TinyTrain, tmp_path: Path) -> None:
    """The output folder is a file.

    Exit 2 with one line; the file is as it was.
    """
    (tmp_path / "outputs").write_text("mine")
    ended = tiny_train()
    assert ended.code == 2
    assert re.fullmatch(r"glu-bench: outputs/\S+: cannot write there \(Not a directory\)\n", ended.err)
    assert (tmp_path / "outputs").read_text() == "mine"


@pytest.mark.slow
def test_b11_damaged_checkpoints(
    killed: Path, processes: Processes, tiny_words: list[str], straight: dict[str, Any]
) -> None:
    """Of five checkpoints the newest has half of its weights, the next none of them, the next no
    manifest, the next no optimiser state.

    It goes on after the first, with a warning for each of the four, which are kept as corrupt-…;
    exit 0 and the bits of the undisturbed run.
    """
    weights = _step(killed, 5) / "model.safetensors"
    os.truncate(weights, weights.stat().st_size // 2)
    os.truncate(_step(killed, 4) / "model.safetensors", 0)
    (_step(killed, 3) / "manifest.json").unlink()
    (_step(killed, 2) / "optimizer.safetensors").unlink()
    damaged = {step: snapshot(_step(killed, step)) for step in (2, 3, 4, 5)}
    ended = processes.run(*_loud(tiny_words))
    assert ended.code == 0, ended.err
    assert "going on after step 1\n" in ended.err
    warned = re.findall(r"^note: set aside: \S*/step-0000000(\d)\b", ended.err, re.MULTILINE)
    assert warned == ["5", "4", "3", "2"]
    kept = {step: snapshot(killed / "checkpoints" / f"corrupt-step-0000000{step}") for step in damaged}
    assert kept == damaged
    assert worth_of(killed) == straight


@pytest.mark.slow
def test_b12_a_flipped_byte(
    killed: Path, processes: Processes, tiny_words: list[str], straight: dict[str, Any]
) -> None:
    """One bit of one tensor of the newest checkpoint's optimiser is flipped; safetensors reads the file.

    Its checksum does not agree: it is set aside with a warning, and the run ends in the bits of the
    undisturbed run.
    """
    path = _step(killed, 5) / "optimizer.safetensors"
    _flip(path)
    load_file(path)
    ended = processes.run(*_loud(tiny_words))
    assert ended.code == 0, ended.err
    assert re.search(r"set aside: \S*/optimizer\.safetensors: content does not match the manifest", ended.err)
    assert "going on after step 4\n" in ended.err
    assert worth_of(killed) == straight


@pytest.mark.slow
def test_b13_no_checkpoint_is_intact(
    killed: Path, tiny_train: TinyTrain, straight: dict[str, Any], tmp_path: Path
) -> None:
    """One bit of each of five checkpoints is flipped; the command is given twice, then with --restart.

    Exit 3 with a reason for each, twice; nothing is deleted or trained. --restart begins anew and ends
    in the bits of the undisturbed run.
    """
    for step in range(1, 6):
        _flip(_step(killed, step) / "model.safetensors")
    before = sorted(snapshot(killed / "checkpoints").values())
    rows = hash_file(killed / "metrics.jsonl")
    for reason in ("content does not match the manifest", "set aside earlier"):
        ended = tiny_train()
        assert ended.code == 3
        assert ended.err.startswith("glu-bench: no checkpoint verifies; --restart begins anew:\n")
        assert ended.err.count(reason) == 5
        assert {step for step in range(1, 6) if f"step-0000000{step}" in ended.err} == {1, 2, 3, 4, 5}
        assert sorted(snapshot(killed / "checkpoints").values()) == before
        assert hash_file(killed / "metrics.jsonl") == rows
    assert tiny_train("--restart").code == 0
    assert worth_of(killed) == straight


CLOCK = """
import itertools, os, time
real, calls = time.time, itertools.count()
time.time = lambda: real() - 3600 * next(calls)
open(os.environ["CLOCK_SEEN"], "w").close()
"""


@pytest.mark.slow
def test_b17_clocks(killed: Path, tiny_train: TinyTrain, straight: dict[str, Any], tmp_path: Path) -> None:
    """All files of old checkpoints are of the year 2037, those of the newest of 1970, and time.time()
    goes back by an hour with every call.

    The newest by its step is gone on from and the oldest are deleted, no duration is negative, and the
    end is the bits of the undisturbed run.
    """
    for step in range(1, 6):
        moment = 0 if step == 5 else 2_114_380_800 - step
        for path in (*_step(killed, step).iterdir(), _step(killed, step)):
            os.utime(path, (moment, moment))
    (tmp_path / "clock").mkdir()
    (tmp_path / "clock" / "sitecustomize.py").write_text(CLOCK)
    env = {"PYTHONPATH": f"{tmp_path / 'clock'}:{REPO}", "CLOCK_SEEN": str(tmp_path / "seen")}
    ended = tiny_train(env=env)
    assert (tmp_path / "seen").exists()
    assert ended.code == 0, ended.err
    assert sorted(path.name for path in (killed / "checkpoints").iterdir()) == [
        "step-00000005",
        "step-00000006",
    ]
    rows = [json.loads(line) for line in (killed / "metrics.jsonl").read_text().splitlines()]
    result = json.loads((killed / "result.json").read_text())
    elapsed = [row["elapsed_s"] for row in rows]
    assert elapsed == sorted(elapsed)
    assert elapsed[0] > 0
    assert result["elapsed_s"] == elapsed[-1]
    assert all(row["tokens_per_s"] is None or row["tokens_per_s"] > 0 for row in (*rows, result))
    assert worth_of(killed) == straight


@pytest.mark.slow
def test_b18_strangers_among_the_checkpoints(
    killed: Path, tiny_train: TinyTrain, straight: dict[str, Any]
) -> None:
    """Among a run's checkpoints lie a whole one of step 5000 of another run, and folders named
    step-0010x, step-5.tmp and old-step-9.

    None of them is loaded, deleted, or counted among the two that are kept; the other run's is set
    aside. The end is the bits of the undisturbed run.
    """
    folder = killed / "checkpoints"
    shutil.copytree(_step(killed, 5), folder / "step-00005000")
    manifest = json.loads((folder / "step-00005000" / "manifest.json").read_text())
    manifest |= {"run_id": "relu-pico-text-s0-0123456789", "step": 5000}
    (folder / "step-00005000" / "manifest.json").write_text(json.dumps(manifest))
    for name in ("step-0010x", "step-5.tmp", "old-step-9"):
        shutil.copytree(_step(killed, 4), folder / name)
    strange = {
        name: snapshot(folder / name) for name in ("step-00005000", "step-0010x", "step-5.tmp", "old-step-9")
    }
    assert tiny_train().code == 0
    (folder / "corrupt-step-00005000").rename(folder / "step-00005000")
    assert {name: snapshot(folder / name) for name in strange} == strange
    for name in strange:
        shutil.rmtree(folder / name)
    assert sorted(path.name for path in folder.iterdir()) == ["step-00000005", "step-00000006"]
    assert worth_of(killed) == straight


def test_b20_the_order_on_disk(train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every fsync, rename and deletion while a run writes three checkpoints and keeps two.

    The log's rows, then the files, then the manifest, then their folder are durable before the
    checkpoint has its name; the name is durable before the oldest loses its own, and then goes.
    """
    told: list[str] = []

    def tell(word: str, function: Callable[..., Any], name_of: Callable[..., str]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            name = re.sub(r"\.([^/]*)\.\d+\.tmp", r"(\1)", name_of(*arguments))
            told.append(f"{word} {name.removeprefix(f'{tmp_path}/runs/')}")
            return function(*arguments, **options)

        return call

    def path_of(fd: int) -> str:
        return str(Path(os.readlink(f"/proc/self/fd/{fd}")))  # noqa: PTH115

    monkeypatch.setattr(os, "fsync", tell("fsync", os.fsync, path_of))
    monkeypatch.setattr(os, "rename", tell("rename", os.rename, lambda old, new: str(old)))
    monkeypatch.setattr(shutil, "rmtree", tell("delete", shutil.rmtree, str))
    train()
    run = find_run(tmp_path).name
    work = f"{run}/checkpoints/(step-00000006)"
    at = 0
    for word in (
        f"fsync {run}/metrics.jsonl",
        *(f"fsync {work}/{name}" for name in ("model.safetensors", "optimizer.safetensors", "state.json")),
        f"fsync {work}/(manifest.json)",
        f"fsync {work}",
        f"rename {work}",
        f"fsync {run}/checkpoints",
        f"rename {run}/checkpoints/step-00000002",
        f"delete {run}/checkpoints/(step-00000002.old)",
    ):
        assert word in told[at:], f"{word} is not behind {told[:at]}"
        at = told.index(word, at) + 1
    assert told.count(f"rename {work}") == 1
    assert f"fsync {work}/manifest.json" not in told  # it is whole when it gets its name


@pytest.mark.slow
@pytest.mark.parametrize(("mask", "file", "inner"), [(0o022, 0o644, 0o755), (0o077, 0o600, 0o700)])
def test_b21_modes_follow_the_umask(
    mask: int, file: int, inner: int, tiny_train: TinyTrain, tmp_path: Path
) -> None:
    """A run under umask 022, and one under 077.

    All its files have mode 0644 and its folders 0755; 0600 and 0700.
    """
    assert tiny_train(umask=mask).code == 0
    paths = list((tmp_path / "outputs").rglob("*"))
    assert {path.stat().st_mode & 0o777 for path in paths if path.is_file()} == {file}
    assert {path.stat().st_mode & 0o777 for path in paths if path.is_dir()} == {inner}
    assert sum(path.name == "model.safetensors" for path in paths) == 2
