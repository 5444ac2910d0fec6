"""What is compared: runs read as entries, the arms they form, the settings that keep them apart.

An arm is what the keys declared to vary say; a setting is everything else that determines a
result.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from glu_bench.errors import ConfigError, DataError
from glu_bench.files import dump_json
from glu_bench.runs.fields import COMPARED
from glu_bench.runs.folder import Run, find_run, list_runs
from glu_bench.study.plan import Plan, PlannedRun, find_plan, find_sweep_folder, load_plan
from glu_bench.study.tuning import list_tunings

Setting = tuple[tuple[str, str], ...]  # keys and, as text, their values


@dataclass(frozen=True)
class Entry:
    """A run as a comparison sees it: what determines it, and how it ended."""

    name: str
    identity: dict[str, Any]  # but for the seed
    seed: int
    status: str
    result: dict[str, Any] | None
    arm: str = ""
    tuned: tuple[str, ...] = ()  # keys that a recorded tuning chose, arm by arm
    edges: dict[str, str] = field(default_factory=dict)
    budget: str = ""  # of that tuning, in words
    folder: str = ""
    machine: str = ""  # on which its speed depends; empty if it has not begun


def find_runs(texts: Sequence[str], output_dir: Path) -> tuple[list[Run | PlannedRun], bool]:
    """Runs that words name (run, sweep or folder; none: all there are), and whether each was named.

    A sweep's runs that never began come as planned ones.
    Raises: ConfigError for a word that names nothing.
    """
    if not texts:
        return list(list_runs(output_dir)), False
    runs: dict[Path, Run | PlannedRun] = {}
    named = True
    for text in texts:
        found = _find_named(text, output_dir)
        named = named and isinstance(found, Run)
        for each in [found] if isinstance(found, Run) else found:
            if isinstance(each, Run):
                runs[each.path.resolve()] = each
                continue
            for planned in each.runs:
                run = each.run(planned)
                began = (run.path / "config.yaml").is_file()
                runs[run.path.resolve()] = run if began else planned
    return _drop_copies(runs.values()), named


def _drop_copies(runs: Iterable[Run | PlannedRun]) -> list[Run | PlannedRun]:
    """Each run once: published with two sweeps it lies in two folders, its record the same.

    Of its copies the one that says most stays: one may hold every row of the log and an
    inspection, another the evaluations alone.
    """
    found = list(runs)
    n_of = Counter(run.path.name for run in found if isinstance(run, Run))
    kept: dict[object, Run | PlannedRun] = {}
    for place, run in enumerate(found):
        path = run.path / "result.json" if isinstance(run, Run) and n_of[run.path.name] > 1 else None
        if path is not None and path.is_file():
            key = (path.parent.name, path.read_bytes())
            kept[key] = max(kept.get(key, run), run, key=_count_bytes)
        else:
            kept[place] = run
    return list(kept.values())


def _count_bytes(run: Run | PlannedRun) -> int:
    """Bytes of the files of a run's folder, those of its checkpoints too."""
    assert isinstance(run, Run)
    return sum(path.stat().st_size for path in run.path.rglob("*") if path.is_file())


def _find_named(text: str, output_dir: Path) -> Run | list[Run | Plan]:
    """The one run, or what a sweep or a folder of runs or of published sweeps holds."""
    path = Path(text)
    try:
        is_run, sweep = (path / "config.yaml").is_file(), find_sweep_folder(path)
    except OSError as error:  # too long for a path
        raise ConfigError(f"'{text[:40]}…': names nothing ({error.strerror})") from None
    if is_run:
        return Run(path)
    if sweep is not None:
        return [load_plan(sweep)]
    if path.is_dir() and ((path / "runs").is_dir() or any(path.glob("*/config.yaml"))):
        return [*(list_runs(path) or [Run(inner.parent) for inner in sorted(path.glob("*/config.yaml"))])]
    published = [find_sweep_folder(inner) for inner in sorted(path.iterdir())] if path.is_dir() else []
    if any(published):
        return [load_plan(folder) for folder in published if folder is not None]
    try:
        return find_run(text, output_dir)
    except ConfigError as error:
        try:
            return [find_plan(text, output_dir)]
        except ConfigError:
            raise error from None


