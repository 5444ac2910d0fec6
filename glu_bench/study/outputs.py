"""What lies in an output folder, what is wrong with it, and the commands that mend it."""

from __future__ import annotations

import itertools
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from glu_bench.errors import DataError
from glu_bench.files import is_alive, is_locked
from glu_bench.runs.command import join_words
from glu_bench.runs.diagnosis import Finding, Mend, diagnose_run, find_last_write, find_leftovers
from glu_bench.runs.folder import Run
from glu_bench.study.plan import Plan, load_plan, name_grid
from glu_bench.study.slots import Slot
from glu_bench.study.sweep import list_words
from glu_bench.study.tuning import FILE as TUNING

Words = Mapping[str, Sequence[str]]  # of each planned run, by its id


def diagnose_outputs(output_dir: Path) -> list[Finding]:
    """A finding for every run, every sweep, and whatever else lies beside them."""
    plans, broken = _read_plans(output_dir)
    words = list_planned_words(plans)
    found: list[Finding] = []
    for path in _list_entries(output_dir / "runs"):
        found += diagnose_entry(path, output_dir, words)
    found += broken
    found += [_diagnose_sweep(plan, output_dir) for plan in plans]
    for folder in _list_entries(output_dir / "sweeps"):
        found += find_leftovers(folder) if folder.is_dir() else []
    found += _find_rank_folders(output_dir)
    return found


def load_planned_words(output_dir: Path) -> Words:
    """The settings of every planned run, of the plans that can be read."""
    return list_planned_words(_read_plans(output_dir)[0])


def list_planned_words(plans: Sequence[Plan]) -> Words:
    """The settings of every run of some plans, by run id."""
    return {planned.run_id: planned.words for plan in plans for planned in plan.runs}


def diagnose_entry(path: Path, output_dir: Path, words: Words) -> list[Finding]:
    """What one entry of runs/ is: a run with what is left over in it, or something that does not belong."""
    if path.is_symlink():
        mend = Mend(f"rm {shlex.quote(str(path))}", "takes the link away, not what it points to")
        return [_finding(path, "broken", "a link; commands that write refuse it", [mend])]
    if path.name.endswith(".tmp"):
        return [] if is_locked(path.parent) else [_leftover(path, "what an import or a prune left half done")]
    if not path.is_dir():
        return [_leftover(path, "a file among run folders, and none of theirs")]
    known = words.get(path.name)
    if not (path / "config.yaml").is_file():
        return [_diagnose_without_settings(path, output_dir, known), *find_leftovers(path)]
    return [diagnose_run(Run(path), output_dir, known), *find_leftovers(path)]


def _list_entries(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if path.name not in (".lock", ".lock.pid"))


def _finding(path: Path, state: str, holds: str, mends: Sequence[Mend], *problems: str) -> Finding:
    kind = "run" if path.parent.name == "runs" and path.is_dir() else "file"
    since = find_last_write([path])
    return Finding(
        kind=kind, path=path, state=state, holds=holds, problems=problems, since=since, mends=tuple(mends)
    )


def _leftover(path: Path, holds: str) -> Finding:
    return _finding(path, "leftover", holds, [_delete(path)])


def _delete(path: Path) -> Mend:
    return Mend(f"rm -r {shlex.quote(str(path))}", "deletes it, if nobody needs it")


def _diagnose_without_settings(path: Path, output_dir: Path, words: Sequence[str] | None) -> Finding:
    """A folder under runs/ that has no config.yaml."""
    if is_locked(path):
        return _finding(path, "running", "no settings yet: a run that begins", [])
    names = sorted(entry.name for entry in path.iterdir() if not entry.name.startswith("."))
    mends = [_delete(path)]
    if words is not None:
        mends.insert(0, Mend(join_words("train", words, output_dir), "writes the settings of its sweep anew"))
    if not names:
        return _finding(path, "leftover", "an empty folder: its run was killed before it began", mends)
    if not {"environment.json", "result.json", "checkpoints", "metrics.jsonl"} & set(names):
        return _leftover(path, f"no run: it holds {', '.join(names[:5])}{' …' if len(names) > 5 else ''}")
    problem = f"{path}/config.yaml: not there, and nothing else says what the run was"
    return _finding(path, "broken", ", ".join(names), mends, problem)


