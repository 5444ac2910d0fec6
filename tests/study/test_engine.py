"""A sweep through a launcher: what became of each run is read from disk."""

from __future__ import annotations

import json
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from glu_bench.config import load_config
from glu_bench.errors import BusyError, ConfigError, InterruptedRunError
from glu_bench.files import hold_lock
from glu_bench.launch import Launcher
from glu_bench.runs.record import read_record, write_record
from glu_bench.study import engine as room
from glu_bench.study import job as job_room
from glu_bench.study.engine import run_on_engine
from glu_bench.study.job import list_launches, write_launch
from glu_bench.study.plan import Plan, make_plan
from glu_bench.study.sweep import RunEnded, RunStarted
from tests.conftest import REPO, Command

HERE = ["hydra/launcher=basic"]  # Hydra's own: one job after the other, in this process
Behave = Callable[..., Plan]


def finish(path: Path) -> None:
    path.mkdir(parents=True)
    write_record(path / "result.json", {"test_loss_nats": 1.0, "tokens_per_s": 1.0})


def diverge(path: Path) -> None:
    path.mkdir(parents=True)
    failure = {"status": "diverged", "step": 3, "reason": "loss is nan"}
    (path / "failure.json").write_text(json.dumps(failure))


@pytest.fixture
def behave(tiny_words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Behave:
    """A plan whose runs, in place of training, do something to their folder and end with a code."""
    for name in ("POLL_S", "QUEUE_S", "SETTLE_S"):
        monkeypatch.setattr(room, name, 0.01)

    def plan_of(*ends: Any) -> Plan:
        plan = make_plan([*tiny_words, f"seed=range({len(ends)})"], tmp_path)
        end_of = {planned.run_id: end for planned, end in zip(plan.runs, ends, strict=True)}

        def train(record: dict[str, Any], job: dict[str, Any]) -> tuple[int, bool]:
            (Path(record["logs"]) / f"{job['run_id']}.log").write_text("glu-bench: last line\n")
            end = end_of[job["run_id"]]
            if callable(end):
                end(tmp_path / "runs" / job["run_id"])
                return 0, False
            return int(end), record["run_timeout_s"] is not None

        monkeypatch.setattr(job_room, "_train", train)
        return plan

    return plan_of


def ends(plan: Plan, words: list[str] = HERE) -> list[tuple[str, str | None]]:
    found = {e.planned: e for e in run_on_engine(plan, words) if isinstance(e, RunEnded)}
    return [(found[planned].status, found[planned].reason) for planned in plan.runs]


def test_every_run_is_judged_by_its_folder(behave: Behave) -> None:
    plan = behave(finish, 0, 3, -9, 143, diverge, finish)
    assert ends(plan) == [
        ("complete", None),
        ("failed", "exit 0: glu-bench: last line"),
        ("failed", "exit 3: glu-bench: last line"),
        ("failed", "killed by signal 9, SIGKILL (possibly out of memory)"),
        ("interrupted", "exit 143"),
        ("diverged", "loss is nan"),
        ("complete", None),
    ]


def test_a_run_whose_time_is_up_is_said_so_and_recorded(behave: Behave) -> None:
    plan = behave(143, -9, finish)
    environment = plan.run(plan.runs[0]).path / "environment.json"
    environment.parent.mkdir(parents=True)
    environment.write_text("{}")
    events = run_on_engine(plan, HERE, run_timeout_s=5.0)
    found = [(e.status, e.reason) for e in events if isinstance(e, RunEnded)]
    assert found == [("timeout", "timeout: more than 5 s")] * 2 + [("complete", None)]
    assert plan.run(plan.runs[0]).failure() == {"status": "failed", "reason": "timeout: more than 5 s"}
    again = "timeout: more than 5 s, before; --retry-failed tries it again"
    assert ends(plan)[0] == ("failed", again)


def test_what_is_complete_is_neither_submitted_nor_touched(behave: Behave) -> None:
    plan = behave(finish, 3)
    assert [status for status, _ in ends(plan)] == ["complete", "failed"]
    assert [status for status, _ in ends(plan)] == ["skipped", "failed"]
    first, second = list_launches(plan.folder / "jobs")
    assert first.run_ids == tuple(planned.run_id for planned in plan.runs)
    assert second.run_ids == (plan.runs[1].run_id,)


def test_options_are_words_of_each_job(behave: Behave) -> None:
    plan = behave(finish, finish)
    list(run_on_engine(plan, HERE, extra_words=("--config-dir", "own")))
    jobs = json.loads((plan.folder / "jobs" / "0000" / "launch.json").read_text())["jobs"]
    assert [job["words"] for job in jobs] == [[*p.words, "--config-dir", "own"] for p in plan.runs]


def test_runs_are_shown_from_start_to_end(behave: Behave) -> None:
    plan = behave(finish, finish)
    events = list(run_on_engine(plan, HERE))
    for planned in plan.runs:
        own = [type(e) for e in events if isinstance(e, RunStarted | RunEnded) and e.planned == planned]
        assert own == [RunStarted, RunEnded]


def test_a_launcher_that_breaks_before_any_job_is_one_line(
    behave: Behave, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: Launcher, n_jobs: int) -> None:
        raise RuntimeError("\nsbatch: error: invalid partition specified: nosuch\nsbatch: bye")

    monkeypatch.setattr(Launcher, "launch", refuse)
    with pytest.raises(
        ConfigError, match=r"^hydra/launcher=basic: sbatch: error: invalid partition"
    ) as caught:
        list(run_on_engine(behave(finish), HERE))
    assert "\n" not in str(caught.value)


def test_a_launcher_that_leaves_early_does_not_end_the_waiting(
    behave: Behave, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One job is killed with its worker, one never begins, one goes on and completes."""
    plan = behave(finish, finish, finish)

    def go_on(folder: Path) -> None:
        with hold_lock(folder):
            begun.set()
            time.sleep(0.5)
            finish(plan.run(plan.runs[2]).path)

    begun = threading.Event()

    def leave(self: Launcher, n_jobs: int) -> None:
        (folder,) = (plan.folder / "jobs").iterdir()
        for number in (0, 2):
            (folder / str(number)).mkdir()
        threading.Thread(target=go_on, args=(folder / "2",)).start()
        begun.wait()
        raise RuntimeError("job 0 failed")

    monkeypatch.setattr(Launcher, "launch", leave)
    monkeypatch.setattr(room, "QUIET_S", 0.2)
    assert ends(plan) == [
        ("failed", "its job was killed"),
        ("failed", "its job never began"),
        ("complete", None),
    ]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_the_waiting_and_says_what_becomes_of_the_jobs(
    number: int, code: int, behave: Behave, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = behave(finish)
    monkeypatch.setattr(Launcher, "launch", lambda self, n_jobs: time.sleep(1))
    before = signal.getsignal(number)
    events = run_on_engine(plan, HERE)
    next(events)
    signal.raise_signal(number)
    with pytest.raises(InterruptedRunError, match=r"waiting for 1 runs; .*; the same command") as caught:
        list(events)
    assert caught.value.exit_code == code
    assert signal.getsignal(number) is before


def test_a_job_that_is_still_alive_is_waited_for_and_not_submitted_again(behave: Behave) -> None:
    plan = behave(finish, finish)
    commands = {planned.run_id: list(planned.words) for planned in plan.runs[:1]}
    launch = write_launch(plan.folder / "jobs" / "0000", "basic", commands, plan.folder, plan.folder / "logs")
    (launch.folder / "0").mkdir()
    with hold_lock(launch.folder / "0"):
        events = run_on_engine(plan, HERE)
        while not plan.run(plan.runs[1]).path.exists():
            next(events)
        finish(plan.run(plan.runs[0]).path)
        assert {e.status for e in events if isinstance(e, RunEnded)} == {"complete"}
    assert list_launches(plan.folder / "jobs")[1].run_ids == (plan.runs[1].run_id,)


def test_a_sweep_that_is_held_elsewhere_is_busy(behave: Behave) -> None:
    plan = behave(finish)
    with hold_lock(plan.folder), pytest.raises(BusyError):
        next(run_on_engine(plan, HERE))


@pytest.mark.slow
def test_a_real_sweep_by_jobs_of_submitit(
    tiny_words: list[str], call_command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each job is a process that submitit starts; paths are relative to where the command was given."""
    pytest.importorskip("submitit", reason="the extra slurm")
    (text,) = (word.partition("=")[2] for word in tiny_words if word.startswith("data.files="))
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "notes.txt").symlink_to(text)
    (tmp_path / "here" / "own" / "variant").mkdir(parents=True)
    variant = (REPO / "configs" / "variant" / "relu.yaml").read_text(encoding="utf-8")
    own = variant.replace("name: relu", "name: mine")
    (tmp_path / "here" / "own" / "variant" / "mine.yaml").write_text(own, encoding="utf-8")
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("PYTHONPATH", str(REPO))
    words = [word for word in tiny_words if not word.startswith("data.files=")]
    command = [
        "sweep",
        *words,
        "data.files=notes.txt",
        "variant=mine",
        "optim.eps=1e-30",
        "optim.lr=1e-3,1e9",
    ]
    command += ["optim.clip_norm=1e9", "hydra/launcher=submitit_local", "hydra.launcher.timeout_min=5"]
    command += ["--config-dir", "own", "--name", "two", "--json", "--quiet"]
    first = call_command(*command)
    assert first.code == 5, first.err
    found = json.loads(first.out)
    assert (found["planned"], found["complete"], found["skipped"]) == (2, 1, 0)
    assert [entry["status"] for entry in found["failed"]] == ["diverged"]
    assert sorted(path.name for path in Path().iterdir()) == ["notes.txt", "outputs", "own"]
    assert sorted(path.name for path in Path("outputs").iterdir()) == ["runs", "sweeps"]


@pytest.mark.slow
def test_a_tuned_sweep_is_tuned_by_jobs_too_and_a_limit_holds_for_each(
    tiny_words: list[str], call_command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The middle rate is best, the highest hangs; every arm's choice is confirmed by jobs."""
    limits: list[float] = []
    trained: list[tuple[str, ...]] = []

    def train(record: dict[str, Any], job: dict[str, Any]) -> tuple[int, bool]:
        config = load_config(job["words"])
        trained.append((config.variant.name, f"{config.optim.lr:g}", str(config.seed)))
        limits.append(record["run_timeout_s"])
        if config.optim.lr == 4e-3:
            return 143, True
        path = tmp_path / "runs" / job["run_id"]
        path.mkdir(parents=True)
        record = {"val_loss_nats": abs(config.optim.lr - 2e-3), "test_loss_nats": 1.0, "tokens_per_s": 1.0}
        write_record(path / "result.json", record)
        return 0, False

    monkeypatch.setattr(job_room, "_train", train)
    command = ["sweep", *tiny_words, "variant=gelu,swiglu", "seed=0,1", *HERE, "--run-timeout", "7"]
    command += ["--tune", "optim.lr=1e-3,2e-3,4e-3", "--tune-seeds", "100"]
    ended = call_command(*command, "--name", "t", "--output-dir", str(tmp_path), "--json", "--quiet")
    assert ended.code == 0, ended.err
    assert json.loads(ended.out)["complete"] == 4
    arms = ("gelu", "swiglu")
    assert trained[:6] == [(arm, rate, "100") for arm in arms for rate in ("0.001", "0.002", "0.004")]
    assert trained[6:] == [(arm, "0.002", seed) for arm in arms for seed in ("0", "1")]
    assert limits == [7.0] * 10
    assert len(list_launches(tmp_path / "sweeps" / "t-tune" / "jobs")) == 1
    (launch,) = list_launches(tmp_path / "sweeps" / "t" / "jobs")
    assert set(launch.run_ids) == set(read_record(tmp_path / "sweeps" / "t" / "tuning.json")["runs"])


def test_a_mistaken_launcher_leaves_no_plan(
    tiny_words: list[str], call_command: Command, tmp_path: Path
) -> None:
    for words in (["hydra/launcher=nosuch"], [*HERE, "-j", "2"], [*HERE, "--per-gpu", "1"]):
        ended = call_command("sweep", *tiny_words, "seed=0,1", *words, "--output-dir", str(tmp_path / "o"))
        assert (ended.code, ended.out, ended.err.count("\n")) == (2, "", 1)
    assert not (tmp_path / "o").exists()


def test_the_launcher_is_no_part_of_the_plan(
    tiny_words: list[str], call_command: Command, tmp_path: Path
) -> None:
    command = ["sweep", *tiny_words, "seed=0,1", "--output-dir", str(tmp_path), "--dry-run", "--json", "-q"]
    assert call_command(*command).out == call_command(*command, *HERE).out