def read_entries(found: Sequence[str | Path | Run | PlannedRun]) -> list[Entry]:
    """The entries of runs in their order, arms not named yet.

    Runs that differ in nothing but their seed share one identity: a thousand take little memory.
    """
    shared: dict[str, dict[str, Any]] = {}
    entries = []
    for each in found:
        entry = read_entry(each)
        identity = shared.setdefault(dump_json(entry.identity), entry.identity)
        entries.append(replace(entry, identity=identity))
    return entries


def read_entry(found: str | Path | Run | PlannedRun) -> Entry:
    """A run's entry, its arm not named yet."""
    if isinstance(found, PlannedRun):
        identity, seed = _take_planned(found)
        return Entry(found.run_id, identity, seed, "planned", None)
    run = found if isinstance(found, Run) else Run(Path(found))
    known, facts = run.identity_and_environment()
    identity, seed = _take_seed(known)
    status = run.status()
    result = run.result(COMPARED) if status == "complete" else None
    if result is not None:  # the names of its keys are those of every other run's
        result = {sys.intern(name): value for name, value in result.items()}
    machine = _describe_machine(facts)
    return Entry(run.path.name, identity, seed, status, result, folder=str(run.path), machine=machine)


def _describe_machine(facts: Mapping[str, Any]) -> str:
    """The GPU, or the processor and how many threads were used, and how many of them if several."""
    n_threads, n_ranks = facts.get("n_threads"), facts.get("n_ranks", 1)
    unit = facts.get("gpu") or f"{facts.get('cpu')}, {n_threads} thread{'' if n_threads == 1 else 's'}"
    return sys.intern(str(unit) if n_ranks == 1 else f"{n_ranks} x {unit}")


def _take_planned(planned: PlannedRun) -> tuple[dict[str, Any], int]:
    """As `_take_seed`, of an identity that nothing was hashed from.

    Raises: DataError if it is no run's.
    """
    try:
        describe_setting(planned.identity)
        identity, seed = _take_seed(planned.identity)
        _arm_of(Entry(planned.run_id, identity, seed, "planned", None), ("variant",))
        if type(seed) is int and isinstance(identity["tokenizer_fingerprint"], str):
            return identity, seed
    except (KeyError, TypeError, ValueError, StopIteration, ConfigError):
        pass
    raise DataError(f"{planned.run_id}: its plan does not say what determines it")


def _take_seed(identity: dict[str, Any]) -> tuple[dict[str, Any], int]:
    return {name: value for name, value in identity.items() if name != "seed"}, identity["seed"]


def _is_arm_key(dotted: str, arm_keys: Sequence[str]) -> bool:
    if dotted == "tokenizer_fingerprint":  # what a tokenizer's keys come to
        return any(key.partition(".")[0] == "tokenizer" for key in arm_keys)
    return any(dotted == key or dotted.startswith(f"{key}.") for key in arm_keys)


def add_tuned(entries: list[Entry], paths: Sequence[str | Path | Run | PlannedRun]) -> list[Entry]:
    """The entries, and again, for each budget of tuning, those that one made: exempt from what it chose.

    A tuning counts if all runs that it made and that began are there, or if all that is there was made
    by it: a run that another sweep shares with a tuned one is no part of a tuning there.
    """
    there = {entry.name for entry in entries}
    folders = {
        (path if isinstance(path, Run) else Run(Path(path))).output_dir
        for path in paths
        if not isinstance(path, PlannedRun)
    }
    made: dict[str, dict[str, dict[str, Any]]] = {}  # choices by run and budget
    for folder in sorted(folders):
        for tuning in list_tunings(folder):
            began = {name for name in tuning.runs if (folder / "runs" / name).is_dir()}
            if not (began <= there or there <= began):
                continue
            for name, choice in tuning.runs.items():
                made.setdefault(name, {})[tuning.budget] = choice
    again = [
        replace(entry, tuned=tuple(choice["keys"]), edges=choice["edges"], budget=budget)
        for entry in entries
        for budget, choice in made.get(entry.name, {}).items()
    ]
    for entry in again:
        for key in entry.tuned:
            if key not in entry.identity:
                raise DataError(f"{entry.name}: was tuned over {key}, which does not determine a result")
    return entries + again


