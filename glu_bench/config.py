"""From override words to a checked `Config`, and the groups of files that words choose from.

Hydra composes, `config_file` types and checks; what leaves this file is plain dataclasses. Words
are checked against the schema before Hydra sees them, so a typing mistake ends in one line that
says what would work.
"""

from __future__ import annotations

import itertools
import re
import types
import typing
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from glu_bench.config_file import explain_key, explain_omegaconf, finish_config, read_variant_file
from glu_bench.errors import ConfigError, suggest
from glu_bench.schema import (
    ARGUMENT_KEYS,
    BUDGET_KEYS,
    Config,
    Variant,
    allowed_types,
    describe_key,
    key_types,
    list_keys,
)
from glu_bench.words import READ_ONLY, quote
from glu_bench.yaml_file import read_yaml

if TYPE_CHECKING:
    from hydra.core.override_parser.types import Override

DATA_FOLDERS = {"reproduce"}  # beside the groups; no run's settings are chosen from them


def find_config_root() -> Path:
    """The configs/ folder: inside the installed package, or beside it in a checkout."""
    package = Path(__file__).resolve().parent
    inside = package / "configs"
    return inside if inside.is_dir() else package.parent / "configs"


def load_config(overrides: Sequence[str] = (), config_dir: Path | None = None) -> Config:
    """The configuration that the override words ask for, complete and checked.

    `config_dir` is a person's own folder of groups; its files go beside the built-in ones.
    Words that set every key leave no file anything to say, and none is read.
    Raises: ConfigError for an unknown key, name, type or range.
    """
    words = [_quote_files(word) for word in overrides]
    roots = _list_roots(config_dir)
    parsed = _parse_overrides(words)
    for override in parsed:
        _check_override(override, roots)
        if override.is_sweep_override():
            raise ConfigError(
                f"{override.input_line}: several values are for `glu-bench sweep`, train takes one"
            )
    keys = {override.key_or_group for override in parsed}
    arguments = {key for key in keys if key.rpartition(".")[0] in ARGUMENT_KEYS}
    if keys - arguments == list_keys().keys() - {READ_ONLY, *ARGUMENT_KEYS}:
        return _assemble(parsed)
    return _compose(words, config_dir)


def read_variant(name: str, config_dir: Path | None = None) -> Variant:
    """The description of one variant, without composing the rest.

    Raises: ConfigError if there is no such file or it contradicts itself.
    """
    names = list_group("variant", config_dir)
    if name not in names:
        raise ConfigError(f"no variant named '{name}'; known: {', '.join(names)}{suggest(name, names)}")
    roots = _list_roots(config_dir)
    path = next(path for root in roots if (path := root / "variant" / f"{name}.yaml").is_file())
    return read_variant_file(path)


def list_group(group: str, config_dir: Path | None = None) -> list[str]:
    """Names of the files in a configuration group, a person's own included, sorted."""
    roots = _list_roots(config_dir)
    return sorted({path.stem for root in roots for path in (root / group).glob("*.yaml")})


def list_groups(config_dir: Path | None = None) -> list[str]:
    """Names of the configuration groups, sorted."""
    roots = _list_roots(config_dir)
    return sorted({path.name for root in roots for path in root.iterdir() if path.is_dir()} - DATA_FOLDERS)


def expand_grid(overrides: Sequence[str], config_dir: Path | None = None) -> list[list[str]]:
    """Every combination of the swept values, the last word varying fastest.

    Each element is a list of plain override words. Hydra's whole sweep grammar works:
    `variant=relu,gelu`, `seed=range(0,5)`, `'variant=glob(*glu)'`.
    Raises: ConfigError for an unknown key, an empty sweep or the same value twice.
    """
    words = [_quote_files(word) for word in overrides]
    roots = _list_roots(config_dir)
    axes: list[list[str]] = []
    for override in _parse_overrides(words):
        _check_override(override, roots)
        word = str(override.input_line)
        name = word.split("=", 1)[0]
        if not override.is_sweep_override():
            axes.append([word])
            continue
        values = list(_sweep_values(override, config_dir))
        if not values:
            raise ConfigError(f"{word}: the sweep is empty, nothing matches")
        twice = sorted({value for value in values if values.count(value) > 1})
        if twice:
            raise ConfigError(f"{word}: {', '.join(twice)} stands there twice")
        axes.append([f"{name}={value}" for value in values])
    return [list(combination) for combination in itertools.product(*axes)]


