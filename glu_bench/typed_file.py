"""A YAML file that is no run's configuration, as an instance of a dataclass."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TypeVar, cast

from glu_bench.errors import ConfigError
from glu_bench.yaml_file import read_yaml

Typed = TypeVar("Typed")


def read_typed(path: Path, kind: type[Typed]) -> Typed:
    """The file's values in this dataclass, converted to its types.

    Raises: ConfigError with the file and the key that is unknown, missing or of another type.
    """
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    merged, at = OmegaConf.structured(kind), ""
    try:
        for at, value in read_yaml(path).items():  # one by one: some errors do not say where
            merged = OmegaConf.merge(merged, {at: value})
        return cast(Typed, OmegaConf.to_object(merged))
    except OmegaConfBaseException as error:
        raise ConfigError(f"{path}: {_explain(error, at)}") from None


def _explain(error: BaseException, at: str) -> str:
    dotted = getattr(error, "full_key", None) or at
    message = str(error).splitlines()[0]
    owner = getattr(error, "object_type", None)
    names = [entry.name for entry in dataclasses.fields(owner)] if dataclasses.is_dataclass(owner) else []
    if names and dotted.rpartition(".")[2] not in names:
        message = f"no such key; known: {', '.join(names)}"
    elif "missing mandatory" in message or "not Optional" in message:
        message = "missing"
    elif message.startswith("Invalid value assigned"):
        message = "a list was expected"
    return f"{dotted}: {message}"
