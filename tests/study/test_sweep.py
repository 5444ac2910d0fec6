"""A pool of processes, none of which harms another."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from glu_bench.errors import ConfigError, InterruptedRunError
from glu_bench.files import hold_lock, write_json
from glu_bench.runs.folder import Run
from glu_bench.runs.record import write_record
from glu_bench.study import slots
from glu_bench.study import sweep as room
from glu_bench.study.plan import Plan, PlannedRun, make_plan
from glu_bench.study.slots import Slot, make_slots, make_slots_as_before
from glu_bench.study.sweep import (
    NO_LIMITS,
    Limits,
    RunEnded,
    RunStarted,
    judge_run,
    list_words,
    log_path,
    run_plan,
    settle_run,
)
from tests.conftest import REPO, Command, command_env, command_line

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


def ended(plan: Plan, n_parallel: int = 1, limits: Limits = NO_LIMITS) -> dict[int, RunEnded]:
    events = run_plan(plan, slots=make_slots(n_parallel), limits=limits)
    return {plan.runs.index(event.planned): event for event in events if isinstance(event, RunEnded)}


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


def test_all_arms_of_a_seed_go_before_the_next_seed(
    tiny_words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sweep that is stopped holds whole comparisons, and no arm has a machine of its own hour."""
    plan = make_plan([*tiny_words, "variant=relu,swish", "seed=1,0,2"], tmp_path)
    order: list[tuple[int, str]] = []

    def start(plan: Plan, planned: PlannedRun, *others: Any) -> subprocess.Popen[bytes]:
        order.append((planned.identity["seed"], planned.identity["variant.name"]))
        log_path(plan, planned).parent.mkdir(exist_ok=True)
        log_path(plan, planned).touch()
        return subprocess.Popen([sys.executable, "-c", "pass"])

    monkeypatch.setattr(room, "_start", start)
    list(run_plan(plan))
    assert order == [(seed, arm) for seed in range(3) for arm in ("relu", "swish")]


def test_what_is_complete_is_skipped_without_a_process(behave: Behave) -> None:
    plan = behave("raise SystemExit(9)", "raise SystemExit(9)")
    for planned in plan.runs:
        path = plan.run(planned).path
        path.mkdir(parents=True)
        write_record(path / "result.json", {"test_loss_nats": 1.0, "tokens_per_s": 1.0})
    events = list(run_plan(plan))
    assert [type(event) for event in events] == [RunEnded, RunEnded]
    assert {event.status for event in events if isinstance(event, RunEnded)} == {"skipped"}


@pytest.mark.parametrize(("before", "after"), [("}", ""), ("1.0", "0.5")])
def test_a_torn_or_edited_result_is_run_again(before: str, after: str, behave: Behave) -> None:
    plan = behave("raise SystemExit(9)")
    path = plan.run(plan.runs[0]).path
    path.mkdir(parents=True)
    write_record(path / "result.json", {"test_loss_nats": 1.0, "tokens_per_s": 2.0})
    text = (path / "result.json").read_text()
    assert before in text
    (path / "result.json").write_text(text.replace(before, after))
    events = list(run_plan(plan))
    assert [event.remark for event in events if isinstance(event, RunStarted)] == [
        "its result.json was torn or edited and does not count"
    ]
    assert [event.status for event in events if isinstance(event, RunEnded)] == ["failed"]


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
    assert reasons == ["killed by signal 15, SIGTERM"]
    assert signal.getsignal(number) is before


