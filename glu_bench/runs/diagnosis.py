"""What a run folder holds, what is wrong with it, and the command that mends it."""

from __future__ import annotations

import shlex
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from glu_bench import schema
from glu_bench.config_file import read_config
from glu_bench.errors import DataError
from glu_bench.files import is_alive, is_locked, read_json
from glu_bench.runs.checkpoint import list_checkpoints
from glu_bench.runs.command import join_words, spell_train
from glu_bench.runs.environment import read_numerics
from glu_bench.runs.folder import Run
from glu_bench.runs.integrity import Problem, find_problems
from glu_bench.runs.publish import FILE as PUBLISHED
from glu_bench.runs.publish import is_published

# a leftover is nobody's any more and in nobody's way; only `broken` is an error
STATES = ("sound", "running", "unfinished", "leftover", "broken")
CONFIG, ENVIRONMENT, RESULT = "config.yaml", "environment.json", "result.json"


@dataclass(frozen=True)
class Mend:
    """A command for a shell, and what it does."""

    command: str
    effect: str


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that was looked at: what it holds, what is wrong, since when, and what to do about it."""

    kind: str  # run, sweep, processes, file
    path: Path
    state: str  # one of STATES
    holds: str
    problems: tuple[str, ...] = ()
    since: str | None = None  # UTC; when what is wrong, or anything, was last written
    mends: tuple[Mend, ...] = ()


def diagnose_run(run: Run, output_dir: Path, words: Sequence[str] | None = None) -> Finding:
    """What state a run folder is in.

    `words`: the settings of the run where another record has them, such as the plan of a sweep.
    """
    holds = _describe(run)
    if is_locked(run.path):
        return Finding(
            kind="run", path=run.path, state="running", holds=holds, since=find_last_write([run.path])
        )
    problems = find_problems(run)
    if problems:
        return Finding(
            kind="run",
            path=run.path,
            state="broken",
            holds=holds,
            problems=tuple(problem.text for problem in problems),
            since=find_last_write(problem.path for problem in problems),
            mends=tuple(_mend(run, problems, output_dir, words)),
        )
    since = find_last_write([run.path])
    if run.outcome() == "complete" or is_published(run.path):
        return Finding(kind="run", path=run.path, state="sound", holds=holds, since=since)
    return Finding(
        kind="run",
        path=run.path,
        state="unfinished",
        holds=holds,
        problems=(_say_unfinished(run),),
        since=since,
        mends=tuple(_go_on(run, output_dir)),
    )


def find_leftovers(folder: Path) -> list[Finding]:
    """Files of processes that are gone, and checkpoints set aside, in a run folder and its checkpoints.

    Nothing of a folder that a process works on.
    """
    if is_locked(folder):
        return []
    found = []
    for place in (folder, folder / "checkpoints"):
        for path in sorted(place.glob(".*.tmp")) if place.is_dir() else ():
            pid = path.name.split(".")[-2]
            if not (pid.isdecimal() and is_alive(int(pid))):
                process = f"process {pid}" if pid.isdecimal() else "a process"
                found.append(_leftover(path, f"half written by {process}, which is gone"))
    for path in sorted((folder / "checkpoints").glob("corrupt-*")):
        found.append(_leftover(path, "a checkpoint that did not verify, set aside and not used"))
    return found


def _leftover(path: Path, holds: str) -> Finding:
    mend = Mend(f"rm -r {shlex.quote(str(path))}", "deletes it; nothing reads it")
    since = find_last_write([path])
    return Finding(kind="file", path=path, state="leftover", holds=holds, since=since, mends=(mend,))


def find_last_write(paths: Iterable[Path]) -> str | None:
    """The moment, in UTC, at which any of these, or anything in them, was written last."""
    times = []
    for path in paths:
        for each in (path, *path.rglob("*")) if path.is_dir() and not path.is_symlink() else (path,):
            if not each.name.startswith(".lock"):  # looking at a lock may write it
                try:
                    times.append(each.lstat().st_mtime)
                except OSError:
                    continue  # not there, which is what may be wrong with it
    if not times:
        return None
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(max(times)))


def _describe(run: Run) -> str:
    """What is there, in a few words."""
    parts = []
    try:
        last = [row for row in run.rows() if isinstance(row, dict)][-1:]
        parts += [f"{row.get('step')} of {row.get('n_steps')} steps logged" for row in last]
    except (DataError, OSError, ValueError):
        parts.append("rows that cannot be read")
    steps = [str(int(path.name.removeprefix("step-"))) for path in _list_checkpoints(run)]
    if steps:
        parts.append(f"checkpoint{'s' if len(steps) > 1 else ''} of step {', '.join(steps)}")
    n_aside = len(list(run.checkpoints.glob("corrupt-*")))
    if n_aside:
        parts.append(f"{n_aside} set aside")
    parts += ["a final record"] if (run.path / RESULT).exists() else []
    holder = _read_holder(run)
    if holder is not None:
        parts.append(f"at work: process {holder}" if is_locked(run.path) else f"process {holder} was killed")
    return ", ".join(parts) or "settings alone"


def _list_checkpoints(run: Run) -> list[Path]:
    try:
        return list_checkpoints(run.checkpoints)
    except DataError:  # no folder of checkpoints at all
        return []


def _read_holder(run: Run) -> str | None:
    """The process that wrote its number beside the lock; it takes it away unless it is killed."""
    try:
        pid = (run.path / ".lock.pid").read_text(encoding="utf-8").strip()
    except (OSError, ValueError):
        return None
    return pid if pid.isdecimal() else None


def _say_unfinished(run: Run) -> str:
    failure = run.failure()
    if failure is not None:
        where = f" at step {failure['step']}" if "step" in failure else ""
        return f"{failure.get('status')}{where}: {failure.get('reason')}"
    if not (run.path / ENVIRONMENT).exists():
        return "never began: there are its settings and nothing else"
    if not _list_checkpoints(run):
        return "stopped before its first checkpoint"
    return "stopped before its end"


def _go_on(run: Run, output_dir: Path) -> Iterable[Mend]:
    """What an unfinished run without a problem needs."""
    facts = run.environment()
    failure = run.failure()
    if failure is not None and failure.get("status") == "diverged":
        command = spell_train(run.config(), facts, output_dir, "--restart")
        yield Mend(command, "trains it again from the start; the same settings diverge again")
    else:
        options, effect = _find_start(run, _list_checkpoints(run))
        yield Mend(spell_train(run.config(), facts, output_dir, *options), effect)
    yield _delete(run, "gives it up")


def _find_start(run: Run, whole: Sequence[Path]) -> tuple[list[str], str]:
    """Options of the train command, and from where it goes on, given the checkpoints that verify."""
    if whole:
        step = int(whole[-1].name.removeprefix("step-"))
        differing = _compare_numerics(run, whole[-1])
        if differing:
            return ["--resume-inexact"], f"goes on from step {step}, in other last bits: {differing}"
        return [], f"goes on from step {step}"
    if _list_checkpoints(run) or list(run.checkpoints.glob("corrupt-*")):
        return ["--restart"], "trains it again from the start: no checkpoint verifies"
    return [], "trains it from the start"


def _compare_numerics(run: Run, checkpoint: Path) -> str:
    """In what this process sums otherwise than the one that saved; threads are asked for by the command."""
    try:
        train, state = run.config().train, read_json(checkpoint / "state.json")
    except DataError:  # not known before its settings are put back
        return ""
    here = read_numerics(train.device, train.compile == "true")
    differing = (name for name, value in here.items() if state.get(name, value) != value)
    return ", ".join(
        f"{name} was {state[name]}, is {here[name]}" for name in differing if name != "n_threads"
    )


def _mend(
    run: Run, problems: Sequence[Problem], output_dir: Path, words: Sequence[str] | None
) -> Iterable[Mend]:
    """What makes a broken run whole again: the likeliest first."""
    bad = {problem.path for problem in problems}
    names = {path.name for path in bad if path.parent == run.path}
    complete = (run.path / RESULT).exists()
    all_checkpoints = _list_checkpoints(run)
    whole = [path for path in all_checkpoints if path not in bad]
    idle = [path for path in all_checkpoints[:-1] if path in bad]
    config = _read_settings(run, names)
    if PUBLISHED in names:
        yield _delete(run, "then publish it again from the run itself: glu-bench runs publish")
        return
    if complete and bad == set(idle):
        yield Mend(_remove(idle), "deletes them: nothing reads any but the last, which is whole")
    elif config is not None:
        yield _train_again(run, names, whole, config, output_dir)
    elif words is not None:
        again = [CONFIG, *([RESULT] if complete else [])]
        options, effect = _find_start(run, whole)
        command = join_words("train", [*words, *options], output_dir)
        yield Mend(
            f"{_remove(run.path / name for name in again)} && {command}",
            f"writes the settings of its sweep anew, and {effect}",
        )
    if complete:
        yield Mend(
            f"rm -r {shlex.quote(str(run.path))} && {join_words('runs import', ['BACKUP'], output_dir)}",
            "replaces it by a copy that verifies, if there is one",
        )
    edited = config is None and words is None
    hint = "; else put its settings back as they were: the command it came from names the key that differs"
    yield _delete(run, "gives it up" + (hint if edited else ""))


def _train_again(
    run: Run, names: set[str], whole: Sequence[Path], config: schema.Config, output_dir: Path
) -> Mend:
    """The train command after what it would stumble over, or take for finished, is out of its way."""
    facts = _read_facts(run)
    if names == {"tokenizer.json"}:  # copied anew from the prepared text, the record stays true
        command = spell_train(config, facts, output_dir)
        return Mend(f"{_remove([run.path / 'tokenizer.json'])} && {command}", "copies the tokenizer anew")
    options, effect = _find_start(run, whole)
    if "metrics.jsonl" in names:  # a checkpoint does not hold the rows before it
        options, effect = ["--restart"], "trains it again from the start: logged rows cannot be had otherwise"
    gone = sorted(names & {ENVIRONMENT, "tokenizer.json", "failure.json", "checkpoints"})
    if (run.path / RESULT).exists() and options != ["--restart"]:
        gone.append(RESULT)  # it would be taken for finished
    before = f"{_remove(run.path / name for name in gone)} && " if gone else ""
    return Mend(before + spell_train(config, facts, output_dir, *options), effect)


def _read_settings(run: Run, names: set[str]) -> schema.Config | None:
    """The configuration, also where environment.json, which it is held against, is what is broken."""
    try:
        return read_config(run.path / CONFIG) if ENVIRONMENT in names else run.config()
    except DataError:
        return None


def _read_facts(run: Run) -> dict[str, Any]:
    try:
        return run.environment()
    except DataError:
        return {}


def _delete(run: Run, effect: str) -> Mend:
    return Mend(f"rm -r {shlex.quote(str(run.path))}", effect)


def _remove(paths: Iterable[Path]) -> str:
    return "rm -rf " + " ".join(shlex.quote(str(path)) for path in paths)
