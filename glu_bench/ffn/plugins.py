"""Functions of a person's own: from a Python file, or from an installed package.

A file is any module that says which functions it brings:

    ACTIVATIONS = {"snake": snake}

A package names them as entry points of the group `glu_bench.activations`. Either is code that
runs, so nothing is loaded because a run folder or a configuration names it: only when a person
at the command line does.
"""

from __future__ import annotations

import functools
import importlib.metadata
import importlib.util
import inspect
import sys
import traceback
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from glu_bench.errors import ConfigError, DataError
from glu_bench.ffn.activations import ACTIVATIONS, REDUCING, Activation
from glu_bench.files import sha256_file
from glu_bench.schema import Variant

GROUP = "glu_bench.activations"


@dataclass(frozen=True, kw_only=True)
class Plugin:
    """A file whose functions are registered, as a run's record names it."""

    name: str
    sha256: str  # of the file


_origins: dict[str, Plugin] = {}  # function name to where it came from


def load_plugins(paths: Collection[Path], packages: bool = True) -> None:
    """Register the functions of these files and of installed packages.

    If `packages` is False, of those packages alone that are named where a file could be.
    Raises: ConfigError for a file that is missing, raises while it is loaded (with its own
    traceback), brings nothing, or takes a name that is in use.
    """
    files = [path for path in paths if path.is_file()]
    named = {str(path) for path in paths if path not in files}
    installed = set()
    for entry in importlib.metadata.entry_points(group=GROUP):
        label = entry.dist.name if entry.dist else entry.value
        if packages or label in named:
            installed.add(label)
            function = _run(label, entry.load)
            _register(entry.name, function, Plugin(name=label, sha256=_hash(_find_source(function))))
    for missing in sorted(named - installed):
        raise ConfigError(f"{missing}: no such plugin file")
    for path in files:
        for name, function in _load_file(path).items():
            _register(name, function, Plugin(name=path.name, sha256=_hash(path)))


def find_plugins(variant: Variant) -> list[dict[str, Any]]:
    """The plugins a variant's formula takes functions from: name, sha256 and functions of each.

    Raises: nothing for a function that is not known; making the formula says so.
    """
    functions = {name for name in (variant.activation, variant.gate, variant.value) if name is not None}
    used: dict[Plugin, list[str]] = {}
    for function in sorted(functions & set(_origins)):
        used.setdefault(_origins[function], []).append(function)
    return [{"name": p.name, "sha256": p.sha256, "functions": names} for p, names in used.items()]


def check_plugins(recorded: Collection[dict[str, Any]], variant: Variant, where: str) -> None:
    """Refuse a run whose functions are not the registered ones.

    Raises: ConfigError naming the plugin that the run was made with; DataError if its record does
    not say whose functions the variant took.
    """
    for plugin in recorded:
        for function in plugin.get("functions", []):
            own = _origins.get(function)
            made_with = f"{where}: {function} came from the plugin {plugin['name']}"
            if own is None:
                raise ConfigError(
                    f"{made_with}, and a run folder's plugin is never loaded unasked; read the file, then "
                    f"--allow-plugin {plugin['name']}"
                )
            if own.sha256 != plugin["sha256"]:
                raise ConfigError(
                    f"{made_with} with sha256 {plugin['sha256'][:12]}; the file given has {own.sha256[:12]}"
                )
    if [plugin["sha256"] for plugin in find_plugins(variant)] != [plugin["sha256"] for plugin in recorded]:
        raise DataError(
            f"{where}: environment.json names other plugins than the variant takes functions from"
        )


def _load_file(path: Path) -> dict[str, Any]:
    name = f"glu_bench_plugin_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ConfigError(f"{path}: not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # the compiler looks a function's module up
    loader = spec.loader
    _run(path, lambda: loader.exec_module(module))
    found = getattr(module, "ACTIVATIONS", None)
    if not isinstance(found, dict) or not found:
        raise ConfigError(f'{path}: brings no functions; it needs ACTIVATIONS = {{"snake": snake}}')
    return found


def _register(name: str, function: Any, plugin: Plugin) -> None:
    if not isinstance(name, str) or not name.isidentifier():
        raise ConfigError(f"{plugin.name}: {name!r} cannot name a function: letters, digits and '_'")
    if name in _origins and _origins[name] == plugin:
        return
    if name in ACTIVATIONS:
        owner = _origins[name].name if name in _origins else "glu-bench"
        raise ConfigError(f"{plugin.name}: the name {name} is taken by {owner}; choose another")
    if not callable(function):
        raise ConfigError(f"{plugin.name}: {name} is a {type(function).__name__}, not a function")
    ACTIVATIONS[name] = _guard(name, function, plugin)
    _origins[name] = plugin
    if _reads_width(ACTIVATIONS[name]):
        REDUCING.add(name)


def _guard(name: str, function: Activation, plugin: Plugin) -> Activation:
    """The function itself, once it was seen to keep shape and dtype and to have a gradient."""
    constants = _constants_to_try(function)
    for dtype in (torch.float64, torch.float32):
        probe = torch.linspace(-3, 3, 12, dtype=dtype).view(3, 4).requires_grad_()
        result = _run(plugin.name, functools.partial(function, probe, **constants))
        if _describe(result) != _describe(probe):
            raise ConfigError(
                f"{plugin.name}: {name} must keep shape and dtype; "
                f"{_describe(probe)} became {_describe(result)}"
            )
        if not result.requires_grad:
            raise ConfigError(
                f"{plugin.name}: {name} has no gradient; use torch functions on the tensor itself"
            )
    return function


def _describe(value: object) -> str:
    return f"{tuple(value.shape)} {value.dtype}" if isinstance(value, torch.Tensor) else type(value).__name__


def _constants_to_try(function: Activation) -> dict[str, float]:
    try:
        parameters = list(inspect.signature(function).parameters.values())[1:]
    except ValueError:  # torch.sin and the like, which take x alone
        return {}
    return {p.name: 1.0 for p in parameters if p.default is inspect.Parameter.empty}


def _reads_width(function: Activation) -> bool:
    """Whether changing one number of a row changes the result at another."""
    constants = _constants_to_try(function)
    x = torch.linspace(-1, 1, 8, dtype=torch.float64)
    moved = x.clone()
    moved[0] = 2.0
    others, others_moved = (function(each, **constants)[1:] for each in (x, moved))
    return not torch.allclose(others, others_moved, rtol=0, atol=0, equal_nan=True)


def _run(where: object, step: Callable[[], Any]) -> Any:
    try:
        return step()
    except (Exception, SystemExit) as error:
        trace = traceback.TracebackException.from_exception(error)
        # from the plugin's first line on: how we came there is nobody's concern
        ours = Path(__file__)
        while trace.stack and (
            Path(trace.stack[0].filename) == ours or "importlib" in trace.stack[0].filename
        ):
            del trace.stack[0]
        lines = "".join(trace.format()).rstrip()
        raise ConfigError(f"{where}: the plugin failed:\n{lines}") from None


def _find_source(function: Any) -> Path:
    try:
        return Path(inspect.getsourcefile(function if inspect.isfunction(function) else type(function)) or "")
    except TypeError:  # of something compiled there is none
        return Path()


def _hash(path: Path) -> str:
    return sha256_file(path) if path.is_file() else ""
