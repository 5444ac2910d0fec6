"""A YAML file as plain values; it may come from anybody.

libyaml's parser reads a configuration forty times as fast as PyYAML's own; where PyYAML was
built without it the latter does the same work.
"""

from __future__ import annotations

import functools
import re
from pathlib import Path
from typing import Any, cast

from glu_bench.errors import ConfigError

LIMIT_BYTES = 2**20  # a configuration is a few kB; more is a mistake or an attack
MAX_DEPTH = 20  # ours are four deep; libyaml's composer calls itself and would run out of stack

# a number with an exponent is one without a dot or a sign too: 1e-3, as Hydra reads it
_EXPONENT = re.compile(r"[-+]?[0-9]+(?:_[0-9]+)*(?:\.[0-9_]*)?[eE][-+]?[0-9]+$")


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
        raise ConfigError(f"{path}: not UTF-8 at byte {error.start}") from None
    except OSError as error:
        raise ConfigError(f"{path}: not readable ({error.strerror})") from None
    try:
        _check_events(text, path)
        tree = _make_loader()(text).get_single_data()
        if not isinstance(tree, dict):
            kind = "nothing" if tree is None else type(tree).__name__
            raise ConfigError(f"{path}: holds a {kind}, key: value lines were expected")
        refuse_interpolation(tree)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}:{mark.line + 1}" if mark else str(path)
        raise ConfigError(f"{where}: {getattr(error, 'problem', None) or 'not valid YAML'}") from None
    except (RecursionError, ValueError) as error:
        raise ConfigError(f"{path}: not valid YAML ({type(error).__name__})") from None
    except ConfigError as error:
        raise ConfigError(f"{path}: {str(error).removeprefix(f'{path}: ')}") from None
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


def _check_events(text: str, path: Path) -> None:
    """Look at a text before anything is built of it: a bomb is small until then."""
    import yaml

    depth = 0
    for event in yaml.parse(text, Loader=_make_loader()):
        if getattr(event, "anchor", None) or getattr(event, "tag", None):  # an alias has an anchor, too
            line = event.start_mark.line + 1
            raise ConfigError(f"{path}:{line}: aliases and tags are not allowed in a configuration")
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > MAX_DEPTH:
            raise ConfigError(f"{path}:{event.start_mark.line + 1}: nested more than {MAX_DEPTH} deep")


@functools.cache
def _make_loader() -> Any:
    import yaml

    parent: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

    class Loader(parent):  # type: ignore[misc]
        def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
            seen = set()
            for key, _ in node.value:
                if not key.tag.endswith((":str", ":merge", ":value")):
                    problem = f"the key {key.value} is not a word" if isinstance(key.value, str) else "no key"
                elif key.value in seen:
                    problem = f"found duplicate key {key.value}"
                else:
                    seen.add(key.value)
                    continue
                raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
            return cast(dict[Any, Any], super().construct_mapping(node, deep=deep))

    Loader.add_implicit_resolver("tag:yaml.org,2002:float", _EXPONENT, list("-+0123456789."))
    Loader.yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith(":timestamp")]
        for first, resolvers in Loader.yaml_implicit_resolvers.items()
    }
    return Loader
