"""Group C: a sweep whose runs break, or that is itself broken off."""

from __future__ import annotations

import json
import re
import resource
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from glu_bench.files import is_locked
from glu_bench.runs.folder import Run
from glu_bench.runs.record import add_checksum, read_rows
from glu_bench.study.plan import load_plan, make_plan
from tests.conftest import Ended, Train
from tests.faults.conftest import (
    LIMIT_S,
    Fault,
    Processes,
    newest_checkpoint,
    snapshot,
    tiny_command,
    worth_of,
)

LONG = ("train.checkpoint_every=50", "train.eval_every=1000", "train.eval_tokens=16")


def grid(tiny_words: list[str], *words: str) -> list[str]:
    """The words behind glu-bench that sweep the tiny run, a thread each on any machine."""
    return ["sweep", *tiny_command(tiny_words, "train.threads=1", *words)[2:]]


def by_seed(ended: Ended) -> dict[int, str]:
    """What the sweep's lines say became of each run, by its seed."""
    lines = re.findall(r"^\[\d+/\d+\] \S+-s(\d+)-\w+: (.*)$", ended.err, re.MULTILINE)
    assert len(lines) == len(dict(lines)), "a run ended twice"
    return {int(seed): words for seed, words in lines}


def find_seed(output_dir: Path, seed: int) -> Run:
    """The run of a seed."""
    (path,) = (output_dir / "runs").glob(f"*-s{seed}-*")
    return Run(path)


def at(point: str, seed: int) -> str:
    """A fail point of the run of one seed."""
    return f"{point}@swiglu-pico-text-s{seed}-"


def wait_until(seen: Callable[[], Any], limit_s: float = LIMIT_S) -> Any:
    """What a look at the disk gives once it gives anything."""
    until = time.monotonic() + limit_s
    while not (found := seen()):
        assert time.monotonic() < until, "it never came to that"
        time.sleep(0.02)
    return found


def statuses(processes: Processes, sweep_id: str) -> list[str]:
    """What `status` says of each run, in the order of the plan."""
    ended = processes.run("status", sweep_id, "--json")
    assert ended.code == 0, ended.err
    return [entry["status"] for entry in json.loads(ended.out)["sweeps"][0]["runs"]]


@pytest.mark.slow
def test_c1_each_run_fails_in_a_way_of_its_own(
    processes: Processes, tiny_words: list[str], fault: Fault, straight: dict[str, Any], tmp_path: Path
) -> None:
    """Of six runs one raises, one calls sys.exit(0), one sys.exit(3), one os._exit(9), one gets SIGKILL.

    All six are attempted; exit 5; a line each says how it ended, and to leave with 0 but without
    a record is to fail. The sixth is to the bit what it is alone. `status` calls the killed one
    interrupted, as the same command resumes it.
    """
    faults = (
        *(at("run.begin:raise", 1), at("run.begin:leave0", 2), at("run.begin:leave3", 3)),
        *(at("run.begin:exit9", 4), at("step.after_backward:kill9:3", 5)),
    )
    words = grid(tiny_words, "seed=range(0,6)", "--name", "six", "-j", "2")
    ended = processes.run(*words, env=fault(*faults))
    assert ended.code == 5
    found = by_seed(ended)
    assert sorted(found) == list(range(6))
    assert found[0].startswith("complete, test loss")
    assert found[1].startswith("failed: RuntimeError: asked to fail at run.begin (log: ")
    assert found[2].startswith("failed: exit 0: no output")
    assert found[3].startswith("failed: exit 3: no output")
    assert found[4].startswith("failed: exit 9: no output")
    assert found[5].startswith("failed: killed by signal 9, SIGKILL (possibly out of memory)")
    assert "glu-bench: 5 of 6 runs did not finish" in ended.err
    assert "Traceback" not in ended.err
    assert statuses(processes, "six") == ["complete", "failed", "failed", "failed", "failed", "interrupted"]
    assert worth_of(find_seed(tmp_path / "outputs", 0).path) == straight


@pytest.mark.slow
def test_c2_a_segmentation_fault(
    processes: Processes, tiny_words: list[str], fault: Fault, tmp_path: Path
) -> None:
    """A run reads address 0 in the midst of training, and the next one is well.

    Exit 5; "signal 11" stands in the report and in the run's folder; the next run is complete.
    """
    words = grid(tiny_words, "seed=0,1", "-j", "2")
    ended = processes.run(*words, env=fault(at("step.after_backward:segv:2", 0)))
    assert ended.code == 5
    found = by_seed(ended)
    assert found[0].startswith("failed: killed by signal 11, SIGSEGV")
    assert found[1].startswith("complete")
    outputs = tmp_path / "outputs"
    failure = find_seed(outputs, 0).failure()
    assert failure is not None
    assert failure["reason"] == "killed by signal 11, SIGSEGV"
    assert (find_seed(outputs, 0).status(), find_seed(outputs, 1).status()) == ("failed", "complete")


