"""How a comparison's numbers came about: what its runs recorded of their settings, machines and versions."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from glu_bench.config import list_group, read_variant
from glu_bench.errors import ConfigError
from glu_bench.runs.folder import Run
from glu_bench.schema import Config
from glu_bench.study.compare import Comparison


@dataclass(frozen=True, kw_only=True)
class Methods:
    """What a paper must say of one table's runs; without runs only the sources of the arms."""

    sources: dict[str, tuple[str, str]]  # arm -> its variant's name and the words that say who published it
    configs: list[Config]  # of one run an arm
    results: list[dict[str, Any]]  # of those runs
    environments: list[dict[str, Any]]  # of all finished runs


def read_methods(comparison: Comparison) -> Methods:
    """The facts behind a table, from its finished runs.

    Arms without runs, of a CSV file say, take the source of the built-in variant of their name.
    Raises: DataError for a run folder that is broken.
    """
    sources: dict[str, tuple[str, str]] = {}
    configs, results, environments = [], [], []
    known = set(list_group("variant"))
    for arm in comparison.arms:
        runs = [Run(Path(folder)) for folder in arm.runs]
        environments += [run.environment() for run in runs]
        if runs:
            config = runs[0].config()
            configs.append(config)
            results.append(runs[0].result())
            sources[arm.arm] = (config.variant.name, config.variant.source)
        elif arm.arm in known:
            sources[arm.arm] = (arm.arm, read_variant(arm.arm).source)
    return Methods(sources=sources, configs=configs, results=results, environments=environments)


def require_runs(tables: Iterable[Comparison], option: str) -> None:
    """Nothing, where a table has a finished run.

    Raises: ConfigError that the option needs runs.
    """
    if not any(arm.runs for table in tables for arm in table.arms):
        raise ConfigError(f"{option}: needs finished runs, results from a file have no curves")
