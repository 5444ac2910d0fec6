"""A sweep's configurations: the grid of its words, each composed at the cost of a copy.

All cells of a grid set the same keys, so cells that choose the same files differ in plain values
alone: the first is composed by Hydra, the others are copies with those values set.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from glu_bench.config import expand_grid, load_config, read_setting, read_sweep, read_variant
from glu_bench.errors import ConfigError
from glu_bench.rules import check_config
from glu_bench.schema import ARGUMENT_KEYS, Config, is_number_key

Setting = tuple[str, Any] | None


def load_grid(overrides: Sequence[str], config_dir: Path | None = None) -> Iterator[tuple[list[str], Config]]:
    """Every combination of the swept values with its checked configuration, as `load_config` gives it.

    An experiment's file may hold a whole sweep; words given beside it replace its own.
    Raises: ConfigError as `expand_grid` and `load_config` do.
    """
    settings: dict[str, Setting] = {}
    first: dict[tuple[str, ...], tuple[list[str], Config]] = {}
    for words in expand_grid([*read_sweep(overrides, config_dir), *overrides], config_dir):
        for word in words:
            if word not in settings:
                settings[word] = read_setting(word, config_dir)
        choices = tuple(word for word in words if settings[word] is None)
        if choices not in first:
            first[choices] = (words, _load(words, first, config_dir))
            yield words, copy.deepcopy(first[choices][1])
            continue
        first_words, first_config = first[choices]
        config = copy.deepcopy(first_config)
        for word in set(words).difference(first_words):
            setting = settings[word]
            assert setting is not None  # words that choose files are equal here
            _set(config, *setting)
        check_config(config)
        yield words, config


def _load(
    words: list[str],
    first: Mapping[tuple[str, ...], tuple[list[str], Config]],
    config_dir: Path | None,
) -> Config:
    """A cell's configuration: another variant of one that was composed, or composed itself.

    A variant is one file that depends on no other, and most grids vary it: reading the file
    takes a hundredth of the time of composing all.
    """
    named, others = _split_variant(words)
    bound = any(word.startswith(("variant.", "experiment=")) for word in words)  # these reach into the file
    if named is not None and not bound:
        for their_words, config in first.values():
            if _split_variant(their_words)[1] == others:
                config = copy.deepcopy(config)
                config.variant = read_variant(named, config_dir)
                check_config(config)
                return config
    return load_config(words, config_dir)


def _split_variant(words: Sequence[str]) -> tuple[str | None, list[str]]:
    """The variant that words choose, if they do, and the other words."""
    named = [word for word in words if word.startswith("variant=")]
    return (named[0].partition("=")[2] if len(named) == 1 else None), [w for w in words if w not in named]


def with_words(config: Config, words: Sequence[str], config_dir: Path | None = None) -> Config:
    """A copy of a configuration with more settings, none of which chooses a file.

    Raises: ConfigError for a word that does, or a value out of range.
    """
    changed = copy.deepcopy(config)
    for word in words:
        setting = read_setting(word, config_dir)
        if setting is None:
            raise ConfigError(f"{word}: chooses a file; a plain key was expected, such as optim.lr")
        _set(changed, *setting)
    check_config(changed)
    return changed


def _set(config: Config, dotted: str, value: Any) -> None:
    """Give a key its value as composing would: whole numbers become floats, words text."""
    place, _, name = dotted.rpartition(".")
    if place in ARGUMENT_KEYS:
        group, _, arguments = place.partition(".")
        getattr(getattr(config, group), arguments)[name] = float(value)
        return
    holder = getattr(config, place) if place else config
    if dotted == "train.compile":
        value = str(value).lower()
    elif is_number_key(dotted, value):
        value = float(value)
    elif value is not None and isinstance(getattr(holder, name), str):
        value = str(value)
    setattr(holder, name, value)