@pytest.mark.slow
def test_c3_the_sweep_is_killed_at_its_third_run(
    processes: Processes, tiny_words: list[str], tmp_path: Path
) -> None:
    """SIGKILL to a sweep of six in its third run; then the same command.

    Its process ends with it and saves; the second time the other four are trained, the third
    from where it was, and the folders of the first two stay as they are, byte for byte.
    """
    words = grid(tiny_words, *LONG, "train.steps=5,6,600,7,8,9", "--name", "killed", "--json", "--quiet")
    parent = processes.start(*words, "-j", "1")
    plan = wait_until(lambda: _read_plan(tmp_path / "outputs" / "sweeps" / "killed"))
    runs = [plan.run(planned) for planned in plan.runs]
    wait_until(lambda: len(read_rows(runs[2].metrics_path)) > 10)
    parent.kill()
    processes.end(parent)
    # a process that ends gives up its memory, and so its name here, before its locks
    wait_until(lambda: not (processes.list_left() or any(is_locked(run.path) for run in runs)))
    assert [run.status() for run in runs] == ["complete", "complete", "interrupted", *["planned"] * 3]
    before = [snapshot(run.path) for run in runs[:2]]
    rows = runs[2].metrics_path.read_bytes()
    assert newest_checkpoint(runs[2].path).name == f"step-{rows.count(10):08d}"  # of its last row
    ended = processes.run(*words, "-j", "2")
    assert ended.code == 0, ended.err
    found = json.loads(ended.out)
    assert (found["complete"], found["skipped"]) == (4, 2)
    assert [snapshot(run.path) for run in runs[:2]] == before
    assert runs[2].metrics_path.read_bytes().startswith(rows)
    assert [row["step"] for row in runs[2].rows()] == list(range(1, 601))


def _read_plan(folder: Path) -> Any:
    return load_plan(folder) if (folder / "plan.json").exists() else None


@pytest.mark.slow
def test_c4_ctrl_c_in_a_sweep(processes: Processes, tiny_words: list[str], tmp_path: Path) -> None:
    """SIGINT to a sweep of three in its first run.

    That run saves at the step it was at; `status` calls it interrupted and the others planned;
    exit 130, and a line that says how to go on.
    """
    words = grid(tiny_words, *LONG, "train.steps=5000", "seed=0,1,2", "--name", "c4", "--quiet", "-j", "1")
    parent = processes.start(*words)
    plan = wait_until(lambda: _read_plan(tmp_path / "outputs" / "sweeps" / "c4"))
    run = plan.run(plan.runs[0])
    wait_until(lambda: len(read_rows(run.metrics_path)) > 20)
    parent.send_signal(signal.SIGINT)
    ended = processes.end(parent, 60)
    assert ended.code == 130
    assert ended.err == "glu-bench: c4: stopped by SIGINT, 2 runs not begun; the same command goes on\n"
    assert newest_checkpoint(run.path).name == f"step-{len(run.rows()):08d}"
    assert statuses(processes, "c4") == ["interrupted", "planned", "planned"]


@pytest.mark.slow
def test_c5_a_complete_sweep_again(processes: Processes, tiny_words: list[str], tmp_path: Path) -> None:
    """A sweep that went well, and the same command again.

    The second time no run is executed and no file is touched; exit 0.
    """
    words = grid(tiny_words, "seed=0,1", "--json", "--quiet", "-j", "2")
    first = processes.run(*words)
    assert (first.code, json.loads(first.out)["complete"]) == (0, 2)
    before = snapshot(tmp_path / "outputs"), _times(tmp_path / "outputs")
    second = processes.run(*words)
    assert second.code == 0
    found = json.loads(second.out)
    assert (found["complete"], found["skipped"], found["failed"]) == (0, 2, [])
    assert (snapshot(tmp_path / "outputs"), _times(tmp_path / "outputs")) == before


def _times(folder: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in folder.rglob("*") if not path.is_dir()}


