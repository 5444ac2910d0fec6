"""A YAML file as plain values; it may come from anybody.

libyaml reads many times as fast as PyYAML's own parser, which does the work where it is not
there. Neither builds anything: their composers follow aliases and nesting as far as they go.
"""

from __future__ import annotations

import functools
import re
from pathlib import Path
from typing import Any

from glu_bench.errors import ConfigError

LIMIT_BYTES = 2**20  # a configuration is a few kB; more is a mistake or an attack
MAX_DEPTH = 20  # ours are four deep
MAX_NUMBER_CHARS = 100  # what is longer is text

# what makes Hydra call something: _target_, _partial_, _args_
_INSTRUCTION = re.compile(r"_[a-z]+_")
# a number with an exponent is one without a dot or a sign too: 1e-3, as Hydra reads it
_EXPONENT = re.compile(r"[-+]?[0-9]+(?:_[0-9]+)*(?:\.[0-9_]*)?[eE][-+]?[0-9]+")


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file: at most 1 MiB of UTF-8, no aliases, tags or interpolation.

    Values are those that Hydra reads: numbers with an exponent are numbers, dates are text, a key
    stands there once.
    Raises: ConfigError with the file and the line.
    """
    import yaml

    try:
        if path.stat().st_size > LIMIT_BYTES:
            raise ConfigError(f"{path}: larger than {LIMIT_BYTES // 2**20} MiB, not a configuration")
        text = path.read_bytes().decode("utf-8")
    except FileNotFoundError:
        raise ConfigError(f"{path}: not there") from None
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{path}:{line}: not UTF-8 at byte {error.start}") from None
    except OSError as error:
        raise ConfigError(f"{path}: not readable ({error.strerror})") from None
    try:
        tree = _build(text, path)
        if not isinstance(tree, dict):
            kind = "nothing" if tree is None else type(tree).__name__
            raise ConfigError(f"{path}: holds a {kind}, key: value lines were expected")
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        # libyaml counts the end of the file as a line of its own
        where = f"{path}:{min(mark.line + 1, len(text.splitlines()))}" if mark else str(path)
        raise ConfigError(f"{where}: {getattr(error, 'problem', None) or 'not valid YAML'}") from None
    except (RecursionError, ValueError) as error:
        raise ConfigError(f"{path}: not valid YAML ({type(error).__name__})") from None
    try:
        refuse_interpolation(tree)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None
    return tree


def refuse_interpolation(tree: Any, dotted: str = "") -> None:
    """Refuse a tree that would take values from elsewhere, the environment's secrets among them.

    Raises: ConfigError naming the key.
    """
    if isinstance(tree, dict):
        for name, value in tree.items():
            refuse_interpolation(value, f"{dotted}.{name}" if dotted else str(name))
    elif isinstance(tree, list):
        for value in tree:
            refuse_interpolation(value, dotted)
    elif isinstance(tree, str) and "${" in tree:
        raise ConfigError(f"{dotted}: '${{' is not allowed; write the value itself")


def _build(text: str, path: Path) -> Any:
    """The values of a text, refusing what would make a small text a large tree."""
    import yaml

    found: list[Any] = []
    holders: list[Any] = [found]  # the open mappings and lists
    names: list[str | None] = [None]  # in each mapping the key whose value is next
    event: Any  # which fields it has hangs on its kind
    for event in yaml.parse(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
        kind = type(event)
        if kind is yaml.MappingEndEvent or kind is yaml.SequenceEndEvent:
            holders.pop()
            names.pop()
            continue
        if not hasattr(event, "anchor"):
            continue  # where the text or a document begins or ends
        if event.anchor or event.tag:  # an alias has an anchor, and so no look at its tag
            raise _refuse(path, event, "aliases and tags are not allowed in a configuration")
        value: Any
        if kind is not yaml.ScalarEvent:
            value = {} if kind is yaml.MappingStartEvent else []
        elif event.implicit[0] and len(event.value) <= MAX_NUMBER_CHARS:
            value = _read_plain(event.value)
        else:
            value = event.value
        holder, name = holders[-1], names[-1]
        if name is not None:
            holder[name] = value
            names[-1] = None
        elif isinstance(holder, list):
            holder.append(value)
        elif not isinstance(value, str):
            raise _refuse(path, event, f"{getattr(event, 'value', 'a list')} is not a word, as keys are")
        elif _INSTRUCTION.fullmatch(value):
            raise _refuse(path, event, f"{value}: an instruction, not a setting")
        elif value in holder:
            raise _refuse(path, event, f"found duplicate key {value}")
        else:
            names[-1] = value
        if kind is not yaml.ScalarEvent:
            holders.append(value)
            names.append(None)
            if len(holders) > MAX_DEPTH:
                raise _refuse(path, event, f"nested more than {MAX_DEPTH} deep")
    if len(found) > 1:
        raise ConfigError(f"{path}: holds {len(found)} documents, one was expected")
    return found[0] if found else None


def _refuse(path: Path, event: Any, problem: str) -> ConfigError:
    return ConfigError(f"{path}:{event.start_mark.line + 1}: {problem}")


@functools.lru_cache(maxsize=4096)
def _read_plain(text: str) -> Any:
    """A value written without quotes: a number, true or false, null, else the text itself.

    Runs repeat nearly all of one another's values, which are then one object.
    """
    import yaml

    if _EXPONENT.fullmatch(text):
        return float(text.replace("_", ""))
    rules: Any = yaml.SafeLoader("")
    tag = rules.resolve(yaml.ScalarNode, text, (True, False))
    if tag.endswith((":str", ":timestamp", ":merge", ":value")):
        return text
    return rules.construct_object(yaml.ScalarNode(tag, text))
