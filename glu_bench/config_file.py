"""A configuration, or a variant, as a YAML file: typed and checked when it is read, whoever wrote it.

OmegaConf types, `rules` checks ranges; what leaves this file is plain dataclasses.
"""

from __future__ import annotations

import dataclasses
import functools
import types
import typing
from pathlib import Path
from typing import Any

from glu_bench import rules, schema
from glu_bench.errors import ConfigError, DataError, GluBenchError, suggest
from glu_bench.schema import ARGUMENT_KEYS, Config, Variant, allowed_types, describe_key, key_types, list_keys
from glu_bench.yaml_file import read_yaml, refuse_interpolation


def read_config(path: Path) -> Config:
    """A configuration saved as `render_config` has it; the file may come from anybody.

    A key that is not there has the value of runs older than the key, null where that is allowed.
    Raises: DataError if it is not a complete, plain configuration within all ranges.
    """
    try:
        tree = read_yaml(path)
        config = _fill(Config, tree)
        if config is None:
            return _convert(path, tree)
        return _check(config)
    except GluBenchError as error:
        raise DataError(f"{path}: {str(error).removeprefix(f'{path}: ')}") from None


def render_config(config: Config) -> str:
    """The configuration as YAML; `read_config` of it gives an equal configuration."""
    from omegaconf import OmegaConf

    return OmegaConf.to_yaml(OmegaConf.create(dataclasses.asdict(config)))


def read_variant_file(path: Path) -> Variant:
    """The variant that a file describes.

    Raises: ConfigError if it is none or contradicts itself.
    """
    tree = read_yaml(path)
    variant: Variant | None = _fill(Variant, tree)
    if variant is None:
        variant = _convert_variant(path, tree)
    rules.check_variant(variant)
    return variant


def finish_config(composed: Any) -> Config:
    """The configuration that OmegaConf has put together, checked.

    Raises: ConfigError; OmegaConfBaseException for what is missing or of another type.
    """
    from omegaconf import OmegaConf

    OmegaConf.set_readonly(composed, False)
    if OmegaConf.is_missing(composed, "numerics_version"):
        composed.numerics_version = schema.NUMERICS_VERSION
    refuse_interpolation(OmegaConf.to_container(composed, resolve=False))
    return _check(typing.cast(Config, OmegaConf.to_object(composed)))


def explain_omegaconf(error: BaseException, prefix: str = "") -> str:
    """What was wrong, in a line: the key, below `prefix`, and what would work."""
    dotted = getattr(error, "full_key", None) or ""
    message = str(error).splitlines()[0]
    return explain_key(prefix + dotted, message) if dotted else message


def explain_key(dotted: str, message: str) -> str:
    """The same of a key, of which OmegaConf or Hydra says `message`."""
    keys = list_keys()
    if dotted.rpartition(".")[0] in ARGUMENT_KEYS:
        return f"{dotted}: {message}; expected a number"
    if dotted not in keys:
        return f"{dotted}: no such key{suggest(dotted, keys)}"
    if "missing mandatory value" in message:
        return f"{dotted} is missing; {keys[dotted].metadata['help']}"
    return f"{dotted}: {message}; expected {describe_key(dotted)}"


def _check(config: Config) -> Config:
    config.train.compile = config.train.compile.lower()  # train.compile=false is read as a bool
    config.train.diagnostics = {"False": "off"}.get(config.train.diagnostics, config.train.diagnostics)
    rules.check_config(config)
    return config


def _fill(kind: Any, tree: Any) -> Any:
    """The dataclass of a tree whose every value has its declared type; None if one has not.

    Most files are read by this alone, in a twentieth of the time that OmegaConf takes; what it
    leaves is for OmegaConf, which converts what can be converted and names what cannot.
    """
    if not isinstance(tree, dict):
        return None
    values: dict[str, Any] = {}
    n_taken = 0
    for name, allowed, absent in _list_fields(kind):
        if name not in tree:
            if absent is dataclasses.MISSING:
                return None
            values[name] = absent() if callable(absent) else absent
            continue
        n_taken += 1
        value = tree[name]
        if dataclasses.is_dataclass(allowed[0]):
            value = _fill(allowed[0], value)
            if value is None:
                return None
        elif not _has_type(value, allowed):
            return None
        values[name] = value
    return kind(**values) if n_taken == len(tree) else None


@functools.cache
def _list_fields(kind: type) -> tuple[tuple[str, tuple[Any, ...], Any], ...]:
    """Each field's name, types, and value where it is absent: that of older runs, its default, or MISSING."""
    found = []
    hints = typing.get_type_hints(kind)
    for entry in dataclasses.fields(kind):
        allowed = allowed_types(hints[entry.name])
        absent: Any = entry.metadata.get("before")
        if absent is None and types.NoneType not in allowed:
            made = entry.default_factory
            absent = entry.default if made is dataclasses.MISSING else made
        found.append((entry.name, allowed, absent))
    return tuple(found)


def _has_type(value: Any, allowed: tuple[Any, ...]) -> bool:
    kind = type(value)
    if kind is list:
        return list[str] in allowed and all(type(item) is str and item != "???" for item in value)
    if kind is dict:
        return dict[str, float] in allowed and all(type(number) is float for number in value.values())
    return kind in allowed and value != "???"  # three question marks stand for a missing value in Hydra


def _convert(path: Path, tree: dict[str, Any]) -> Config:
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        return finish_config(OmegaConf.merge(OmegaConf.structured(Config), _make_older(), tree))
    except OmegaConfBaseException as error:
        raise DataError(f"{path}: {explain_omegaconf(error)}") from None


def _convert_variant(path: Path, tree: dict[str, Any]) -> Variant:
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        merged = OmegaConf.merge(OmegaConf.structured(Variant), tree)
        return typing.cast(Variant, OmegaConf.to_object(merged))
    except OmegaConfBaseException as error:
        raise ConfigError(f"{path}: {explain_omegaconf(error, 'variant.')}") from None


def _make_older() -> dict[str, Any]:
    """What a run older than a key had there: null for every nullable key of a group."""
    older: dict[str, dict[str, Any]] = {}
    for dotted, annotation in key_types().items():
        group, _, name = dotted.rpartition(".")
        before = list_keys()[dotted].metadata["before"]
        if before is not None or types.NoneType in typing.get_args(annotation):
            older.setdefault(group, {})[name] = before
    return older