@pytest.mark.slow
def test_c6_a_name_with_another_grid(processes: Processes, tiny_words: list[str], tmp_path: Path) -> None:
    """A named sweep of one run, complete; again with a changed grid, with --extend, and without a name.

    A changed grid is refused with its difference, exit 2, and nothing is written; --extend trains
    the new run alone; without a name it is another sweep, which finds both runs complete.
    """
    name = ("--name", "named", "--json", "--quiet", "-j", "1")
    first = processes.run(*grid(tiny_words, "variant=relu", *name))
    assert first.code == 0, first.err
    before = snapshot(tmp_path / "outputs")
    refused = processes.run(*grid(tiny_words, "variant=gelu", *name))
    assert refused.code == 2
    lines = refused.err.splitlines()
    assert lines[0] == (
        "glu-bench: sweep named has another grid, 1 runs new and 1 gone; "
        "--extend adds the new ones, or choose another --name"
    )
    assert [(line.split()[0], line.split()[-1]) for line in lines[1:]] == [
        ("+", "variant=gelu"),
        ("-", "variant=relu"),
    ]
    assert snapshot(tmp_path / "outputs") == before
    extended = processes.run(*grid(tiny_words, "variant=gelu", *name, "--extend"))
    assert extended.code == 0, extended.err
    found = json.loads(extended.out)
    assert (found["planned"], found["complete"], found["skipped"]) == (2, 1, 1)
    unnamed = json.loads(processes.run(*grid(tiny_words, "variant=relu,gelu", "--json", "--quiet")).out)
    assert (unnamed["complete"], unnamed["skipped"]) == (0, 2)
    assert sorted(path.name for path in (tmp_path / "outputs" / "sweeps").iterdir()) == sorted(
        ["named", unnamed["sweep_id"]]
    )


@pytest.mark.slow
def test_c7_two_sweeps_at_once(processes: Processes, tiny_words: list[str], tmp_path: Path) -> None:
    """The same sweep twice at the same time in one folder.

    Each run is executed once: its record is written once and no step is logged twice. Both exit
    with 0 and count every run.
    """
    words = grid(tiny_words, *LONG, "train.steps=400", "seed=0,1,2", "--json", "--quiet", "-j", "1")
    both = [processes.start(*words) for _ in range(2)]
    records: dict[str, set[tuple[int, int]]] = {}
    until = time.monotonic() + LIMIT_S
    while any(one.poll() is None for one in both) and time.monotonic() < until:
        for path in (tmp_path / "outputs").glob("runs/*/result.json"):
            seen = path.stat()
            records.setdefault(path.parent.name, set()).add((seen.st_ino, seen.st_mtime_ns))
        time.sleep(0.01)
    ended = [processes.end(one) for one in both]
    assert [one.code for one in ended] == [0, 0], ended
    assert [len(versions) for versions in records.values()] == [1, 1, 1]
    counts = [json.loads(one.out) for one in ended]
    assert [one["complete"] + one["skipped"] for one in counts] == [3, 3]
    for path in (tmp_path / "outputs" / "runs").iterdir():
        assert [row["step"] for row in Run(path).rows()] == list(range(1, 401))


@pytest.mark.slow
def test_c8_runs_that_hang(processes: Processes, tiny_words: list[str], fault: Fault, tmp_path: Path) -> None:
    """One run sleeps before its first step, one is stopped by SIGSTOP, which is deaf to SIGTERM.

    --run-timeout ends the first by asking and the second by force; both have the status timeout
    and are on record as failed, the third run is complete; exit 5; no lock stays.
    """
    faults = fault(at("run.begin:sleep", 0), at("step.after_backward:stop:2", 1))
    words = grid(tiny_words, "seed=0,1,2", "-j", "3", "--run-timeout", "20")
    ended = processes.run(*words, env=faults)
    assert ended.code == 5
    found = by_seed(ended)
    assert [found[seed].partition(" (log")[0] for seed in (0, 1)] == ["timeout: timeout: more than 20 s"] * 2
    assert found[2].startswith("complete")
    runs = [find_seed(tmp_path / "outputs", seed) for seed in range(3)]
    assert [run.status() for run in runs] == ["failed", "failed", "complete"]
    assert not list((tmp_path / "outputs").rglob(".lock.pid"))


@pytest.mark.slow
def test_c9_the_first_failure_is_enough(
    processes: Processes, tiny_words: list[str], fault: Fault, tmp_path: Path
) -> None:
    """--fail-fast, and the first of three runs fails; then without it; then with --retry-failed.

    The first time no other run begins; the second time the other two are done and the failure
    still counts; both exit 5; the third time it is mended, exit 0.
    """
    words = grid(tiny_words, "seed=0,1,2", "--json", "--quiet")
    first = processes.run(*words, "-j", "1", "--fail-fast", env=fault(at("run.begin:raise", 0)))
    assert first.code == 5
    found = json.loads(first.out)
    assert (len(found["failed"]), found["complete"], found["not_begun"]) == (1, 0, 2)
    assert len(list((tmp_path / "outputs" / "runs").iterdir())) == 1
    second = processes.run(*words, "-j", "2")
    assert second.code == 5
    found = json.loads(second.out)
    assert (len(found["failed"]), found["complete"], found["not_begun"]) == (1, 2, 0)
    assert "asked to fail at run.begin, before; --retry-failed tries it again" in found["failed"][0]["reason"]
    third = processes.run(*words, "-j", "1", "--retry-failed")
    assert third.code == 0, third.err
    found = json.loads(third.out)
    assert (found["complete"], found["skipped"]) == (1, 2)


