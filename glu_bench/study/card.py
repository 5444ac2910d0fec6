"""A reproduction card: a published table as data, and what to run to try it at a smaller scale.

A card is one file of configs/reproduce/, of a person's --config-dir/reproduce/, or anywhere.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from glu_bench.config import expand_grid, find_config_root, list_group
from glu_bench.errors import ConfigError, suggest
from glu_bench.typed_file import read_typed

GROUP = "reproduce"
OWN_KEYS = ("variant", "seed", "model", "train.tokens")  # a scale has fields of its own for them
Part = TypeVar("Part")
PLAIN_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")


@dataclass(kw_only=True)
class PublishedArm:
    """One number of a table."""

    mean: float  # in the card's unit
    sd: float | None = None  # over the column's n runs


@dataclass(kw_only=True)
class Noise:
    """What is assumed of the noise where a paper prints none."""

    sd: float  # of one run
    df: int  # degrees of freedom that this sd is known to
    reason: str


@dataclass(kw_only=True)
class Column:
    """One column of a table."""

    what: str
    n: int  # runs behind each number
    arms: dict[str, PublishedArm]
    noise: Noise | None = None


@dataclass(kw_only=True)
class Scale:
    """A protocol that fits a machine: what to train for each arm."""

    model: str
    tokens: int
    seeds: list[int]
    tune: dict[str, list[Any]] = field(default_factory=dict)  # key to its grid, tried for every arm
    tune_seeds: list[int] = field(default_factory=list)
    overrides: list[str] = field(default_factory=list)


@dataclass(kw_only=True)
class Card:
    """A published table, its source, and the scales at which to try it."""

    name: str
    title: str
    source: str
    protocol: str
    unit: str
    arms: dict[str, str]  # our variant to the table's name for it
    columns: dict[str, Column]
    scales: dict[str, Scale]


def list_cards(config_dir: Path | None = None) -> list[str]:
    """Names of the cards, a person's own included, sorted."""
    return list_group(GROUP, config_dir)


def load_card(text: str, config_dir: Path | None = None) -> Card:
    """The card of this name, or in this YAML file, checked.

    Raises: ConfigError in one line with the file and the key.
    """
    path = Path(text)
    if path.suffix not in (".yaml", ".yml"):
        names = list_cards(config_dir)
        if text not in names:
            raise ConfigError(
                f"no card named '{text}'; known: {', '.join(names)}{suggest(text, names)}; or a YAML file"
            )
        folders = [root / GROUP for root in (find_config_root(), config_dir) if root]
        path = next(path for folder in folders if (path := folder / f"{text}.yaml").is_file())
    card = read_typed(path, Card)
    try:
        _check_card(card, path.stem, config_dir)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None
    return card


def find_column(card: Card, name: str | None) -> tuple[str, Column]:
    """A column by name; the first if none is given. Raises: ConfigError for one that is not there."""
    return _find("--column", card.name, card.columns, name)


def find_scale(card: Card, name: str | None) -> tuple[str, Scale]:
    """A scale by name; the first if none is given. Raises: ConfigError for one that is not there."""
    return _find("--scale", card.name, card.scales, name)


def spell_grid(key: str, values: Sequence[Any]) -> str:
    """The word that tries these values of a key: optim.lr=0.001,0.002."""
    spelled = (f"{value:g}" if isinstance(value, float) else str(value) for value in values)
    return f"{key}={','.join(spelled)}"


def _find(option: str, card: str, parts: dict[str, Part], name: str | None) -> tuple[str, Part]:
    name = name or next(iter(parts))
    if name not in parts:
        raise ConfigError(f"{option} {name}: {card} has {', '.join(parts)}{suggest(name, parts)}")
    return name, parts[name]


def _check_card(card: Card, stem: str, config_dir: Path | None) -> None:
    if card.name != stem or not PLAIN_NAME.fullmatch(stem):
        raise ConfigError(f"name: '{card.name}', but the file's is '{stem}'; both must be one plain word")
    known = list_group("variant", config_dir)
    for arm in card.arms:
        if arm not in known:
            raise ConfigError(f"arms.{arm}: no such variant{suggest(arm, known)}")
    if len(card.arms) < 2:
        raise ConfigError("arms: two or more are needed")
    for name, parts in (("columns", card.columns), ("scales", card.scales)):
        if not parts:
            raise ConfigError(f"{name}: one or more is needed")
    for name, column in card.columns.items():
        _check_column(f"columns.{name}", column, card)
    for name, scale in card.scales.items():
        _check_scale(f"scales.{name}", scale, config_dir)


