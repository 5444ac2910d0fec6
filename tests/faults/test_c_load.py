"""Group C under load: a sweep of two hundred runs, every tenth of which is broken."""

from __future__ import annotations

import json
import re
import resource
import statistics
import subprocess
from pathlib import Path
from typing import Any

import pytest

from glu_bench.files import is_locked
from glu_bench.runs.folder import Run
from tests.faults.conftest import Fault, Processes, tiny_command

N_RUNS = 200
SHORT = (
    *("train.steps=3", "train.eval_every=3", "train.eval_tokens=16", "train.checkpoint_every=3"),
    "train.threads=1",
)
# of each kind the fail point, what the sweep and what `status` call the run afterwards, and the reason
KINDS = {
    "run.begin:sleep": ("timeout", "failed", "timeout: more than 100 s"),
    "step.after_backward:stop:2": ("timeout", "failed", "timeout: more than 100 s"),
    "run.begin:raise": ("failed", "failed", "RuntimeError: asked to fail at run.begin"),
    "run.begin:exit0": ("failed", "failed", "exit 0: no output"),
    "run.begin:leave3": ("failed", "failed", "exit 3: no output"),
    "step.after_backward:nan:2": ("diverged", "diverged", "loss is nan"),
    "step.after_backward:term:2": ("interrupted", "interrupted", "exit 143"),
    "step.after_backward:kill9:2": ("failed", "interrupted", "killed by signal 9, SIGKILL (possibly"),
    "step.after_backward:segv:3": ("failed", "failed", "killed by signal 11, SIGSEGV"),
    "ckpt.tmp_half:kill9": ("failed", "interrupted", "killed by signal 9, SIGKILL (possibly"),
    "ckpt.before_rename:enospc": ("failed", "failed", "ResourceError: "),
    "result.before_rename:kill9": ("failed", "interrupted", "killed by signal 9, SIGKILL (possibly"),
}
# which kind befalls which seed: those that hang at once, so that the others pass them by
HANGING, OTHERS = list(KINDS)[:2], list(KINDS)[2:]
BROKEN = {0: HANGING[0], 1: HANGING[1]} | {
    seed: OTHERS[number % len(OTHERS)] for number, seed in enumerate(range(25, N_RUNS, 10))
}
# what a healthy run's folder holds, and no more
WHOLE = {
    *(".lock", "blocks.safetensors", "config.yaml", "environment.json", "metrics.jsonl", "result.json"),
    *(f"checkpoints/step-00000003/{name}" for name in ("manifest.json", "state.json")),
    *(f"checkpoints/step-00000003/{name}.safetensors" for name in ("model", "optimizer")),
}
MAX_RISE_BYTES = 2**20  # 120 runs apart: less than 9 KiB a run


@pytest.mark.slow
def test_c12_two_hundred_runs_a_tenth_of_them_broken(
    processes: Processes, tiny_words: list[str], fault: Fault, tmp_path: Path
) -> None:
    """200 runs, 4 at a time; 20 sleep, stop, raise, leave, diverge, crash, find the disk full or are killed.

    Exit 5; the 180 others are complete, with every checksum and each step once; the report and
    `status` call each of the 20 what it is. No process, temporary file or lock is left, and no
    more than 64 files are open at once. The sweep's own memory is flat: of its anonymous
    resident memory, sampled four times a second, the median over the last 60 runs to end lies
    less than 1 MiB above that of the 20th to the 80th.
    """
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    short = (
        "train.threads=1",
        "train.steps=3",
        "train.eval_every=3",
        "train.checkpoint_every=3",
        "train.eval_tokens=16",
    )
    words = ["sweep", *tiny_command(tiny_words, *short)[2:], f"seed=range(0,{N_RUNS})", "--name", "load"]
    broken = [f"{point}@swiglu-pico-text-s{seed}-" for seed, point in BROKEN.items()]
    with (tmp_path / "out").open("w") as out, (tmp_path / "err").open("w") as err:
        parent = processes.start(
            *words,
            *("--json", "-j", "4", "--run-timeout", "100"),
            env=fault(*broken) | {"TMPDIR": str(scratch)},
            stdout=out,
            stderr=err,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64)),
        )
        samples = _sample(parent, tmp_path / "err")
        code = processes.end(parent, 10).code
    assert not processes.list_left()
    assert code == 5, (tmp_path / "err").read_text()

    outputs = tmp_path / "outputs"
    report = json.loads((tmp_path / "out").read_text())
    assert (report["planned"], report["complete"], report["not_begun"]) == (N_RUNS, N_RUNS - len(BROKEN), 0)
    ended = {_seed_of(entry["run_id"]): (entry["status"], entry["reason"]) for entry in report["failed"]}
    expected = {seed: KINDS[point] for seed, point in BROKEN.items()}
    statuses = {seed: status for seed, (status, _) in ended.items()}
    assert statuses == {seed: kind[0] for seed, kind in expected.items()}
    assert [seed for seed, kind in expected.items() if not ended[seed][1].startswith(kind[2])] == []
    (listed,) = json.loads(processes.run("status", "load", "--json").out)["sweeps"]
    assert {_seed_of(run["run_id"]): run["status"] for run in listed["runs"]} == {
        seed: expected[seed][1] if seed in expected else "complete" for seed in range(N_RUNS)
    }
    verified = processes.run("runs", "verify", "--json", limit_s=120)
    assert verified.code == 0, verified.out
    assert len(json.loads(verified.out)["runs"]) == N_RUNS

    for path in (outputs / "runs").iterdir():
        assert not is_locked(path)
        if _seed_of(path.name) not in BROKEN:
            assert [row["step"] for row in Run(path).rows()] == [1, 2, 3]
            assert {str(file.relative_to(path)) for file in path.rglob("*") if file.is_file()} == WHOLE
    assert not [path for path in outputs.rglob(".*") if path.name != ".lock"]
    assert {path.name for path in (outputs / "sweeps").rglob("*") if path.suffix != ".log"} == {
        *("load", "logs", "plan.json")
    }
    assert list(scratch.iterdir()) == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["err", "out", "outputs", "scratch"]

    early, late = (
        statistics.median(n_bytes for n_ended, n_bytes in samples if low <= n_ended <= high)
        for low, high in ((20, 80), (N_RUNS - 60, N_RUNS))
    )
    assert late - early < MAX_RISE_BYTES, samples[:: len(samples) // 40]


def _sample(parent: Any, err: Path) -> list[tuple[int, int]]:
    """Runs that have ended, and the parent's anonymous resident bytes, four times a second until it ends."""
    samples: list[tuple[int, int]] = []
    for _ in range(4 * 1500):
        try:
            parent.wait(0.25)
            break
        except subprocess.TimeoutExpired:
            status = Path(f"/proc/{parent.pid}/status").read_text()
            for n_kib in re.findall(r"^RssAnon:\s+(\d+) kB$", status, re.MULTILINE):  # none as it ends
                samples.append((err.read_text().count("\n["), 1024 * int(n_kib)))
    return samples


def _seed_of(run_id: str) -> int:
    return int(run_id.split("-")[-2].removeprefix("s"))
