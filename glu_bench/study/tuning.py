"""Equal tuning: every arm over the same values on the same tuning seeds, judged by held-out loss.

Tuning reads the validation split on seeds of its own; each arm's best values are then confirmed
on the sweep's seeds, which `compare` reads on the test split. What was chosen, and the whole
curve it was chosen from, is kept in the sweep's tuning.json.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from glu_bench import schema
from glu_bench.config import expand_grid
from glu_bench.errors import ConfigError, DataError
from glu_bench.files import make_folder, sha256_bytes, write_bytes
from glu_bench.grid import load_grid, with_words
from glu_bench.runs.fields import CHOICE, TUNING, check_fields, list_of
from glu_bench.runs.record import read_record, write_record
from glu_bench.study.plan import Plan, PlannedRun, has_plan, load_plan, make_plan, plan_cells

FILE = "tuning.json"
MAX_WIDER = 4  # times a grid is widened; by then it is 16 times as wide, or the model diverges


@dataclass(frozen=True, kw_only=True)
class Tried:
    """One setting of the tuned keys for one arm."""

    values: dict[str, str]
    losses_nats: list[float]  # of the validation split, a seed each, finished runs alone
    n_planned: int
    mean_loss_nats: float | None  # None unless every seed finished


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What tuning found for one arm."""

    arm: str
    chosen: dict[str, str]
    edges: dict[str, str]  # tuned key to "low" or "high" where the best value ends the grid
    curve: list[Tried]


@dataclass(frozen=True, kw_only=True)
class Request:
    """What is tuned: settings of the sweep, keys with their values, and seeds."""

    settings: list[str]
    tuned: dict[str, list[str]]
    seeds: list[int]

    @property
    def name(self) -> str:
        """A sweep's id for this request."""
        text = "\n".join([*self.settings, *(f"tune {k}" for k in self.tuned), repr(self.seeds)])
        return f"sweep-{sha256_bytes(text.encode())[:10]}"

    def grid(self) -> list[str]:
        """The words of the tuning sweep."""
        kept = [word for word in self.settings if not word.startswith("seed=")]
        values = [f"{key}={','.join(options)}" for key, options in self.tuned.items()]
        return [*kept, *values, "seed=" + ",".join(map(str, self.seeds))]


@dataclass(kw_only=True)
class Tuning:
    """A tuned sweep: a sweep over the tuned values first, then one at what each arm chose."""

    request: Request
    output_dir: Path
    name: str
    config_dir: Path | None = None
    allow_unmatched: bool = False

    def plan(self, write: bool = True) -> Plan:
        """The tuning sweep, `<name>-tune`; values of an earlier one of that name stay in it."""
        name = f"{self.name}-tune"
        return make_plan(
            self.request.grid(),
            self.output_dir,
            name=name,
            config_dir=self.config_dir,
            allow_unmatched=self.allow_unmatched,
            extend=has_plan(self.output_dir, name),
            write=write,
        )

    def choose(self, execute: Callable[[Plan], object], wider: bool) -> list[Choice]:
        """Run the tuning sweep and pick; with `wider` go on while an arm's best value ends the grid.

        Raises: DataError for an arm that finished nowhere.
        """
        for n_wider in range(MAX_WIDER + 1):
            plan = self.plan()
            if (whole := take_in(self.request, plan)) != self.request:
                self.request = whole
                plan = self.plan()  # every value that there is at every seed of this request
            execute(plan)
            choices = choose_values(plan, self.request)
            further = widen(self.request, choices) if wider and n_wider < MAX_WIDER else None
            if further is None:
                break
            self.request = further
        return choices

    def confirm(self, choices: Sequence[Choice]) -> Plan:
        """The plan of the sweep's own runs, each arm at its choice, which is recorded beside it."""
        plan = plan_cells(
            list_confirmations(self.request, choices, self.config_dir),
            self.output_dir,
            name=self.name,
            allow_unmatched=self.allow_unmatched,
            extend=has_plan(self.output_dir, self.name),
        )
        write_tuning(plan, self.request, choices)
        return plan


