"""What needs a process of its own: signals, pipes, the environment."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from glu_bench.runs.checkpoint import list_checkpoints, load_checkpoint
from glu_bench.runs.folder import Run, list_runs
from tests.conftest import Command, Train, command_env, command_line

LONG = ("train.steps=120", "train.batch_size=16", "train.checkpoint_every=20", "train.eval_every=120")


@pytest.fixture(scope="module")
def straight_sha256(tiny_config: Any, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The weights of the long run, undisturbed."""
    from glu_bench.train.events import Finished
    from glu_bench.train.loop import train_run
    from glu_bench.train.stop import StopRequest

    events = list(train_run(tiny_config(*LONG), tmp_path_factory.mktemp("straight"), StopRequest()))
    assert isinstance(events[-1], Finished)
    return str(events[-1].record["parameters_sha256"])


def start_and_wait_for_rows(words: list[str], output_dir: Path, n_rows: int) -> subprocess.Popen[str]:
    """The long run as a process, so many rows after its start."""
    keys = {word.split("=")[0] for word in LONG}
    settings = [*LONG, *(word for word in words if word.split("=")[0] not in keys)]
    process = subprocess.Popen(
        command_line("train", *settings, "--output-dir", str(output_dir)),
        env=command_env(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    until = time.monotonic() + 60
    while time.monotonic() < until and process.poll() is None:
        if any(len(run.metrics_path.read_bytes().splitlines()) >= n_rows for run in begun(output_dir)):
            return process
        time.sleep(0.005)
    process.kill()
    raise AssertionError(process.communicate())


def begun(output_dir: Path) -> list[Run]:
    return [run for run in list_runs(output_dir) if run.metrics_path.exists()]


@pytest.mark.parametrize(
    ("signals", "code"),
    [((signal.SIGTERM,), 143), ((signal.SIGINT, signal.SIGINT), 130), ((signal.SIGKILL,), -9)],
    ids=["SIGTERM", "SIGINT twice", "SIGKILL"],
)
def test_a_run_ended_by_a_signal_goes_on_to_the_undisturbed_weights(
    signals: tuple[signal.Signals, ...],
    code: int,
    tiny_words: list[str],
    train: Train,
    straight_sha256: str,
    tmp_path: Path,
) -> None:
    process = start_and_wait_for_rows(tiny_words, tmp_path, 45)
    for number in signals:
        process.send_signal(number)
    out, err = process.communicate(timeout=10)
    assert process.returncode == code
    assert "Traceback" not in err
    assert out == ""
    (run,) = list_runs(tmp_path)
    assert run.status() == "interrupted"
    steps = [load_checkpoint(path, run.run_id).step for path in list_checkpoints(run.checkpoints)]
    assert 40 <= max(steps) < 120
    if signals == (signal.SIGTERM,):
        assert max(steps) == run.rows()[-1]["step"]
        assert f"stopped and saved at step {max(steps)}; the same command goes on" in err
    assert train(*LONG)["parameters_sha256"] == straight_sha256
    assert [row["step"] for row in run.rows()] == list(range(1, 121))


def test_a_reader_that_leaves_early_causes_no_traceback(finished_run: Run) -> None:
    listing = " ".join(["'" + word + "'" for word in command_line("runs", "show", str(finished_run.path))])
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", f"{listing} | head -1"],
        env=command_env(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout.count("\n") == 1
    assert done.stderr == ""
    assert done.returncode == 0


def test_help_is_quick_and_needs_no_torch(run_command: Command) -> None:
    ended = run_command("--help", env=[("PYTHONPROFILEIMPORTTIME", "1")])
    assert ended.code == 0
    assert {"train", "sweep", "compare"} <= set(ended.out.split())
    imported = {line.rsplit("|", 1)[-1].strip().split(".")[0] for line in ended.err.splitlines()}
    assert "typer" in imported
    assert imported.isdisjoint({"torch", "numpy", "datasets", "hydra", "omegaconf", "matplotlib", "plotly"})


def test_the_module_and_the_command_are_one() -> None:
    from glu_bench.cli.main import main

    scripts = (Path(__file__).parents[2] / "pyproject.toml").read_text()
    assert f'glu-bench = "{main.__module__}:{main.__name__}"' in scripts
    assert sys.version_info >= (3, 11)
