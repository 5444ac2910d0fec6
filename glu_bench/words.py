"""A configuration as the words of a command: how it travels without the files it was made from."""

from __future__ import annotations

import re
from typing import Any

from glu_bench.schema import Config, flatten_config

READ_ONLY = "numerics_version"
PLAIN = re.compile(r"(?!(?:null|true|false|nan|inf)$)[a-z_][a-z0-9_]*", re.IGNORECASE | re.ASCII)


def spell_config(config: Config) -> list[str]:
    """Every key with its value as an override word; `load_config` of them reads no file."""
    return [f"{key}={_spell(value)}" for key, value in flatten_config(config).items() if key != READ_ONLY]


def split_keys(text: str) -> list[str]:
    """The keys in text such as "variant, match"."""
    return [key.strip() for key in text.split(",")]


def quote(text: str) -> str:
    """A string in Hydra's grammar, where a backslash counts only before a quote."""
    escaped = re.sub(r"(\\*)'", r"\1\1\\'", text)
    n_last = len(escaped) - len(escaped.rstrip("\\"))
    return f"'{escaped}{escaped[len(escaped) - n_last :]}'"


def _spell(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return f"[{','.join(quote(str(entry)) for entry in value)}]"
    if isinstance(value, str):
        return value if PLAIN.fullmatch(value) else quote(value)
    return repr(value)