def read_setting(word: str, config_dir: Path | None = None) -> tuple[str, Any] | None:
    """The key that a checked word sets and its value; None if it chooses a file of a group."""
    (override,) = _parse_overrides([word])
    if override.key_or_group in list_groups(config_dir):
        return None
    return override.key_or_group, _plain_value(override)


def read_sweep(overrides: Sequence[str], config_dir: Path | None = None) -> list[str]:
    """The sweep that the chosen experiment's file holds, as words, but for keys the overrides set.

    Hydra's own place for it: hydra.sweeper.params, a mapping of keys to values.
    """
    given = {word.partition("=")[0] for word in overrides}
    (name,) = [word.partition("=")[2] for word in overrides if word.startswith("experiment=")] or ("",)
    for root in _list_roots(config_dir):
        path = root / "experiment" / f"{name}.yaml"
        if name and path.is_file():
            params = read_yaml(path).get("hydra", {}).get("sweeper", {}).get("params", {})
            return [f"{key}={value}" for key, value in params.items() if key not in given]
    return []


def _compose(words: Sequence[str], config_dir: Path | None) -> Config:
    from hydra import compose, initialize_config_dir
    from hydra.core.config_store import ConfigStore
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    # a constant may be one that the variant's file does not name, for another function
    words = [f"++{w}" if w.partition("=")[0].rpartition(".")[0] in ARGUMENT_KEYS else w for w in words]
    keys = {word.split("=", 1)[0] for word in words}
    budgets = set(BUDGET_KEYS)
    if keys & budgets:  # a budget on the command line replaces the preset's, whatever its unit
        words.extend(f"{name}=null" for name in sorted(budgets - keys))
    if config_dir is not None:
        for path in sorted(config_dir.rglob("*.yaml")):
            read_yaml(path)  # says file and line, which Hydra would bury
        words.append(f"hydra.searchpath=[{quote(f'file://{config_dir.resolve()}')}]")
    ConfigStore.instance().store(name="schema", node=Config)
    try:
        with initialize_config_dir(version_base="1.3", config_dir=str(find_config_root())):
            composed = compose(config_name="config", overrides=words)
        return finish_config(composed)
    except (OmegaConfBaseException, OverflowError) as error:
        raise ConfigError(explain_omegaconf(error)) from None
    except HydraException as error:
        cause: BaseException = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        if isinstance(cause, OmegaConfBaseException):
            raise ConfigError(explain_omegaconf(cause)) from None
        unknown = re.search(r"full_key: (\S+)", str(cause))
        if unknown:
            said = [line for line in str(cause).splitlines() if not line.startswith("In '")]
            raise ConfigError(explain_key(unknown[1], said[0])) from None
        raise ConfigError(" ".join(str(cause).split())) from None


def _assemble(overrides: Iterable[Override]) -> Config:
    """The configuration of words that set every key."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    tree: dict[str, Any] = {}
    for override in overrides:
        *groups, name = override.key_or_group.split(".")
        place = tree
        for group in groups:
            place = place.setdefault(group, {})
        place[name] = _plain_value(override)
    try:
        return finish_config(OmegaConf.merge(OmegaConf.structured(Config), tree))
    except (OmegaConfBaseException, OverflowError) as error:
        raise ConfigError(explain_omegaconf(error)) from None


def _plain_value(override: Override) -> Any:
    from hydra.core.override_parser.types import QuotedString

    value: Any = override.value()
    if isinstance(value, list):
        return [entry.text if isinstance(entry, QuotedString) else entry for entry in value]
    return value.text if isinstance(value, QuotedString) else value


def _list_roots(config_dir: Path | None) -> list[Path]:
    if config_dir is None:
        return [find_config_root()]
    if not config_dir.is_dir():
        raise ConfigError(f"--config-dir {config_dir}: no such folder")
    return [find_config_root(), config_dir]


def _quote_files(word: str) -> str:
    """data.files takes one path as readily as a list; any path is quoted for Hydra's grammar."""
    name, equals, value = word.partition("=")
    if name != "data.files" or not equals or value[:1] in ("[", "'", '"', ""):
        return f"{name}=[{value}]" if name == "data.files" and value[:1] in ("'", '"') else word
    return f"data.files=[{quote(value)}]"


