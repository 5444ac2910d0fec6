"""A configuration to read: its YAML with what each key means."""

from __future__ import annotations

import re

from glu_bench.config_file import render_config
from glu_bench.schema import Config, list_keys


def write_meanings(config: Config) -> str:
    """The YAML of `render_config` with each key's meaning as a comment; as YAML it says the same.

    The comment ends the key's line or, where the value goes on below it, stands above it: within
    a value it would be part of it.
    """
    lines: list[str] = []
    group = ""
    written = render_config(config).split("\n")[:-1]  # other breaks may lie within a value
    for line, after in zip(written, [*written[1:], ""], strict=True):
        found = re.match(r"( {2})?(\w+):( ?)", line)
        if found is None:  # the rest of a value
            lines.append(line)
            continue
        indent, name, has_value = found.groups()
        group = group if indent else ""
        entry = list_keys().get(f"{group}.{name}" if indent else name)
        if entry is None:  # a group
            group = name
            lines.append(line)
            continue
        meaning, choices = str(entry.metadata["help"]), entry.metadata["choices"]
        if not all(choice in meaning for choice in choices):
            meaning += f"; one of {', '.join(choices)}"
        goes_on = bool(indent) and (after.startswith(("   ", "  -")) or not after)
        if goes_on and has_value:
            lines += [f"{indent}# {meaning}", line]
        else:
            lines.append(f"{line}  # {meaning}")
    return "\n".join(lines) + "\n"
