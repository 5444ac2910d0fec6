"""Where two runs part: in what was asked for, in the machine, in the text, or in a step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from glu_bench import schema
from glu_bench.runs.folder import Run

# the parts of environment.json that are about the text
ABOUT_DATA = ("data_fingerprint", "tokenizer_fingerprint", "vocab_size", "splits", "overlap_bytes")


@dataclass(frozen=True)
class Difference:
    """One value that two runs do not share; None where a run has none."""

    section: str  # configuration, environment, data or step
    name: str
    a: Any
    b: Any


@dataclass(frozen=True, kw_only=True)
class RunDifference:
    """Everything in which two runs differ."""

    configuration: list[Difference]
    environment: list[Difference]
    data: list[Difference]
    step: Difference | None  # the first logged step whose loss differs

    @property
    def first(self) -> Difference | None:
        """The difference that explains most: settings before machine before text before numbers."""
        steps = [self.step] if self.step else []
        return next(iter([*self.configuration, *self.environment, *self.data, *steps]), None)


def diff_runs(a: Run, b: Run) -> RunDifference:
    """All differences between two runs.

    Raises: DataError if a folder is not a run, or was edited.
    """
    settings = [schema.flatten_config(run.config()) for run in (a, b)]
    facts = [run.environment() for run in (a, b)]
    machine, text = [], []
    for each in facts:
        about_data = {name: each[name] for name in ABOUT_DATA if name in each}
        text.append(schema.flatten(about_data))
        machine.append(
            schema.flatten({k: v for k, v in each.items() if k not in about_data and k != "run_id"})
        )
    return RunDifference(
        configuration=_diff_values("configuration", *settings),
        environment=_diff_values("environment", *machine),
        data=_diff_values("data", *text),
        step=_diff_steps(a, b),
    )


def _diff_values(section: str, a: dict[str, Any], b: dict[str, Any]) -> list[Difference]:
    names = [*a, *(name for name in b if name not in a)]
    return [
        Difference(section, name, a.get(name), b.get(name)) for name in names if a.get(name) != b.get(name)
    ]


def _diff_steps(a: Run, b: Run) -> Difference | None:
    losses = [{row["step"]: row.get("loss_nats") for row in run.rows()} for run in (a, b)]
    for step in sorted({*losses[0], *losses[1]}):
        if losses[0].get(step) != losses[1].get(step):
            return Difference("step", f"loss_nats at step {step}", losses[0].get(step), losses[1].get(step))
    return None