@pytest.mark.slow
def test_c10_nine_hundred_of_a_thousand_are_complete(
    processes: Processes, tiny_words: list[str], fault: Fault, tmp_path: Path
) -> None:
    """A sweep of 1,000 runs, 900 of which are complete, in a process that may open 64 files.

    To plan and to skip them takes less than 10 s of the processor's time until the first run
    begins, which is made to fail here: 900 complete already, 1 failed, 99 not begun.
    """
    outputs = tmp_path / "outputs"
    words = grid(tiny_words, "seed=range(0,1000)", "--name", "many", "--json", "--quiet")
    plan = make_plan([word for word in words[1:] if "=" in word], outputs, name="many")
    record = json.dumps(add_checksum({"test_loss_nats": 1.0, "tokens_per_s": 1.0}))
    for planned in plan.runs[:900]:
        path = plan.run(planned).path
        path.mkdir(parents=True)
        (path / "result.json").write_text(record)
    parent = processes.start(
        *words,
        *("-j", "1", "--fail-fast"),
        env=fault(at("run.begin:raise", 900)),
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64)),
    )
    wait_until((plan.folder / "logs").is_dir)
    fields = Path(f"/proc/{parent.pid}/stat").read_text().rpartition(")")[2].split()
    used_s = (int(fields[11]) + int(fields[12])) / 100  # utime and stime; Linux counts in hundredths
    ended = processes.end(parent)
    assert ended.code == 5
    found = json.loads(ended.out)
    assert (found["planned"], found["skipped"], found["not_begun"]) == (1000, 900, 99)
    assert [entry["reason"] for entry in found["failed"]] == ["RuntimeError: asked to fail at run.begin"]
    assert used_s < 10


@pytest.mark.slow
def test_c11_records_torn_and_edited(
    processes: Processes, tiny_words: list[str], train: Train, tmp_path: Path
) -> None:
    """Two complete runs; the result.json of one is cut in half, in the other a loss is changed.

    The sweep warns of both, does not take them for complete, finishes them again from their last
    checkpoint and exits with 0; the records are what they were.
    """
    outputs = tmp_path / "outputs"
    for seed in (0, 1):
        train(f"seed={seed}", output_dir=outputs)
    runs = [find_seed(outputs, seed) for seed in (0, 1)]
    before = [worth_of(run.path) for run in runs]
    torn, edited = (run.path / "result.json" for run in runs)
    torn.write_bytes(torn.read_bytes()[: torn.stat().st_size // 2])
    edited.write_text(re.sub(r'"test_loss_nats": [\d.]+', '"test_loss_nats": 0.5', edited.read_text()))
    ended = processes.run(*grid(tiny_words, "seed=0,1", "-j", "2"))
    assert ended.code == 0, ended.err
    for run in runs:
        assert f"warning: {run.run_id}: its result.json was torn or edited and does not count" in ended.err
    assert [words.split(",")[0] for words in by_seed(ended).values()] == ["complete"] * 2
    assert [worth_of(run.path) for run in runs] == before


@pytest.mark.slow
def test_c11_a_broken_folder_harms_no_other_run(
    processes: Processes, tiny_words: list[str], train: Train, tmp_path: Path
) -> None:
    """Of three runs that were begun one has a torn environment.json, one a torn failure.json.

    Both fail with a line that names the file; the third run is complete; exit 5.
    """
    outputs = tmp_path / "outputs"
    for seed in (0, 1):
        train(f"seed={seed}", output_dir=outputs)
        (find_seed(outputs, seed).path / "result.json").unlink()
    (find_seed(outputs, 0).path / "environment.json").write_text('{"n_threads": ')
    (find_seed(outputs, 1).path / "failure.json").write_text('{"status": ')
    words = grid(tiny_words, "seed=0,1,2", "-j", "3")
    words.remove("train.threads=1")  # so that each run's own are looked up
    ended = processes.run(*words)
    assert ended.code == 5, ended.err
    found = by_seed(ended)
    assert re.match(r"failed: .*environment\.json: not readable as JSON", found[0])
    assert re.match(r"failed: .*failure\.json: not readable as JSON .*--retry-failed", found[1])
    assert found[2].startswith("complete")
    assert "Traceback" not in ended.err
