"""A pool of processes, none of which harms another."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from glu_bench.errors import BusyError, InterruptedRunError
from glu_bench.files import hold_lock
from glu_bench.runs.record import write_record
from glu_bench.study import sweep as room
from glu_bench.study.plan import Plan, PlannedRun, make_plan
from glu_bench.study.sweep import RunEnded, RunStarted, log_path, run_plan
from tests.conftest import REPO, Command

Behave = Callable[..., Plan]


@pytest.fixture
def behave(tiny_words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Behave:
    """A plan of as many runs as codes, each run's process doing its code in place of training."""
    monkeypatch.setattr(room, "POLL_S", 0.01)

    def plan_of(*codes: str) -> Plan:
        plan = make_plan([*tiny_words, f"seed=range({len(codes)})"], tmp_path)
        code_of = {planned.run_id: code for planned, code in zip(plan.runs, codes, strict=True)}

        def start(plan: Plan, planned: PlannedRun, *others: Any) -> subprocess.Popen[bytes]:
            log = log_path(plan, planned)
            log.parent.mkdir(exist_ok=True)
            with log.open("wb") as file:
                command = [sys.executable, "-c", code_of[planned.run_id], str(plan.run(planned).path)]
                return subprocess.Popen(command, stdout=file, stderr=file, start_new_session=True)

        monkeypatch.setattr(room, "_start", start)
        return plan

    return plan_of


FINISH = (
    "import sys; from pathlib import Path; from glu_bench.runs.record import write_record\n"
    "path = Path(sys.argv[1]); path.mkdir(parents=True)\n"
    "write_record(path / 'result.json', {'test_loss_nats': 1.0, 'tokens_per_s': 1.0})"
)
DIVERGE = (
    "import sys, json; from pathlib import Path\n"
    "path = Path(sys.argv[1]); path.mkdir(parents=True)\n"
    "path.joinpath('failure.json').write_text("
    "json.dumps({'status': 'diverged', 'step': 3, 'reason': 'loss is nan'})); sys.exit(4)"
)
KILL = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
CRASH = "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)"
WAIT = "import time; print('waiting', flush=True); time.sleep(60)"


def ended(plan: Plan, n_parallel: int = 1) -> dict[int, RunEnded]:
    events = [event for event in run_plan(plan, n_parallel=n_parallel) if isinstance(event, RunEnded)]
    return {plan.runs.index(event.planned): event for event in events}


@pytest.mark.parametrize("n_parallel", [1, 3])
def test_every_run_is_tried_whatever_becomes_of_the_others(
    n_parallel: int, behave: Behave, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(REPO))
    codes = (DIVERGE, "raise ValueError('odd')", "raise SystemExit(0)", "import os; os._exit(9)", KILL, CRASH)
    plan = behave(*codes, FINISH)
    found = ended(plan, n_parallel)
    assert len(found) == 7
    assert [found[i].status for i in range(7)] == ["diverged", *["failed"] * 5, "complete"]
    reasons = [str(found[i].reason) for i in range(7)]
    assert reasons[0] == "loss is nan"
    assert reasons[1] == "exit 1: ValueError: odd"
    assert reasons[2] == "exit 0: no output"
    assert reasons[3].startswith("exit 9")
    assert "signal 9, SIGKILL (possibly out of memory)" in reasons[4]
    assert "signal 11, SIGSEGV" in reasons[5]


def test_what_is_complete_is_skipped_without_a_process(behave: Behave) -> None:
    plan = behave("raise SystemExit(9)", "raise SystemExit(9)")
    for planned in plan.runs:
        path = plan.run(planned).path
        path.mkdir(parents=True)
        write_record(path / "result.json", {"test_loss_nats": 1.0, "tokens_per_s": 1.0})
    events = list(run_plan(plan))
    assert [type(event) for event in events] == [RunEnded, RunEnded]
    assert {event.status for event in events if isinstance(event, RunEnded)} == {"skipped"}


def test_a_torn_result_is_run_again(behave: Behave) -> None:
    plan = behave("raise SystemExit(9)")
    path = plan.run(plan.runs[0]).path
    path.mkdir(parents=True)
    (path / "result.json").write_text('{"test_loss_nats": 1.0')
    assert ended(plan)[0].status == "failed"


@pytest.mark.parametrize(("number", "exit_code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_the_runs_in_flight_and_begins_no_other(
    number: int, exit_code: int, behave: Behave
) -> None:
    plan = behave(WAIT, WAIT, WAIT)
    started: list[PlannedRun] = []
    reasons: list[str | None] = []
    raised: list[int] = []
    before = signal.getsignal(number)

    def consume() -> None:
        for event in run_plan(plan):
            if isinstance(event, RunStarted):
                started.append(event.planned)
            elif isinstance(event, RunEnded):
                reasons.append(event.reason)
            elif not raised and log_path(plan, plan.runs[0]).stat().st_size:
                raised.append(number)
                signal.raise_signal(number)

    with pytest.raises(InterruptedRunError, match="2 runs not begun") as caught:
        consume()
    assert caught.value.exit_code == exit_code
    assert started == plan.runs[:1]
    assert [f"killed by signal {int(number)}," in str(reason) for reason in reasons] == [True]
    assert signal.getsignal(number) is before


def test_breaking_off_leaves_no_process_behind(behave: Behave) -> None:
    plan = behave("import os; print(os.getpid(), flush=True); import time; time.sleep(60)")
    log = log_path(plan, plan.runs[0])
    events = run_plan(plan)
    while not (log.exists() and log.read_text().endswith("\n")):
        next(events)
    events.close()  # type: ignore[attr-defined]
    with pytest.raises(ProcessLookupError):
        os.kill(int(log.read_text()), 0)


def test_a_sweep_that_is_held_elsewhere_is_busy(behave: Behave) -> None:
    plan = behave(FINISH)
    with hold_lock(plan.folder), pytest.raises(BusyError):
        next(run_plan(plan))


def test_a_real_sweep_with_a_diverging_run_completes_the_others_and_repeats_nothing(
    tiny_words: list[str], call_command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(REPO))
    words = [word for word in tiny_words if not word.startswith("train.steps")]
    words += ["train.steps=40", "optim.eps=1e-30", "optim.clip_norm=1e9", "optim.lr=1e-3,1e9,2e-3"]
    command = ["sweep", *words, "--output-dir", str(tmp_path), "--name", "three", "--json", "--quiet"]
    first = call_command(*command)
    assert first.code == 5
    found = json.loads(first.out)
    assert (found["sweep_id"], found["planned"], found["complete"], found["skipped"]) == ("three", 3, 2, 0)
    assert [entry["status"] for entry in found["failed"]] == ["diverged"]
    kept = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("result.json")}
    assert len(kept) == 2
    second = json.loads(call_command(*command).out)
    assert (second["complete"], second["skipped"], len(second["failed"])) == (0, 2, 1)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("result.json")} == kept
    status = json.loads(call_command("status", "three", "--output-dir", str(tmp_path), "--json").out)
    assert [run["status"] for run in status["sweeps"][0]["runs"]] == ["complete", "diverged", "complete"]
