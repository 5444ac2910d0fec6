"""What stands behind a table: its runs with their logs, settings, machines, commands, tunings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from glu_bench import schema
from glu_bench.errors import DataError
from glu_bench.runs.difference import ABOUT_DATA
from glu_bench.runs.folder import Run
from glu_bench.study.arms import Entry, add_tuned, describe_setting, name_arms, read_entries
from glu_bench.study.compare import Comparison
from glu_bench.study.plan import PlannedRun
from glu_bench.study.recall import Known, recall_words
from glu_bench.study.traces import Log, list_profiles, read_log
from glu_bench.study.tuning import RecordedTuning, list_tunings


@dataclass(frozen=True, kw_only=True)
class Member:
    """One run of a table."""

    run_id: str
    arm: str
    seed: int
    status: str
    reason: str | None  # why it failed or diverged, if it said so
    folder: Path | None  # None if it never began
    result: dict[str, Any] | None
    settings: dict[str, Any]  # by dotted key
    machine: dict[str, Any]  # versions, hardware, threads, by dotted key
    text: dict[str, Any]  # fingerprints and sizes of the data, by dotted key
    words: list[str] | None  # that train it again; None if none are known
    log: Log


@dataclass(frozen=True, kw_only=True)
class Background:
    """All runs behind one table, by arm and seed, and what there is to say about them."""

    members: list[Member]
    tunings: list[RecordedTuning] = field(default_factory=list)  # that chose values for runs of the table
    remarks: list[str] = field(default_factory=list)


def collect_backgrounds(
    tables: Sequence[Comparison],
    found: Sequence[Run | PlannedRun],
    *,
    arm_keys: Sequence[str] = ("variant",),
    allow_mixed: bool = False,
    n_points: int = 200,
) -> list[Background]:
    """A background for each table that `compare_runs` made of these runs, in its order.

    `n_points` bounds what is kept of each logged quantity of a run.
    """
    runs = {run.path.name: run for run in found if isinstance(run, Run)}
    planned = {run.run_id: run for run in found if isinstance(run, PlannedRun)}
    entries = name_arms(add_tuned(read_entries(found), found), arm_keys)
    behind: list[list[Member]] = [[] for _ in tables]
    remarks: list[list[str]] = [[] for _ in tables]
    known = Known()
    for entry in sorted(entries, key=lambda e: (e.seed, e.name)):
        at = _find_table(entry, runs.get(entry.name), tables, allow_mixed, arm_keys)
        if at is None or (allow_mixed and entry.tuned):  # mixed, a tuned run stands there already
            continue
        if entry.name in runs:
            member, remark = _read_member(entry, runs[entry.name], n_points, known)
            remarks[at] += [remark] if remark else []
        else:
            member = _make_planned(entry, planned[entry.name])
        behind[at].append(member)
    folders = sorted({run.output_dir for run in runs.values()})
    tunings = [tuning for folder in folders for tuning in list_tunings(folder)]
    made = []
    for table, members, said in zip(tables, behind, remarks, strict=True):
        rank = {arm.arm: at for at, arm in enumerate(table.arms)}
        members.sort(key=lambda member: (rank[member.arm], member.seed, member.run_id))
        ids = {member.run_id for member in members}
        own = [tuning for tuning in tunings if tuning.runs.keys() & ids]
        made.append(Background(members=members, tunings=own, remarks=said))
    return made


def _find_table(
    entry: Entry,
    run: Run | None,
    tables: Sequence[Comparison],
    allow_mixed: bool,
    arm_keys: Sequence[str],
) -> int | None:
    """The table an entry stands in: named there by folder, else of the same setting and arm."""
    own = (describe_setting(entry.identity, entry.tuned, arm_keys), entry.budget)
    alike = []
    for at, table in enumerate(tables):
        arm = next((arm for arm in table.arms if arm.arm == entry.arm), None)
        if arm is None:
            continue
        if (table.setting, table.tuning) != own and not allow_mixed:
            continue
        if run is not None and str(run.path) in arm.runs:
            return at
        if entry.result is None or not any(arm.runs):
            alike.append(at)
    return alike[0] if alike else None


def _read_member(entry: Entry, run: Run, n_points: int, known: Known) -> tuple[Member, str | None]:
    config, facts = run.config(), run.environment()
    remark = None
    try:
        log = read_log(run, n_points)
    except DataError as error:
        log, remark = Log({}, {}), f"no curves of {entry.name}: {error}"
    if entry.result is not None:
        profiles = list_profiles(entry.result, config.model.n_layers)
        log = Log(log.traces, {**profiles, **log.profiles})
    failure = run.failure() if entry.status != "complete" else None
    member = Member(
        run_id=entry.name,
        arm=entry.arm,
        seed=entry.seed,
        status=entry.status,
        reason=str(failure.get("reason")) if failure else None,
        folder=run.path,
        result=entry.result,
        settings=schema.flatten_config(config),
        machine=schema.flatten({k: v for k, v in facts.items() if k not in ABOUT_DATA and k != "run_id"}),
        text=schema.flatten({k: v for k, v in facts.items() if k in ABOUT_DATA}),
        words=recall_words(config, known),
        log=log,
    )
    return member, remark


def _make_planned(entry: Entry, planned: PlannedRun) -> Member:
    return Member(
        run_id=entry.name,
        arm=entry.arm,
        seed=entry.seed,
        status=entry.status,
        reason=None,
        folder=None,
        result=None,
        settings=dict(entry.identity),
        machine={},
        text={},
        words=list(planned.words),
        log=Log({}, {}),
    )
