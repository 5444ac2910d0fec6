"""A job: what an engine's worker does for one run of a sweep, and what it leaves on disk.

A launch is a folder with launch.json, which says what each job is, and a folder a job:
begun when it is there, locked while the job lives, ended.json when it could still say so.
Judging what became of the run is left to those who read its folder.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from glu_bench.errors import DataError
from glu_bench.files import hold_lock, is_locked, make_folder, read_json, write_json
from glu_bench.train.stop import end_with_parent

ASKED_TO_STOP = (128 + signal.SIGINT, 128 + signal.SIGTERM)
GRACE_S = 10.0  # from asking a run to save and end until it is killed
SETTLE_S = 60.0  # an attempt that was told to stop may still be saving when the next one comes


@dataclass(frozen=True)
class Launch:
    """The jobs that were submitted together; job number i trains run_ids[i]."""

    folder: Path
    engine: str
    run_ids: tuple[str, ...]

    def has_begun(self, number: int) -> bool:
        """Whether a job got as far as a worker."""
        return (self.folder / str(number)).is_dir()

    def is_alive(self, number: int) -> bool:
        """Whether a job's worker is at it now, on a machine whose locks can be seen here."""
        return is_locked(self.folder / str(number))

    def exit_code(self, number: int) -> int | None:
        """How the run's process ended, a signal as a negative number; None if the job did not say."""
        code = self._read_end(number).get("exit_code")
        return None if code is None else int(code)

    def timeout_s(self, number: int) -> float | None:
        """The seconds after which a job ended its run; None if it did not."""
        limit_s = self._read_end(number).get("timeout_s")
        return None if limit_s is None else float(limit_s)

    def _read_end(self, number: int) -> dict[str, Any]:
        path = self.folder / str(number) / "ended.json"
        return read_json(path) if path.exists() else {}


def write_launch(
    folder: Path,
    engine: str,
    commands: dict[str, list[str]],
    output_dir: Path,
    logs: Path,
    run_timeout_s: float | None = None,
) -> Launch:
    """Put on disk what jobs will read: the train words of each run, by its id, and how long it may take."""
    make_folder(folder)
    make_folder(logs)
    record = {
        "schema_version": 1,
        "engine": engine,
        "working_dir": str(Path.cwd()),  # words may hold relative paths
        "output_dir": str(output_dir.absolute()),
        "logs": str(logs.absolute()),
        "run_timeout_s": run_timeout_s,
        "jobs": [{"run_id": run_id, "words": words} for run_id, words in commands.items()],
    }
    write_json(folder / "launch.json", record)
    return Launch(folder, engine, tuple(commands))


def list_launches(folder: Path) -> list[Launch]:
    """The launches under a folder, those with a record that can be read, oldest first."""
    found = []
    for path in sorted(folder.glob("*/launch.json")):
        try:
            record = read_json(path)
            ids = tuple(str(job["run_id"]) for job in record["jobs"])
            found.append(Launch(path.parent, str(record["engine"]), ids))
        except (DataError, KeyError, TypeError):
            continue  # a launch that was cut off before it submitted anything
    return found


def run_job(job: Any) -> None:
    """Train one run in a process of its own; called by an engine's worker with a `JobConfig`."""
    launch, number = Path(job.folder), int(job.number)
    record = read_json(launch / "launch.json")
    folder = launch / str(number)
    make_folder(folder)
    with hold_lock(folder, timeout_s=SETTLE_S):
        (folder / "ended.json").unlink(missing_ok=True)
        code, timed_out = _train(record, record["jobs"][number])
        end = {"exit_code": code, "timeout_s": record["run_timeout_s"] if timed_out else None}
        write_json(folder / "ended.json", end)
    if code in ASKED_TO_STOP and not timed_out and "SUBMITIT_EXECUTOR" in os.environ:
        # stopped because SLURM takes the machine away; a job that returned would be over for
        # submitit, even where SLURM has queued it again
        raise SystemExit(code)


def _train(record: dict[str, Any], job: dict[str, Any]) -> tuple[int, bool]:
    """How the run's process ended, and whether its time was up."""
    words = list(job["words"])
    n_cpus = os.environ.get("SLURM_CPUS_PER_TASK")
    if n_cpus and not any(word.startswith("train.threads=") for word in words):
        words.append(f"train.threads={n_cpus}")
    command = [sys.executable, "-m", "glu_bench", "train", *words]
    command += ["--output-dir", record["output_dir"], "--quiet"]
    log = Path(record["logs"]) / f"{job['run_id']}.log"
    with log.open("wb") as file:
        process = subprocess.Popen(
            command,
            cwd=record["working_dir"],
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=_leave_warnings_to_parent if sys.platform == "linux" else None,
        )
        try:
            return _await(process, record.get("run_timeout_s"))
        finally:
            process.wait()  # submitit leaves by an exception once it has queued the job again


def _await(process: subprocess.Popen[bytes], limit_s: float | None) -> tuple[int, bool]:
    try:
        return process.wait(limit_s), False
    except subprocess.TimeoutExpired:
        process.terminate()
    try:
        return process.wait(GRACE_S), True
    except subprocess.TimeoutExpired:
        process.kill()
    return process.wait(), True


def _leave_warnings_to_parent() -> None:
    """SLURM warns every process of a job; the job queues itself again, then SIGTERM comes."""
    end_with_parent()
    for number in (signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)
