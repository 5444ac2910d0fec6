"""What a sweep will run, on disk before anything starts.

outputs/sweeps/<sweep id>/plan.json lists every run with its id and its override words; runs
themselves lie in outputs/runs/ like any other, so sweeps that overlap share them.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from glu_bench import schema
from glu_bench.config import load_config
from glu_bench.errors import ConfigError, DataError
from glu_bench.files import dump_json, make_folder, sha256_bytes
from glu_bench.grid import load_grid
from glu_bench.runs.folder import Run, list_identity_facts, make_identity, make_run_id
from glu_bench.runs.record import read_record, write_record

if TYPE_CHECKING:
    from glu_bench.data.prepared import TokenSet

MAX_SHOWN = 8  # runs of a refused change that are named
RUN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,254}")  # a plain folder name


@dataclass(frozen=True)
class PlannedRun:
    """One run of a sweep: its id, the words that make it, and what determines its result.

    `config` is there only when the plan was just made, not when it was read.
    """

    run_id: str
    words: tuple[str, ...]
    identity: dict[str, Any] = field(compare=False, default_factory=dict)
    config: schema.Config | None = field(compare=False, default=None, repr=False)


@dataclass(frozen=True)
class Plan:
    """A sweep: all its runs in the order of the grid."""

    sweep_id: str
    folder: Path
    runs: list[PlannedRun]

    @property
    def output_dir(self) -> Path:
        """The output folder that it lies in, with its runs."""
        return self.folder.parent.parent

    def run(self, planned: PlannedRun) -> Run:
        """The folder of a planned run, there or not."""
        return Run(self.output_dir / "runs" / planned.run_id)


def make_plan(
    overrides: Sequence[str],
    output_dir: Path,
    *,
    name: str | None = None,
    config_dir: Path | None = None,
    allow_unmatched: bool = False,
    extend: bool = False,
    write: bool = True,
) -> Plan:
    """Every combination of the swept values, checked; texts are tokenised, nothing is trained.

    `extend` adds what is new to a plan of that name, which keeps all it has.
    Raises: ConfigError for a grid that cannot run, the same run twice, or a name in use for
    another grid.
    """
    cells = load_grid(overrides, config_dir)
    return plan_cells(
        cells, output_dir, name=name, allow_unmatched=allow_unmatched, extend=extend, write=write
    )


def plan_cells(
    cells: Iterable[tuple[Sequence[str], schema.Config]],
    output_dir: Path,
    *,
    name: str | None = None,
    allow_unmatched: bool = False,
    extend: bool = False,
    write: bool = True,
) -> Plan:
    """A plan of these configurations, each with the words that make it; else as `make_plan`."""
    from glu_bench.ffn.formula import make_formula  # torch is waited for where a plan is made, not read
    from glu_bench.ffn.matching import check_receipt, match_width

    runs: list[PlannedRun] = []
    seen: dict[str, PlannedRun] = {}
    prepared: dict[str, TokenSet] = {}
    for words, config in cells:
        make_formula(config.variant)  # an unknown function is said before anything starts
        receipt = match_width(config.variant, config.model.d_model, config.match, config.model.ffn_bias)
        check_receipt(receipt, allow_unmatched)
        run_id, identity = _identify(config, prepared)
        if run_id in seen:
            raise ConfigError(f"the same run twice: {' '.join(seen[run_id].words)} and {' '.join(words)}")
        seen[run_id] = PlannedRun(run_id, tuple(words), identity, config)
        runs.append(seen[run_id])
    sweep_id = name or name_grid([planned.run_id for planned in runs])
    if "/" in sweep_id or sweep_id.startswith("."):
        raise ConfigError(f"--name {sweep_id}: a plain folder name, without '/' or a leading '.'")
    plan = Plan(sweep_id, output_dir / "sweeps" / sweep_id, runs)
    if has_plan(output_dir, sweep_id):
        before = load_plan(plan.folder).runs
        known = {planned.run_id for planned in before}
        new = [planned for planned in runs if planned.run_id not in known]
        gone = [planned for planned in before if planned.run_id not in seen]
        if not extend and (new or gone):
            raise ConfigError(_describe_change(plan.sweep_id, new, gone))
        kept = [seen.get(planned.run_id, planned) for planned in before]
        plan = Plan(sweep_id, plan.folder, [*kept, *new])
        if not new:
            return plan
    elif extend:
        raise ConfigError(f"--extend: there is no sweep {sweep_id} under {output_dir}/sweeps to extend")
    if write:
        _write_plan(plan)
    return plan


def name_grid(run_ids: Sequence[str]) -> str:
    """The id of a sweep that was given no name: it stands for its runs, in their order."""
    return f"sweep-{sha256_bytes(dump_json({'runs': list(run_ids)}).encode())[:10]}"


def has_plan(output_dir: Path, name: str) -> bool:
    """Whether there is a sweep of that name under an output folder."""
    return (output_dir / "sweeps" / name / "plan.json").exists()


def load_plan(folder: Path) -> Plan:
    """The plan in a sweep's folder.

    Raises: DataError if it is missing, broken or was edited.
    """
    record = read_record(folder / "plan.json")
    try:
        runs = [
            PlannedRun(str(entry["run_id"]), tuple(map(str, entry["words"])), dict(entry["identity"]))
            for entry in record["runs"]
        ]
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{folder}/plan.json: not a plan ({error})") from None
    for planned in runs:
        if not RUN_ID.fullmatch(planned.run_id):
            raise DataError(f"{folder}/plan.json: {planned.run_id!r} is not a run id")
        for word in planned.words:
            if word.startswith("-") or "=" not in word:  # words become arguments of a command
                raise DataError(f"{folder}/plan.json: {word!r} is not a setting")
    return Plan(folder.name, folder, runs)


def resolve_run(plan: Plan, planned: PlannedRun, config_dir: Path | None = None) -> schema.Config:
    """The configuration of a planned run with nothing that decides its id left to where it starts.

    Precision and compilation are those that the id stands for, paths are absolute.
    Raises: ConfigError if configs/ changed since the plan was made, and the run has not begun.
    """
    run = plan.run(planned)
    begun = (run.path / "environment.json").exists()
    config = planned.config or (run.config() if begun else load_config(planned.words, config_dir))
    precision, compiled = (str(planned.identity[f"train.{key}"]) for key in ("precision", "compile"))
    train = dataclasses.replace(config.train, precision=precision, compile=compiled)
    data = dataclasses.replace(config.data, files=[str(Path(name).absolute()) for name in config.data.files])
    tokenizer = config.tokenizer
    if tokenizer.kind == "file":
        tokenizer = dataclasses.replace(tokenizer, path=str(Path(str(tokenizer.path)).absolute()))
    config = dataclasses.replace(config, train=train, data=data, tokenizer=tokenizer)
    for key, value in schema.select_identity(config).items():
        before = planned.identity.get(key)
        if before != value:
            raise ConfigError(
                f"{planned.run_id}: {key} was {before!r} when the sweep was planned and is {value!r} now; "
                "the same sweep under another --name has runs of its own"
            )
    return config


def list_plans(output_dir: Path) -> list[Plan]:
    """All sweeps under an output folder, by name."""
    sweeps = output_dir / "sweeps"
    if not sweeps.is_dir():
        return []
    return [load_plan(path) for path in sorted(sweeps.iterdir()) if (path / "plan.json").is_file()]


def find_plan(text: str, output_dir: Path) -> Plan:
    """The sweep that a folder, an id or a unique prefix of an id names.

    Raises: ConfigError if none or several do.
    """
    try:
        if (folder := find_sweep_folder(Path(text))) is not None:
            return load_plan(folder)
    except OSError as error:  # too long for a path
        raise ConfigError(f"'{text[:40]}…': names no sweep ({error.strerror})") from None
    known = list_plans(output_dir)
    found = [plan for plan in known if plan.sweep_id == text] or [
        plan for plan in known if plan.sweep_id.startswith(text)
    ]
    if len(found) != 1:
        names = ", ".join(plan.sweep_id for plan in (found or known)[:5]) or "none"
        advice = "; write more of the id, or name the folder" if found else ""
        raise ConfigError(
            f"'{text}' names {len(found)} sweeps under {output_dir}/sweeps; there: {names}{advice}"
        )
    return found[0]


def find_sweep_folder(path: Path) -> Path | None:
    """This folder or, in one that `runs publish` made, the one with its plan; None without a plan."""
    named = path if path.name.strip(".") else path.resolve()  # "." has no name
    for folder in (named, named / "sweeps" / named.name):
        if (folder / "plan.json").is_file():
            return folder
    return None


def _write_plan(plan: Plan) -> None:
    make_folder(plan.folder)
    record = {
        "schema_version": 1,
        "sweep_id": plan.sweep_id,
        "runs": [{"run_id": p.run_id, "words": p.words, "identity": p.identity} for p in plan.runs],
    }
    write_record(plan.folder / "plan.json", record)


def _describe_change(sweep_id: str, new: list[PlannedRun], gone: list[PlannedRun]) -> str:
    lines = [
        f"  {sign} {' '.join(planned.words)}"
        for sign, runs in (("+", new), ("-", gone))
        for planned in runs[:MAX_SHOWN]
    ]
    n_more = len(new) + len(gone) - len(lines)
    lines += [f"  … and {n_more} more"] if n_more else []
    what = f"sweep {sweep_id} has another grid, {len(new)} runs new and {len(gone)} gone"
    return "\n".join([f"{what}; --extend adds the new ones, or choose another --name", *lines])


def _identify(config: schema.Config, prepared: dict[str, TokenSet]) -> tuple[str, dict[str, Any]]:
    """The id that training this configuration will get, and what it stands for; texts are prepared once."""
    from glu_bench.data.prepared import prepare_tokens
    from glu_bench.device import resolve_train

    train, _ = resolve_train(config.train)
    config = dataclasses.replace(config, train=train)
    key = dump_json(
        {"data": dataclasses.asdict(config.data), "tokenizer": dataclasses.asdict(config.tokenizer)}
    )
    if key not in prepared:
        prepared[key] = prepare_tokens(config)
    facts = list_identity_facts(config, prepared[key])
    return make_run_id(config, facts), make_identity(config, facts)