def make_request(
    settings: Sequence[str], tune: Sequence[str], seeds: Sequence[int], config_dir: Path | None
) -> Request:
    """A checked request.

    Raises: ConfigError if a tuned key is swept as well, has one value only, or the seeds meet the
    sweep's own: what was chosen must be confirmed on fresh ones.
    """
    tuned: dict[str, list[str]] = {}
    for word in tune:
        key = word.partition("=")[0]
        options = [cell[0].partition("=")[2] for cell in expand_grid([word], config_dir)]
        if key == "seed" or any(given.startswith(f"{key}=") for given in settings):
            raise ConfigError(f"--tune {key}: it is set by the sweep itself")
        if len(options) < 2:
            raise ConfigError(f"--tune {word}: at least two values")
        tuned[key] = options
    if not seeds or len(set(seeds)) < len(seeds):
        raise ConfigError("--tune-seeds: seeds for tuning, each once, such as --tune-seeds 100,101")
    for _, config in load_grid(settings, config_dir):
        if config.seed in seeds:
            raise ConfigError(
                f"--tune-seeds {config.seed}: also a seed of the sweep; a choice is confirmed on fresh ones"
            )
    return Request(settings=list(settings), tuned=tuned, seeds=list(seeds))


def choose_values(plan: Plan, request: Request) -> list[Choice]:
    """Each arm's best values: least mean validation loss over the request's seeds, all of them finished.

    Raises: DataError for an arm none of whose settings finished on every seed.
    """
    arms: dict[str, dict[tuple[str, ...], list[PlannedRun]]] = {}
    for planned in plan.runs:
        if planned.identity["seed"] not in request.seeds:
            continue  # of an earlier request: what one value saw, all must have seen
        values = tuple(_value_of(planned.words, key) for key in request.tuned)
        arms.setdefault(name_arm(planned.words, request), {}).setdefault(values, []).append(planned)
    return [_choose(plan, request, arm, cells) for arm, cells in arms.items()]


def widen(request: Request, choices: Sequence[Choice]) -> Request | None:
    """The request with one more value on each side where any arm's best ends the grid; None if nowhere.

    Positive values go on by their last ratio, others by their last step; every arm gets the point.
    """
    tuned = {key: list(values) for key, values in request.tuned.items()}
    for key, side in sorted({edge for choice in choices for edge in choice.edges.items()}):
        numbers = sorted(float(value) for value in request.tuned[key])
        last, before = (numbers[0], numbers[1]) if side == "low" else (numbers[-1], numbers[-2])
        further = last * last / before if min(numbers) > 0 else 2 * last - before
        tuned[key].append(f"{further:.6g}")
    if tuned == request.tuned:
        return None
    return Request(settings=request.settings, tuned=tuned, seeds=request.seeds)


def list_confirmations(
    request: Request, choices: Sequence[Choice], config_dir: Path | None
) -> Iterator[tuple[list[str], schema.Config]]:
    """The sweep's own runs, each arm at its chosen values: what `plan_cells` takes."""
    chosen = {choice.arm: choice.chosen for choice in choices}
    for words, config in load_grid(request.settings, config_dir):
        more = [f"{key}={value}" for key, value in chosen[name_arm(words, request)].items()]
        yield [*words, *more], with_words(config, more, config_dir)


def name_arm(words: Sequence[str], request: Request) -> str:
    """The words that make an arm: all but the seed and what is tuned."""
    keys = {*request.tuned, "seed"}
    return " ".join(word for word in words if word.partition("=")[0] not in keys)


def take_in(request: Request, plan: Plan) -> Request:
    """The request with every value of the tuned keys that the tuning sweep has, earlier ones too."""
    tuned = {
        key: list(dict.fromkeys([*values, *(_value_of(p.words, key) for p in plan.runs)]))
        for key, values in request.tuned.items()
    }
    return Request(settings=request.settings, tuned=tuned, seeds=request.seeds)


def write_tuning(plan: Plan, request: Request, choices: Sequence[Choice]) -> None:
    """Keep the choice, its curve and the runs that it made in the sweep's folder."""
    by_arm = {choice.arm: choice for choice in choices}
    made = {}
    for planned in plan.runs:
        choice = by_arm.get(name_arm(planned.words, request))
        if choice and all(f"{key}={value}" in planned.words for key, value in choice.chosen.items()):
            made[planned.run_id] = {"keys": sorted(request.tuned), "edges": choice.edges}
    record = {
        "schema_version": 1,
        "tuned": request.tuned,
        "seeds": request.seeds,
        "arms": [asdict(choice) for choice in choices],
        "runs": made,
    }
    write_record(plan.folder / FILE, record)