def _parse_overrides(words: Iterable[str]) -> list[Override]:
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    parser = OverridesParser.create()
    parsed = []
    for word in words:
        if "=" not in word:
            hint = suggest(word, ["variant", "model", "data", "seed"])
            raise ConfigError(f"'{word}': settings are written KEY=VALUE, such as variant=swiglu{hint}")
        try:
            parsed.append(parser.parse_override(word))
        except (HydraException, ValueError, RecursionError) as error:
            reason = str(error).splitlines()[0]
            raise ConfigError(
                f"'{word}': {reason}; quote a value with special signs: \"key='a b'\""
            ) from None
    return parsed


def _check_override(override: Override, roots: Sequence[Path]) -> None:
    """Refuse a word whose key, name or type cannot work; ranges are checked after composing."""
    word, name = override.input_line, override.key_or_group
    keys = list_keys()
    groups = sorted({path.name for root in roots for path in root.iterdir() if path.is_dir()} - DATA_FOLDERS)
    if override.is_delete():
        raise ConfigError(f"{word}: keys cannot be taken out")
    if override.is_add():
        hint = suggest(name, [*keys, *groups])
        raise ConfigError(f"{word}: write KEY=VALUE without '+'; keys cannot be added{hint}")
    if name == READ_ONLY:
        raise ConfigError(f"{word}: read only; it changes with the code")
    values = [override.value()]
    if override.is_choice_sweep() and not override.is_range_sweep():
        values = list(getattr(override.value(), "list", []))
    if name in groups:
        options = sorted({path.stem for root in roots for path in (root / name).glob("*.yaml")})
        for value in values:
            if isinstance(value, str) and value not in options:
                hint = suggest(value, options)
                raise ConfigError(f"{name}={value}: no such {name}; known: {', '.join(options)}{hint}")
            if not isinstance(value, str) and not override.is_sweep_override():
                raise ConfigError(f"{word}: {name} takes a name: {', '.join(options)}")
    elif name in keys:
        for value in values:
            if not override.is_range_sweep():
                _check_type(name, value)
    elif name.rpartition(".")[0] in ARGUMENT_KEYS:
        for value in values:  # a constant of a variant's function: variant.gate_args.beta
            number = type(value) is float or (type(value) is int and value.bit_length() < 1024)
            if not number and not override.is_range_sweep():
                raise ConfigError(f"{name}={value}: expected a number")
    else:
        raise ConfigError(f"{word}: no such key{suggest(name, [*keys, *groups])}")


def _check_type(dotted: str, value: Any) -> None:
    from hydra.core.override_parser.types import QuotedString

    if isinstance(value, QuotedString):
        value = value.text
    annotation = key_types()[dotted]
    allowed = allowed_types(annotation)
    fits = (
        (value is None and types.NoneType in allowed)
        or (isinstance(value, bool) and (bool in allowed or dotted == "train.compile"))
        or (type(value) is int and (int in allowed or (float in allowed and value.bit_length() < 1024)))
        or (isinstance(value, float) and float in allowed)
        or (str in allowed and isinstance(value, str | int | float))
        or (isinstance(value, list) and typing.get_origin(annotation) is list)
    )
    if not fits:
        shown = "null" if value is None else f"'{value}'" if value == "" else value
        raise ConfigError(f"{dotted}={shown}: expected {describe_key(dotted)}")


def _sweep_values(override: Override, config_dir: Path | None) -> Iterable[str]:
    from hydra.core.override_parser.types import Glob
    from hydra.errors import HydraException

    value: Any = override.value()
    if isinstance(value, Glob):
        return list(value.filter(list_group(override.key_or_group, config_dir)))
    try:
        return list(override.sweep_string_iterator())
    except HydraException as error:
        raise ConfigError(f"{override.input_line}: {error}") from None
