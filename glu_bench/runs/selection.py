"""Which runs a person means: conditions on their settings and results, and an order."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from glu_bench import schema
from glu_bench.errors import ConfigError, DataError, suggest
from glu_bench.runs.folder import Run
from glu_bench.schema import list_keys

# what a group is called by: variant=swiglu means variant.name=swiglu
LABELS = {
    "variant": "variant.name",
    "model": "model.preset",
    "match": "match.mode",
    "data": "data.corpus",
    "tokenizer": "tokenizer.kind",
    "optim": "optim.name",
    "parallel": "parallel.mode",
    "tracker": "tracker.name",
}
SIGNS = ("!=", "<=", ">=", "=", "<", ">")


@dataclass(frozen=True)
class Condition:
    """KEY SIGN VALUE, such as test_loss_nats<1.2."""

    name: str
    sign: str
    wanted: str

    def holds(self, facts: Mapping[str, Any]) -> bool:
        """Whether a run's facts meet it; an absent value is unequal to all and in no order.

        Numbers compare as numbers, 2_000_000 and 2e6 alike; all else as text.
        """
        value = facts.get(self.name)
        number, wanted = _read_number(value), _read_number(self.wanted)
        if self.sign in ("=", "!="):
            equal = number == wanted if None not in (number, wanted) else _spell(value) == self.wanted
            return equal is (self.sign == "=")
        if number is None or wanted is None:
            return False
        return {
            "<": number < wanted,
            ">": number > wanted,
            "<=": number <= wanted,
            ">=": number >= wanted,
        }[self.sign]


@dataclass(frozen=True, kw_only=True)
class Selection:
    """The runs that a person means, in the order asked for."""

    names: list[str]  # of settings and results that were asked about
    found: list[dict[str, Any]]  # facts of each run, and its folder as run_dir
    unread: list[str]  # why of some no more than the status is known


def select_runs(
    runs: Iterable[Run], conditions: Sequence[Condition], sort: str | None = None, reverse: bool = False
) -> Selection:
    """The runs that meet all conditions, ordered by a setting or result; those without it come last.

    Raises: ConfigError for a key that no run can have.
    """
    names = [condition.name for condition in conditions] + ([sort] if sort else [])
    found: list[dict[str, Any]] = []
    unread: list[str] = []
    for run in runs:
        try:
            facts = collect_facts(run, names)
        except DataError as error:
            unread.append(str(error))
            facts = {"run_id": run.path.name, "status": run.status()}
        found.append({**facts, "run_dir": str(run.path)})
    check_names(names, found)
    found = [facts for facts in found if all(condition.holds(facts) for condition in conditions)]
    if sort:
        found.sort(key=lambda facts: sort_key(facts.get(sort)), reverse=reverse)
        found.sort(key=lambda facts: facts.get(sort) is None)  # what is absent is last either way
    elif reverse:
        found.reverse()
    return Selection(names=names, found=found, unread=unread)


def parse_condition(text: str) -> Condition:
    """A condition from one word.

    Raises: ConfigError if it has no sign, or orders by something that is not a number.
    """
    found = re.fullmatch(r"\s*([\w.]+?)\s*(!=|<=|>=|=|<|>)\s*(.*?)\s*", text)
    if not found:
        raise ConfigError(f"--where {text}: written KEY=VALUE, with one of {' '.join(SIGNS)}")
    condition = Condition(*found.groups())
    if condition.sign not in ("=", "!=") and _read_number(condition.wanted) is None:
        raise ConfigError(f"--where {text}: '{condition.sign}' needs a number")
    return condition


def collect_facts(run: Run, names: Iterable[str] | None = None) -> dict[str, Any]:
    """All a condition can ask of a run: status, dotted settings, group labels, final record.

    Settings are left out if none of `names` is one, for reading them takes 30 ms a run.
    Raises: DataError if the configuration was edited.
    """
    facts: dict[str, Any] = {}
    if names is None or not {*list_keys(), *LABELS}.isdisjoint(names):
        facts = schema.flatten_config(run.config())
        facts |= {label: facts[dotted] for label, dotted in LABELS.items() if dotted in facts}
    status = run.status()
    record = run.result() if status == "complete" else {}
    return facts | record | {"run_id": run.run_id, "status": status}


def check_names(names: Iterable[str], found: Sequence[Mapping[str, Any]]) -> None:
    """Refuse a key that no run can have.

    Raises: ConfigError with the nearest known one.
    """
    known = {*list_keys(), *LABELS, "run_id", "status", *(name for facts in found for name in facts)}
    for name in names:
        if name not in known and found:
            raise ConfigError(f"{name}: no run has such a setting or result{suggest(name, sorted(known))}")


def sort_key(value: Any) -> tuple[int, float, str]:
    """An order over anything: numbers, then text, then what is absent."""
    number = _read_number(value)
    if number is not None:
        return 0, number, ""
    return (2, 0.0, "") if value is None else (1, 0.0, _spell(value))


def _read_number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        return float(value)
    except (ValueError, OverflowError):
        return None


def _spell(value: Any) -> str:
    """As the command line spells it: null, true, false."""
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else str(value)