def _read_plans(output_dir: Path) -> tuple[list[Plan], list[Finding]]:
    """Plans that can be read, and what is wrong with the other folders of sweeps/."""
    plans, broken = [], []
    for folder in _list_entries(output_dir / "sweeps"):
        if not folder.is_dir():
            broken.append(_leftover(folder, "a file among sweeps, and none of theirs"))
        elif not (folder / "plan.json").exists():
            broken.append(_leftover(folder, "no plan: its sweep was killed before it had one, or is none"))
        else:
            try:
                plans.append(load_plan(folder))
            except DataError as error:
                effect = "then the same sweep command writes it anew; no run is touched"
                mend = Mend(f"rm {shlex.quote(str(folder / 'plan.json'))}", effect)
                found = _finding(folder, "broken", "a sweep", [mend], str(error))
                broken.append(found)
    return plans, broken


def _diagnose_sweep(plan: Plan, output_dir: Path) -> Finding:
    runs = {planned: plan.run(planned) for planned in plan.runs}
    statuses = {planned: _read_status(run) for planned, run in runs.items()}
    counts = {status: list(statuses.values()).count(status) for status in dict.fromkeys(statuses.values())}
    n_complete = counts.pop("complete", 0)
    holds = ", ".join(
        [f"{n_complete} of {len(runs)} runs complete", *(f"{n} {status}" for status, n in counts.items())]
    )
    left = [planned for planned, status in statuses.items() if status not in ("complete", "diverged")]
    state = "running" if "running" in counts else "unfinished" if left else "sound"
    mends: list[Mend] = []
    if state == "unfinished":
        words = spell_sweep(plan)
        again = ["--retry-failed"] if "failed" in counts else []
        if words is not None:
            effect = f"trains the {len(left)} that are left, and no other"
            mends.append(Mend(join_words("sweep", [*words, *again], output_dir), effect))
        else:  # no grid has these cells: tuned, or extended by another
            for planned in left:
                settings = list_words(runs[planned], planned, Slot())
                mends.append(Mend(join_words("train", settings, output_dir), f"one of {len(left)} left"))
    return Finding(
        kind="sweep",
        path=plan.folder,
        state=state,
        holds=holds,
        problems=(f"{len(left)} runs are left",) if left else (),
        since=find_last_write([plan.folder, *(run.metrics_path for run in runs.values())]),
        mends=tuple(mends),
    )


def _read_status(run: Run) -> str:
    try:
        return run.status()
    except DataError:
        return "broken"


def spell_sweep(plan: Plan) -> list[str] | None:
    """The words behind `sweep` whose combinations are the runs of a plan, or None if none are known."""
    if (plan.folder / TUNING).exists():  # its cells are what tuning chose
        return None
    axes: dict[str, list[str]] = {}
    for planned in plan.runs:
        for word in planned.words:
            key, _, value = word.partition("=")
            values = axes.setdefault(key, [])
            if value not in values:
                values.append(value)
    if any("," in value for values in axes.values() if len(values) > 1 for value in values):
        return None  # a list or a text with a comma would be taken for several
    cells = list(itertools.product(*([f"{key}={value}" for value in values] for key, values in axes.items())))
    if cells != [planned.words for planned in plan.runs]:
        return None
    words = [f"{key}={','.join(values)}" for key, values in axes.items()]
    named = plan.sweep_id != name_grid([planned.run_id for planned in plan.runs])
    return [*words, *(["--name", plan.sweep_id] if named else [])]


def _find_rank_folders(output_dir: Path) -> Iterator[Finding]:
    """Logs of runs of several processes that failed, and of launchers that were killed."""
    for folder in _list_entries(output_dir / ".ranks"):
        launcher = folder.name.partition("-")[0]
        if launcher.isdecimal() and is_alive(int(launcher)):
            continue
        try:
            run = Path((folder / "run").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            run = None
        if run is not None and is_locked(run):
            continue
        whose = f"of {run.name}" if run is not None else "of a run that had not begun"
        holds = f"logs of the processes {whose}, which did not end well"
        found = _leftover(folder, holds)
        yield Finding(
            kind="processes",
            path=found.path,
            state=found.state,
            holds=holds,
            since=found.since,
            mends=found.mends,
        )
