"""What a rank leaves behind for whoever watches it: the step it is at, and how it ended.

A folder that the launcher made holds rank-N.step, eight bytes, and rank-N.json.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
import struct
import sys
import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from glu_bench.errors import DataError, DivergedError, GluBenchError, LostRankError, explain_end
from glu_bench.faults import reach
from glu_bench.files import explain_disk, make_folder, read_json, write_json, write_text
from glu_bench.ranks import is_rank

FOLDER = "GLU_BENCH_RANKS_DIR"  # set by the launcher


@dataclass(frozen=True, kw_only=True)
class RankReport:
    """How a rank ended."""

    rank: int
    exit_code: int
    message: str
    lost: bool  # only because another rank had ended
    trace: str | None  # for a bug
    ended_at_s: float  # of the machine's clock that never goes back


def write_step(rank: int, step: int) -> None:
    """Note the step that this rank computes now, if somebody watches.

    Raises: ResourceError if not even this can be written.
    """
    if FOLDER not in os.environ:
        return
    path = Path(os.environ[FOLDER]) / f"rank-{rank}.step"
    with explain_disk(path, 8):
        os.pwrite(_open_steps(path), struct.pack("<q", step), 0)


@functools.cache  # open for as long as the process lives: on a shared disk opening takes longer than a step
def _open_steps(path: Path) -> int:
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)


def write_run(path: Path) -> None:
    """Note the run folder, if somebody watches; rank 0 calls it once it has the folder's lock."""
    if FOLDER in os.environ:
        write_text(Path(os.environ[FOLDER]) / "run", str(path))


def note_failure(folder: Path, error: Exception) -> None:
    """Write failure.json of the run whose ranks reported here, in the words of whoever watched them.

    What a rank saw of another's going is replaced; a stop or a divergence stands as it is.
    """
    try:
        run = Path((folder / "run").read_text(encoding="utf-8"))
    except OSError:
        return  # it did not come as far
    if getattr(error, "exit_code", 1) in (DivergedError.exit_code, 130, 143):
        return
    reason = str(error).splitlines()[-1]  # of a bug, what was raised
    write_json(run / "failure.json", {"status": "failed", "reason": reason})


def read_step(folder: Path, rank: int) -> int | None:
    """The step a rank was at, or None before the first."""
    try:
        return int(struct.unpack("<q", (folder / f"rank-{rank}.step").read_bytes())[0])
    except (OSError, struct.error):
        return None


@contextlib.contextmanager
def end_as_rank(output_dir: Path) -> Iterator[None]:
    """Report how this process ends if it is one of several, and end it here, with its exit code.

    Nothing waits for the group to be taken apart: the others may be gone. Nor is the interpreter:
    a thread of the group that wants it then aborts a process whose work is done. Without our
    launcher (under torchrun) an error is printed as well, and its file lies under <output_dir>/.ranks.
    """
    if not is_rank():
        yield
        return
    rank, launched = int(os.environ["RANK"]), FOLDER in os.environ
    if not launched:
        name = f"{os.environ.get('TORCHELASTIC_RUN_ID', 'none')}-{os.environ.get('MASTER_PORT', '')}"
        os.environ[FOLDER] = str(output_dir / ".ranks" / name)
    folder = Path(os.environ[FOLDER])
    make_folder(folder)
    try:
        try:
            yield
            sys.stdout.flush()  # here, where a full disk under it is an error like any other
        except (BrokenPipeError, SystemExit) as leaving:
            if not isinstance(leaving.__context__ or leaving, BrokenPipeError):
                raise  # else nobody reads on, as in `glu-bench … | head`
        reach("rank.end")
    except BaseException as caught:
        report = _make_report(rank, caught)
        with contextlib.suppress(OSError, GluBenchError):  # a full disk has been said already
            _write_report(folder, report)
        if not launched:
            print(f"{report.trace or ''}glu-bench: rank {rank}: {report.message}", file=sys.stderr)
        _exit_now(report.exit_code)
    if launched:
        _write_report(folder, _make_report(rank, None))
    else:
        for name in (f"rank-{rank}.step", *(("run",) if rank == 0 else ())):
            (folder / name).unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # the last rank takes the folder away
            folder.rmdir()
    _exit_now(0)


def _exit_now(exit_code: int) -> NoReturn:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):  # nobody reads on, or it is closed
            stream.flush()
    os._exit(exit_code)


def _make_report(rank: int, error: BaseException | None) -> RankReport:
    code, words = (0, "done") if error is None else explain_end(error)
    trace = "".join(traceback.format_exception(error)) if code == 1 and error is not None else None
    return RankReport(
        rank=rank,
        exit_code=code,
        message=words or str(error) or type(error).__name__,
        lost=isinstance(error, LostRankError),
        trace=trace,
        ended_at_s=time.monotonic(),
    )


def _write_report(folder: Path, report: RankReport) -> None:
    write_json(folder / f"rank-{report.rank}.json", dataclasses.asdict(report))
    elastic = os.environ.get("TORCHELASTIC_ERROR_FILE")
    if elastic and report.exit_code:  # torchrun makes every exit code 1 and prints this file
        text = f"{report.trace or ''}glu-bench: {report.message} (exit code {report.exit_code})"
        extra = {"timestamp": str(int(time.time())), "py_callstack": text}  # this field of it
        write_json(Path(elastic), {"message": {"message": text, "extraInfo": extra}})


def read_report(folder: Path, rank: int) -> RankReport | None:
    """What a rank left, or None if it ended without a word."""
    try:
        return RankReport(**read_json(folder / f"rank-{rank}.json"))
    except (DataError, TypeError):
        return None
