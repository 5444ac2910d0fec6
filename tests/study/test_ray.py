"""A sweep through a real Ray on this machine, where it is installed."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from glu_bench.files import sha256_file
from glu_bench.runs.folder import list_runs
from tests.conftest import command_env, command_line
from tests.study.test_slurm import LONG, await_true, find_process

LOOPBACK = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "RAY_AUTH_MODE": "disabled"}


@pytest.fixture(autouse=True)
def needs_ray() -> None:
    """Skips where the extra is not installed."""
    pytest.importorskip("ray", reason="the extra ray")
    pytest.importorskip("hydra_plugins.hydra_ray_launcher", reason="the extra ray")


@pytest.mark.slow
def test_a_tuned_sweep_submits_again_and_again(tiny_words: list[str], tmp_path: Path) -> None:
    command = command_line("sweep", *tiny_words, "variant=relu", "seed=0", "--run-timeout", "200")
    command += ["--tune", "optim.lr=2e-3,4e-3", "--tune-seeds", "100", "--name", "t", "--json", "--quiet"]
    command += ["hydra/launcher=ray", "+hydra.launcher.ray.init.num_cpus=2"]
    done = subprocess.run(
        command,
        cwd=tmp_path,
        env=command_env(**LOOPBACK),
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["complete"] == 1
    assert len(list_runs(tmp_path / "outputs")) == 3


@pytest.mark.slow
def test_a_sweep_through_ray_with_a_run_killed(tiny_words: list[str], tmp_path: Path) -> None:
    keys = {word.split("=")[0] for word in LONG}
    settings = [*LONG, *(word for word in tiny_words if word.split("=")[0] not in keys), "seed=0,1,2,3"]
    output = tmp_path / "outputs"
    launcher = ["hydra/launcher=ray", "+hydra.launcher.ray.init.num_cpus=2"]
    command = command_line("sweep", *settings, *launcher, "--name", "four", "--output-dir", str(output))
    env = command_env(**LOOPBACK)
    sweep = subprocess.Popen(
        [*command, "--json", "--quiet"],
        cwd=tmp_path,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        await_true(lambda: any(output.glob("runs/*-s0-*/checkpoints/step-*")), "the first run has saved")
        os.kill(find_process("seed=0", str(output)), 9)
        out, err = sweep.communicate(timeout=240)
    finally:
        sweep.kill()
        sweep.communicate()
    assert sweep.returncode == 5, err
    assert "Traceback" not in err
    found = json.loads(out)
    assert (found["planned"], found["complete"]) == (4, 3)
    (failed,) = found["failed"]
    assert "-s0-" in failed["run_id"]
    assert failed["reason"] == "killed by signal 9, SIGKILL (possibly out of memory)"

    finished = [run.path for run in list_runs(output) if run.status() == "complete"]
    kept = {path: sha256_file(path) for folder in finished for path in folder.rglob("*") if path.is_file()}
    again = subprocess.run(
        [*command, "--json", "--quiet"],
        cwd=tmp_path,
        env=env,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert again.returncode == 0, again.stderr
    assert (json.loads(again.stdout)["complete"], json.loads(again.stdout)["skipped"]) == (1, 3)
    assert len(finished) == 3
    assert {path: sha256_file(path) for path in kept} == kept
    assert [path.name for path in tmp_path.iterdir()] == ["outputs"]