def _check_column(key: str, column: Column, card: Card) -> None:
    if column.n < 1:
        raise ConfigError(f"{key}.n: {column.n}; 1 or more runs stand behind a number")
    if len(column.arms) < 2:
        raise ConfigError(f"{key}.arms: two or more are needed")
    for arm, published in column.arms.items():
        at = f"{key}.arms.{arm}"
        if arm not in card.arms:
            raise ConfigError(f"{at}: not among the card's arms{suggest(arm, card.arms)}")
        if not math.isfinite(published.mean):
            raise ConfigError(f"{at}.mean: {published.mean} is not finite")
        if published.sd is None:
            continue
        if not (math.isfinite(published.sd) and published.sd > 0):
            raise ConfigError(f"{at}.sd: {published.sd:g}; a number > 0, or no sd at all")
        if column.n < 2:
            raise ConfigError(f"{at}.sd: {published.sd:g}, but {key}.n is 1: one run has no sd")
    missing = [arm for arm, published in column.arms.items() if published.sd is None]
    if missing and len(missing) < len(column.arms):
        raise ConfigError(f"{key}.arms.{missing[0]}.sd: missing; a column has it for all arms or for none")
    if column.noise is not None:
        if not missing:
            raise ConfigError(f"{key}.noise: the column prints sds of its own")
        if not (math.isfinite(column.noise.sd) and column.noise.sd > 0):
            raise ConfigError(f"{key}.noise.sd: {column.noise.sd:g}; a number > 0")
        if column.noise.df < 1:
            raise ConfigError(f"{key}.noise.df: {column.noise.df}; 1 or more")


def _check_scale(key: str, scale: Scale, config_dir: Path | None) -> None:
    if not PLAIN_NAME.fullmatch(key.partition(".")[2]):
        raise ConfigError(f"{key}: a scale's name is one plain word")
    if scale.tokens < 1:
        raise ConfigError(f"{key}.tokens: {scale.tokens}; 1 or more")
    _check_seeds(f"{key}.seeds", scale.seeds)
    if bool(scale.tune) != bool(scale.tune_seeds):
        raise ConfigError(f"{key}.tune_seeds: needed where something is tuned, and only there")
    if scale.tune_seeds:
        _check_seeds(f"{key}.tune_seeds", scale.tune_seeds)
    if both := set(scale.seeds) & set(scale.tune_seeds):
        raise ConfigError(f"{key}.tune_seeds: {min(both)} is also in seeds; a choice needs fresh ones")
    for name, values in scale.tune.items():
        if len(values) < 2:
            raise ConfigError(f"{key}.tune.{name}: at least two values")
        _check_words(f"{key}.tune.{name}", [spell_grid(name, values)], len(values), config_dir)
        numbers = [value for value in values if isinstance(value, int | float)]
        if numbers != sorted(numbers):
            raise ConfigError(f"{key}.tune.{name}: from low to high; --quick takes the middle")
    _check_words(f"{key}.model", [f"model={scale.model}"], 1, config_dir)
    for word in scale.overrides:
        name = word.partition("=")[0]
        if name in OWN_KEYS:
            raise ConfigError(f"{key}.overrides: {word}: {name} has its own place in the card")
        if name in scale.tune:
            raise ConfigError(f"{key}.overrides: {word}: {name} is tuned")
    _check_words(f"{key}.overrides", scale.overrides, 1, config_dir)


def _check_seeds(key: str, seeds: Sequence[int]) -> None:
    if not seeds or len(set(seeds)) < len(seeds) or min(seeds) < 0:
        raise ConfigError(f"{key}: {list(seeds)}; one seed or more, each once, none below 0")


def _check_words(key: str, words: Sequence[str], n: int, config_dir: Path | None) -> None:
    """Settings as the command line takes them: known, of the right type, and this many combinations."""
    try:
        combinations = expand_grid(words, config_dir)
    except ConfigError as error:
        raise ConfigError(f"{key}: {error}") from None
    if len(combinations) != n:
        raise ConfigError(f"{key}: {' '.join(words)}: one value each; what varies are arms, seeds and tune")