def test_a_run_that_is_begun_while_a_signal_comes_hears_it_too(
    behave: Behave, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = behave(WAIT, WAIT)
    start = room._start

    def start_late(*given: Any) -> Any:
        process = start(*given)
        signal.raise_signal(signal.SIGINT)  # before the pool knows the process
        return process

    monkeypatch.setattr(room, "_start", start_late)
    reasons: list[str | None] = []

    def consume() -> None:
        for event in run_plan(plan):
            if isinstance(event, RunEnded):
                reasons.append(event.reason)

    with pytest.raises(InterruptedRunError, match="1 runs not begun"):
        consume()
    assert reasons == ["killed by signal 15, SIGTERM"]


def test_breaking_off_leaves_no_process_behind(behave: Behave) -> None:
    plan = behave("import os; print(os.getpid(), flush=True); import time; time.sleep(60)")
    log = log_path(plan, plan.runs[0])
    events = run_plan(plan)
    while not (log.exists() and log.read_text().endswith("\n")):
        next(events)
    events.close()  # type: ignore[attr-defined]
    with pytest.raises(ProcessLookupError):
        os.kill(int(log.read_text()), 0)


def test_a_run_that_another_process_trains_is_waited_for(
    behave: Behave, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(REPO))
    plan = behave("raise SystemExit(9)", FINISH)
    path = plan.run(plan.runs[0]).path
    path.mkdir(parents=True)
    events = []
    with hold_lock(path):
        for event in run_plan(plan):
            events.append(event)
            if isinstance(event, RunEnded):
                break
        assert (event.planned, event.status) == (plan.runs[1], "complete")
        write_record(path / "result.json", {"test_loss_nats": 1.0, "tokens_per_s": 1.0})
    assert {i: e.status for i, e in ended(plan).items()} == {0: "skipped", 1: "skipped"}


def test_a_run_lost_to_a_quicker_sweep_is_looked_at_again(
    behave: Behave, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both saw the run free; the later process exits with 75, and the run is then found complete."""
    monkeypatch.setenv("PYTHONPATH", str(REPO))
    plan = behave(f"{FINISH}; sys.exit(75)")
    assert ended(plan)[0].status == "skipped"


def test_a_run_that_hangs_is_ended_after_its_time(behave: Behave, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(REPO))
    monkeypatch.setattr(room, "GRACE_S", 0.5)
    deaf = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"
    saves = (
        "import signal, sys, time; signal.signal(signal.SIGTERM, lambda *_: (print('saved'), sys.exit(143)));"
        "time.sleep(600)"
    )
    plan = behave(deaf, saves, FINISH)
    found = ended(plan, limits=Limits(run_timeout_s=2.0))
    assert [found[i].status for i in range(3)] == ["timeout", "timeout", "complete"]
    assert found[0].reason == "timeout: more than 2 s"
    assert log_path(plan, plan.runs[1]).read_text() == "saved\n"  # asked before it is killed


def test_what_a_killed_run_was_writing_is_deleted(behave: Behave, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(REPO))
    half_done = (
        "import os, sys, signal, time; from pathlib import Path; from glu_bench.files import hold_lock\n"
        "run = Path(sys.argv[1]); work = run / 'checkpoints' / f'.step-00000002.{os.getpid()}.tmp'\n"
        "work.mkdir(parents=True); (work / 'model.safetensors').write_text('half')\n"
        "(run / f'.result.json.{os.getpid()}.tmp').write_text('half')\n"
        "with hold_lock(run): os.kill(os.getpid(), signal.SIGKILL)"
    )
    plan = behave(half_done)
    assert "signal 9" in str(ended(plan)[0].reason)
    run = plan.run(plan.runs[0]).path
    assert sorted(path.name for path in run.rglob("*")) == [".lock", "checkpoints"]


@pytest.mark.parametrize(
    ("code", "status", "recorded"),
    [
        (-signal.SIGHUP, "interrupted", False),
        (-signal.SIGINT, "interrupted", False),
        (-signal.SIGTERM, "interrupted", False),
        (128 + signal.SIGHUP, "interrupted", False),
        (-signal.SIGKILL, "failed", False),
        (-signal.SIGSEGV, "failed", True),
        (-signal.SIGABRT, "failed", True),
        (5, "failed", True),
    ],
)
def test_only_a_failure_that_would_come_again_is_recorded(
    code: int, status: str, recorded: bool, behave: Behave
) -> None:
    plan = behave(WAIT)
    run, log = plan.run(plan.runs[0]), log_path(plan, plan.runs[0])
    for folder in (run.path, log.parent):
        folder.mkdir(parents=True)
    (run.path / "environment.json").write_text("{}")
    log.write_text("")
    assert judge_run(plan, plan.runs[0], code).status == status
    assert (run.failure() is not None) == recorded
    settled = settle_run(plan, plan.runs[0], retry_failed=False)
    assert (settled is not None) == recorded


def test_a_recorded_failure_is_tried_again_only_when_asked(behave: Behave) -> None:
    began = "import sys, pathlib; p = pathlib.Path(sys.argv[1]); p.mkdir(parents=True, exist_ok=True); "
    began += "(p / 'environment.json').write_text('{}'); (p / 'n').open('a').write('x'); sys.exit(9)"
    plan = behave(began)
    count = plan.run(plan.runs[0]).path / "n"
    assert ended(plan)[0].reason == "exit 9: no output"
    again = ended(plan)[0]
    assert (again.status, count.read_text()) == ("failed", "x")
    assert "exit 9: no output, before; --retry-failed" in str(again.reason)
    assert ended(plan, limits=Limits(retry_failed=True))[0].reason == "exit 9: no output"
    assert count.read_text() == "xx"


def test_what_diverged_is_not_tried_again_and_never_counts_as_done(
    behave: Behave, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(REPO))
    plan = behave(DIVERGE)
    assert ended(plan)[0].reason == "loss is nan"
    events = list(run_plan(plan, limits=Limits(retry_failed=True)))
    assert [type(event) for event in events] == [RunEnded]
    assert ended(plan)[0].status == "diverged"
    assert "loss is nan, before; it would again" in str(ended(plan)[0].reason)


def test_fail_fast_begins_no_more_and_the_next_sweep_does_the_rest(
    behave: Behave, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(REPO))
    plan = behave(KILL, FINISH, FINISH)
    assert {i: e.status for i, e in ended(plan, limits=Limits(fail_fast=True)).items()} == {0: "failed"}
    assert {i: e.status for i, e in ended(plan).items()} == {0: "failed", 1: "complete", 2: "complete"}


def test_when_the_time_is_up_runs_save_and_no_more_begin(
    behave: Behave, monkeypatch: pytest.MonkeyPatch
) -> None:
    saves = (
        "import signal, sys, time; signal.signal(signal.SIGTERM, lambda *_: sys.exit(143)); "
        "print('ready', flush=True); time.sleep(60)"
    )
    plan = behave(saves, saves)
    log, now = log_path(plan, plan.runs[0]), time.monotonic

    def tell_time() -> float:
        """An hour passes once the first run can be asked to save."""
        return now() + (3600 if log.exists() and log.read_text() else 0)

    monkeypatch.setattr(room.time, "monotonic", tell_time)
    found = ended(plan, limits=Limits(max_s=1800.0))
    assert {i: e.status for i, e in found.items()} == {0: "interrupted"}


def test_slots_share_cores_and_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slots, "count_cores", lambda: 8)
    assert make_slots(1) == [Slot()]
    assert [slot.words for slot in make_slots(3)] == [("train.threads=2",)] * 3
    assert [slot.words for slot in make_slots(9)] == [("train.threads=1",)] * 9
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert [slot.env["CUDA_VISIBLE_DEVICES"] for slot in make_slots(4, 2, 2)] == ["0", "1", "0", "1"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    assert [slot.env["CUDA_VISIBLE_DEVICES"] for slot in make_slots(2, 2)] == ["3", "5"]
    with pytest.raises(ConfigError, match="--per-gpu"):
        make_slots(3, 2)


def test_what_is_left_of_a_sweep_trains_with_the_threads_of_what_has_finished(
    tiny_words: list[str], finished_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slots, "count_cores", lambda: 8)
    plan = make_plan([*tiny_words, "seed=0,1"], tmp_path, name="rest")
    assert make_slots_as_before(plan) == []
    run = plan.run(plan.runs[0])
    shutil.copytree(finished_run.path, run.path)
    facts = run.environment()
    for n_threads, words in ((3, [("train.threads=3",)] * 2), (8, [("train.threads=8",)]), (9, [])):
        write_json(run.path / "environment.json", {**facts, "n_threads": n_threads})
        assert [slot.words for slot in make_slots_as_before(plan)] == words


def slow_words(tiny_words: list[str]) -> list[str]:
    words = [word for word in tiny_words if not word.startswith(("train.steps", "train.eval_every"))]
    return [*words, "train.steps=400", "train.eval_every=200", "seed=range(0,4)"]


@pytest.mark.slow
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


def test_a_run_that_began_keeps_its_threads_wherever_it_goes_on(behave: Behave) -> None:
    plan = behave(FINISH)
    planned, shared = plan.runs[0], Slot(words=("train.threads=1",))
    run = plan.run(planned)
    assert list_words(run, planned, shared) == [*planned.words, "train.threads=1"]
    assert list_words(run, planned, Slot()) == list(planned.words)
    run.path.mkdir(parents=True)
    (run.path / "environment.json").write_text(json.dumps({"n_threads": 2}))
    for slot in (shared, Slot()):
        assert list_words(run, planned, slot) == [*planned.words, "train.threads=2"]
    asked = replace(planned, words=(*planned.words, "train.threads=4"))
    assert list_words(run, asked, shared) == list(asked.words)


def test_a_process_gets_its_options_and_its_place_and_hears_no_ctrl_c(
    tiny_words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = make_plan(tiny_words, tmp_path)
    program = tmp_path / "program"
    program.write_text(
        f"#!{sys.executable}\nimport json, os, sys\n"
        "own_session = os.getsid(0) == os.getpid()\n"
        "print(json.dumps([sys.argv[1:], os.environ['CUDA_VISIBLE_DEVICES'], own_session]))"
    )
    program.chmod(0o755)
    monkeypatch.setattr(room.sys, "executable", str(program))
    slot = Slot(words=("train.threads=1",), env={"CUDA_VISIBLE_DEVICES": "3"})
    room._start(plan, plan.runs[0], slot, ("--config-dir", "own")).wait()
    words = [*plan.runs[0].words, "train.threads=1", "--config-dir", "own"]
    command = ["-m", "glu_bench", "train", *words, "--output-dir", str(tmp_path), "--quiet"]
    assert json.loads(log_path(plan, plan.runs[0]).read_text()) == [command, "3", True]


@pytest.mark.slow
def test_a_sweep_goes_on_with_another_number_of_runs_at_a_time(tiny_words: list[str], tmp_path: Path) -> None:
    command = command_line("sweep", *slow_words(tiny_words), "--output-dir", str(tmp_path), "--quiet")
    env = command_env(OMP_NUM_THREADS="2", MKL_NUM_THREADS=None)
    parent = subprocess.Popen([*command, "-j", "2"], env=env, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob("runs/*/checkpoints/step-*")) and time.monotonic() < deadline:
        time.sleep(0.02)
    parent.send_signal(signal.SIGTERM)
    assert parent.wait(timeout=60) == 143
    done = subprocess.run([*command, "-j", "1"], env=env, capture_output=True, check=False, timeout=240)
    assert done.returncode == 0, done.stderr.decode()


def test_a_dry_run_of_an_extended_sweep_finds_own_variants(
    tiny_words: list[str], call_command: Command, tmp_path: Path
) -> None:
    own = tmp_path / "own"
    (own / "variant").mkdir(parents=True)
    text = "name: mine\nfamily: own\nformula: tanh(g) * u\nsource: me\ngated: true\ngate: tanh\n"
    (own / "variant" / "mine.yaml").write_text(text)
    words = [*tiny_words, "variant=mine"]
    make_plan([*words, "seed=0"], tmp_path, name="two", config_dir=own)
    common = ["--config-dir", str(own), "--output-dir", str(tmp_path), "--name", "two", "--extend"]
    ended = call_command("sweep", *words, "seed=1", *common, "--dry-run", "--json", "-q")
    assert ended.code == 0, ended.err
    assert json.loads(ended.out)["pending"] == 2


@pytest.mark.slow
def test_a_command_of_a_dry_run_makes_the_planned_run_anywhere(
    tiny_words: list[str], run_command: Command, tmp_path: Path
) -> None:
    """The text is named from here, the variant's file is gone by then, its function is a plugin's."""
    (text,) = (word.partition("=")[2] for word in tiny_words if word.startswith("data.files="))
    words = [word for word in tiny_words if not word.startswith("data.files=")]
    here, there, outputs = tmp_path / "here", tmp_path / "there", tmp_path / "o"
    (here / "own" / "variant").mkdir(parents=True)
    there.mkdir()
    (here / "notes.txt").write_bytes(Path(text).read_bytes())
    variant = here / "own" / "variant" / "wavy.yaml"
    variant.write_text("name: wavy\nfamily: own\nformula: sin(g) * u\nsource: me\ngated: true\ngate: wave\n")
    (here / "wave.py").write_text("import torch\nACTIVATIONS = {'wave': torch.sin}\n")
    options = ["--config-dir", "own", "--plugin", "wave.py", "--output-dir", "../o", "--json", "--quiet"]
    grid = [*words, "data.files=notes.txt", "variant=wavy", "seed=0,1"]
    planned = run_command("sweep", *grid, "--dry-run", *options, cwd=here)
    assert planned.code == 0, planned.err
    runs = json.loads(planned.out)["runs"]
    assert runs[1]["words"][-2:] == ["variant=wavy", "seed=1"]
    variant.unlink()
    name, *command = runs[1]["command"]
    done = run_command(*command, cwd=there)
    assert (name, done.code) == ("glu-bench", 0), done.err
    assert [path.name for path in (outputs / "runs").iterdir()] == [runs[1]["run_id"]]
    assert Run(outputs / "runs" / runs[1]["run_id"]).status() == "complete"


def test_a_command_of_a_dry_run_keeps_the_threads_of_a_run_that_began(
    tiny_words: list[str], call_command: Command, tmp_path: Path
) -> None:
    plan = make_plan([*tiny_words, "seed=0,1"], tmp_path)
    path = plan.run(plan.runs[0]).path
    path.mkdir(parents=True)
    (path / "environment.json").write_text(json.dumps({"n_threads": 3}))
    command = ["sweep", *tiny_words, "seed=0,1", "--output-dir", str(tmp_path), "--dry-run", "--json", "-q"]
    runs = json.loads(call_command(*command).out)["runs"]
    threads = [[word for word in run["command"] if word.startswith("train.threads=")] for run in runs]
    assert threads == [["train.threads=3"], ["train.threads=null"]]