def setting_key(entry: Entry, arm_keys: Sequence[str], without: Collection[str] = ()) -> Setting:
    """All that determines the run's result, less seed, arm, what a tuning chose, and the keys `without`."""
    exempt = {*entry.tuned, *without}
    setting = {
        name: value
        for name, value in entry.identity.items()
        if name not in exempt and not _is_arm_key(name, arm_keys)
    }
    if entry.tuned:
        setting["tuned"] = entry.budget
    return tuple((name, repr(setting[name])) for name in sorted(setting))


def group_by_setting(
    entries: Iterable[Entry], arm_keys: Sequence[str], without: Collection[str] = ()
) -> dict[Setting, list[Entry]]:
    """The entries of each setting in their order, by `setting_key`."""
    groups: dict[Setting, list[Entry]] = {}
    for entry in entries:
        groups.setdefault(setting_key(entry, arm_keys, without), []).append(entry)
    return groups


def _arm_of(entry: Entry, arm_keys: Sequence[str]) -> str:
    names = {"variant": "variant.name", "model": "model.preset", "match": "match.mode", "data": "data.corpus"}
    names |= {"optim": "optim.name", "tokenizer": "tokenizer.kind"}
    identity = {**entry.identity, "seed": entry.seed}
    parts = []
    for key in arm_keys:
        dotted = names.get(key, key)
        if dotted not in identity:
            raise ConfigError(f"--arms {key}: no such key among those that determine a result")
        parts.append(str(identity[dotted]) if key in names else f"{key}={identity[dotted]}")
    return " ".join(parts)


def name_arms(entries: list[Entry], arm_keys: Sequence[str]) -> list[Entry]:
    """The entries with the names of their arms: one name never stands for two configurations.

    `variant=swiglu variant.up_clamp=7` beside plain swiglu becomes "swiglu up_clamp=7.0".
    """
    by_name: dict[str, list[Entry]] = {}
    for entry in entries:
        by_name.setdefault(_arm_of(entry, arm_keys), []).append(entry)
    names: dict[str, list[str]] = {}
    for name, members in by_name.items():
        keys = {key for entry in members for key in entry.identity if _is_arm_key(key, arm_keys)}
        differ = [k for k in sorted(keys) if len({repr(e.identity.get(k)) for e in members}) > 1]
        # the fingerprint is named only if nothing that people know tells the arms apart
        names[name] = [k for k in differ if k != "tokenizer_fingerprint"] or differ

    def rename(entry: Entry) -> Entry:
        name = _arm_of(entry, arm_keys)
        values = ((key.partition(".")[2] or key, entry.identity.get(key)) for key in names[name])
        return replace(entry, arm=" ".join([name, *(f"{k}={v}" for k, v in values if v is not None)]))

    return [rename(entry) for entry in entries]


def first_difference(groups: dict[Setting, list[Entry]]) -> str:
    """The first key by which two settings differ, with both values."""
    one, other = (dict(setting) for setting in list(groups)[:2])
    name = next(name for name in sorted({*one, *other}) if one.get(name) != other.get(name))
    return f"{name} is {one.get(name)} and {other.get(name)}"


def describe_setting(
    identity: dict[str, Any], tuned: tuple[str, ...] = (), varied: Sequence[str] = ()
) -> str:
    """A setting in a line: model, text, budget, matching, optimiser, precision.

    `varied` names keys and groups that are no part of it, such as those that make an arm; "budget" is one.
    """
    budget = next(
        f"{identity[f'train.{unit}']:,} {unit}"
        for unit in ("tokens", "steps", "epochs")
        if identity[f"train.{unit}"]
    )
    rate = "tuned" if "optim.lr" in tuned else f"{identity['optim.lr']:g}"
    parts = {
        "model": f"{identity['model.preset']} {identity['model.d_model']}x{identity['model.n_layers']}",
        "data.corpus": str(identity["data.corpus"]),
        "budget": budget,
        "match.mode": f"match {identity['match.mode']}",
        "optim.lr": f"{identity['optim.name']} lr {rate}",
        "train.precision": str(identity["train.precision"]),
        **{key: f"{key} tuned" for key in tuned if key != "optim.lr"},
    }
    if _is_arm_key("optim.lr", varied):
        parts["optim.lr"] = "" if "optim" in varied else str(identity["optim.name"])
    if any(f"train.{unit}" in varied for unit in ("tokens", "steps", "epochs")):
        parts["budget"] = ""
    return ", ".join(
        said for key, said in parts.items() if said and (key == "optim.lr" or not _is_arm_key(key, varied))
    )