def list_parts(plan: Plan) -> list[Plan]:
    """The sweep, and the one that tuned it if one did."""
    there = plan.folder.with_name(f"{plan.sweep_id}-tune")
    return [plan, *([load_plan(there)] if (plan.folder / FILE).exists() and there.is_dir() else [])]


def copy_plan(plan: Plan, output_dir: Path) -> None:
    """Put a sweep's plan, and the record of its tuning, under another output folder."""
    folder = output_dir / "sweeps" / plan.sweep_id
    make_folder(folder)
    for name in ("plan.json", FILE):
        if (plan.folder / name).exists():
            read_record(plan.folder / name)
            write_bytes(folder / name, (plan.folder / name).read_bytes())


@dataclass(frozen=True)
class RecordedTuning:
    """What a sweep's tuning.json says: what was tried, what each arm chose, and the runs at these choices."""

    sweep_id: str
    budget: str  # the grid and the seeds in words: arms tuned alike can be compared
    runs: dict[str, dict[str, Any]]  # by id: keys that were chosen, and which ended the grid on which side
    choices: list[Choice]


def load_tuning(path: Path) -> RecordedTuning:
    """The tuning in a tuning.json.

    Raises: DataError for a record that is broken, was edited, or is no tuning's.
    """
    record = read_record(path)
    check_fields(path, record, TUNING | {"arms": list_of(CHOICE)}, ("runs", "tuned", "seeds", "arms"))
    choices = [
        Choice(
            arm=arm["arm"],
            chosen=arm["chosen"],
            edges=arm["edges"],
            curve=[
                Tried(
                    values=point["values"],
                    losses_nats=point["losses_nats"],
                    n_planned=point["n_planned"],
                    mean_loss_nats=point["mean_loss_nats"],
                )
                for point in arm["curve"]
            ],
        )
        for arm in record["arms"]
    ]
    budget = _say_budget(record["tuned"], record["seeds"])
    return RecordedTuning(path.parent.name, budget, record["runs"], choices)


def list_tunings(output_dir: Path) -> list[RecordedTuning]:
    """Every recorded tuning under an output folder, by the name of its sweep.

    Raises: DataError as `load_tuning`.
    """
    return [load_tuning(path) for path in sorted((output_dir / "sweeps").glob(f"*/{FILE}"))]


def _say_budget(tuned: dict[str, list[str]], seeds: list[int]) -> str:
    grids = (f"{key} over {', '.join(_sort_values(values))}" for key, values in sorted(tuned.items()))
    return f"{'; '.join(grids)} at seeds {', '.join(map(str, sorted(seeds)))}"


def _sort_values(values: Sequence[str]) -> list[str]:
    """Numbers by size, however they were written, or words by name; each once."""
    try:
        return [f"{number:g}" for number in sorted({float(value) for value in values})]
    except ValueError:
        return sorted(set(values))


def _choose(plan: Plan, request: Request, arm: str, cells: dict[tuple[str, ...], list[PlannedRun]]) -> Choice:
    curve = []
    for values, runs in cells.items():
        losses = [float(plan.run(p).result()["val_loss_nats"]) for p in runs if _is_finished(plan, p)]
        curve.append(
            Tried(
                values=dict(zip(request.tuned, values, strict=True)),
                losses_nats=losses,
                n_planned=len(runs),
                mean_loss_nats=statistics.fmean(losses) if len(losses) == len(runs) else None,
            )
        )
    finished = [point for point in curve if point.mean_loss_nats is not None]
    if not finished:
        raise DataError(f"{plan.sweep_id}: {arm} finished at no setting of {', '.join(request.tuned)}")
    best = min(finished, key=lambda point: point.mean_loss_nats or 0.0)
    edges = {}
    for key, options in request.tuned.items():
        side = _find_edge(best.values[key], options)
        if side:
            edges[key] = side
    return Choice(arm=arm, chosen=best.values, edges=edges, curve=curve)


def _is_finished(plan: Plan, planned: PlannedRun) -> bool:
    return plan.run(planned).outcome() == "complete"


def _find_edge(value: str, options: Sequence[str]) -> str | None:
    try:
        numbers = sorted(float(option) for option in options)
    except ValueError:
        return None  # words have no order
    if float(value) == numbers[0]:
        return "low"
    return "high" if float(value) == numbers[-1] else None


def _value_of(words: Sequence[str], key: str) -> str:
    return next(word.partition("=")[2] for word in words if word.startswith(f"{key}="))
