"""SLURM's queue, and a sweep through a real SLURM where one is installed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from glu_bench.files import sha256_file
from glu_bench.runs.folder import list_runs
from glu_bench.study.slurm import list_queued
from tests.conftest import REPO, command_env, command_line

SCRIPTS = REPO / "tests" / "slurm"
LONG = ("train.steps=2000", "train.log_every=50", "train.eval_every=1000", "train.checkpoint_every=50")


def put_squeue(folder: Path, code: str, monkeypatch: pytest.MonkeyPatch) -> None:
    program = folder / "squeue"
    program.write_text(f"#!/bin/sh\n{code}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")


def submitted(folder: Path, *ids: str) -> Path:
    for each in ids:
        (folder / ".submitit" / each).mkdir(parents=True)
        (folder / ".submitit" / each / f"{each}_submitted.pkl").touch()
    return folder


def test_an_array_is_asked_for_once_and_answers_by_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_squeue(tmp_path, f'echo "$@" > {tmp_path}/asked; echo 3; echo 11', monkeypatch)
    assert list_queued(submitted(tmp_path, "70_3", "70_11", "70_0")) == {3, 11}
    assert "--array --jobs 70 " in (tmp_path / "asked").read_text()


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("echo N/A", {0}),  # a launch of one job is no array
        ("true", set()),
        ("echo 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1", set()),  # long gone
        ("echo 'slurm_load_jobs error: Unable to contact slurm controller' >&2; exit 1", None),
    ],
)
def test_what_is_not_known_is_not_taken_for_over(
    code: str, expected: set[int] | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_squeue(tmp_path, code, monkeypatch)
    assert list_queued(submitted(tmp_path, "70")) == expected


def test_nothing_is_known_before_anything_was_submitted(tmp_path: Path) -> None:
    assert list_queued(tmp_path) is None


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """SLURM on this machine, for as long as the tests of this file take."""
    packages = (SCRIPTS / "packages").read_text().strip()
    programs = ("slurmctld", "slurmd", "slurmdbd", "munged", "mariadbd")
    if not all(map(shutil.which, programs)) or os.geteuid() != 0:
        pytest.skip(f"needs root and the Debian packages {packages}")
    pytest.importorskip("submitit", reason="the extra slurm")
    folder = tmp_path_factory.mktemp("slurm") / "here"
    try:
        subprocess.run([SCRIPTS / "up", folder], check=True, timeout=120)
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("SLURM_CONF", str(folder / "slurm.conf"))
            yield
    finally:
        subprocess.run([SCRIPTS / "down", folder], check=False, timeout=120)


def ask_slurm(*words: str) -> list[str]:
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=True)
    return done.stdout.splitlines()


def await_true(fact: Callable[[], bool], what: str, limit_s: float = 120) -> None:
    until = time.monotonic() + limit_s
    while not fact():
        assert time.monotonic() < until, f"not within {limit_s:.0f} s: {what}"
        time.sleep(0.1)


def find_process(*words: str) -> int:
    """The train process whose command line has all these words."""
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                command = (folder / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if {b"glu_bench", b"train", *(word.encode() for word in words)} <= set(command):
                return int(folder.name)
    raise AssertionError(f"no process with {words}")


@pytest.mark.slow
def test_a_sweep_through_slurm_with_jobs_killed_and_one_queued_again(
    slurm: None, tiny_words: list[str], tmp_path: Path
) -> None:
    keys = {word.split("=")[0] for word in LONG}
    settings = [*LONG, *(word for word in tiny_words if word.split("=")[0] not in keys), "seed=0,1,2,3"]
    output = tmp_path / "outputs"
    launcher = ["hydra/launcher=submitit_slurm", "hydra.launcher.partition=all", "hydra.launcher.mem_gb=1"]
    command = command_line("sweep", *settings, *launcher, "--name", "four", "--output-dir", str(output))
    sweep = subprocess.Popen(
        [*command, "--json", "--quiet"],
        cwd=tmp_path,
        env=command_env(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )

    def has_saved(seed: int) -> bool:
        return any(
            f"-s{seed}-" in run.path.name and any(run.checkpoints.glob("step-*")) for run in list_runs(output)
        )

    try:
        await_true(lambda: has_saved(0), "the first run has saved")
        os.kill(find_process("seed=0", str(output)), 9)  # the run
        (array,) = set(ask_slurm("squeue", "--noheader", "--format=%F"))
        await_true(lambda: has_saved(1), "the second run has saved")
        ask_slurm("scontrol", "requeue", f"{array}_1")
        await_true(lambda: has_saved(2), "the third run has saved")
        run = find_process("seed=2", str(output))
        os.kill(int(Path(f"/proc/{run}/stat").read_text().rsplit(")")[-1].split()[1]), 9)  # its job
        out, err = sweep.communicate(timeout=240)
    finally:
        sweep.kill()
        sweep.communicate()
    assert sweep.returncode == 5, err
    assert "Traceback" not in err
    found = json.loads(out)
    assert (found["planned"], found["complete"]) == (4, 2)
    reasons = {entry["run_id"].split("-")[3]: entry["reason"] for entry in found["failed"]}
    assert reasons.pop("s0") == "killed by signal 9, SIGKILL (possibly out of memory)"
    assert reasons == {"s2": "its job was killed"}

    by_seed = {run.path.name.split("-")[3]: run for run in list_runs(output)}
    assert [by_seed[f"s{seed}"].status() for seed in range(4)] == [
        *("interrupted", "complete", "interrupted", "complete")
    ]
    for seed in ("s1", "s3"):
        assert [row["step"] for row in by_seed[seed].rows()] == [1, *range(50, 2001, 50)]
    restarts = ask_slurm("sacct", "-j", f"{array}_1", "--duplicates", "--noheader", "-X", "--format=State")
    assert len(restarts) == 2, restarts  # it did run twice

    kept = {path: sha256_file(path) for path in output.rglob("*") if path.is_file()}
    finished = [
        path for path in kept if by_seed["s1"].path in path.parents or by_seed["s3"].path in path.parents
    ]
    again = subprocess.run(
        [*command, "--json", "--quiet"],
        cwd=tmp_path,
        env=command_env(),
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout) | {"schema_version": 1} == {
        **{"schema_version": 1, "sweep_id": "four", "planned": 4, "complete": 2, "skipped": 2},
        **{"failed": [], "not_begun": 0},
    }
    assert {path: sha256_file(path) for path in finished} == {path: kept[path] for path in finished}
    assert [path.name for path in tmp_path.iterdir()] == ["outputs"]
