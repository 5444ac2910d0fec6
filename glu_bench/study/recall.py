"""The words that make a run again: KEY=VALUE as `glu-bench train` takes them."""

from __future__ import annotations

import copy
import dataclasses
import re
from dataclasses import dataclass, field
from typing import Any

from glu_bench import schema
from glu_bench.config import list_group, load_config, read_variant
from glu_bench.errors import ConfigError
from glu_bench.files import dump_json
from glu_bench.grid import with_words
from glu_bench.schema import BUDGET_KEYS

# groups whose files a run may have begun from, and the key that holds the file's name
GROUPS = {
    "variant": "variant.name",
    "model": "model.preset",
    "match": "match.mode",
    "data": "data.corpus",
    "tokenizer": "tokenizer.kind",
    "optim": "optim.name",
}
COMPILE = "train.compile"  # auto, true or false: words that need no quotes there
# what the files of those groups leave open
NEEDED = ("data.files", "data.path", "tokenizer.vocab_size", "tokenizer.path", "match.d_ff")
SOURCES = {"files": "text", "hub": "hub", "stdlib": "stdlib"}  # data of a name that has no file here
WORDS_OF_YAML = ("null", "true", "false", "nan", "inf")  # read as something else than text


@dataclass
class Known:
    """What was composed before, so that a thousand runs cost as much as their arms."""

    words: dict[str, list[str] | None] = field(default_factory=dict)  # by all but the seed
    starts: dict[tuple[str, ...], schema.Config] = field(default_factory=dict)  # by chosen files


def recall_words(config: schema.Config, known: Known | None = None) -> list[str] | None:
    """The words that lead to this configuration, checked; what is chosen by default is left out.

    None if none do: the variant is not a built-in one, or this code's numbers differ.
    """
    wanted = schema.flatten_config(config)
    key = dump_json({name: value for name, value in wanted.items() if name != "seed"})
    known = known or Known()
    if key not in known.words:
        known.words[key] = _search(wanted, known)
    words = known.words[key]
    return None if words is None else [*words, f"seed={config.seed}"]


def _search(wanted: dict[str, Any], known: Known) -> list[str] | None:
    if wanted["numerics_version"] != schema.NUMERICS_VERSION:
        return None  # read only: no word sets it
    wanted = {name: value for name, value in wanted.items() if not _is_elsewhere(name, value)}
    chosen = {group: str(wanted[dotted]) for group, dotted in GROUPS.items()}
    if chosen["data"] not in list_group("data"):
        chosen["data"] = SOURCES.get(str(wanted["data.source"]), "text")
    files = [f"{group}={name}" for group, name in chosen.items() if group != "variant"]
    needed = {name: wanted[name] for name in NEEDED if wanted.get(name)}
    try:
        start = _compose([*files, *(f"{name}={_spell(value)}" for name, value in needed.items())], known)
        start = dataclasses.replace(copy.deepcopy(start), variant=read_variant(chosen["variant"]))
        before = schema.flatten_config(start)
        changed = {name: value for name, value in wanted.items() if before.get(name) != value}
        words = [f"{name}={_spell(value)}" for name, value in changed.items()]
        words = [f"{COMPILE}={changed[COMPILE]}" if w.startswith(f"{COMPILE}=") else w for w in words]
        made = schema.flatten_config(with_words(start, words))
    except ConfigError:
        return None
    if any(made.get(name) != value for name, value in wanted.items()):
        return None
    if any(changed.get(name) is not None for name in BUDGET_KEYS):  # one given replaces the others
        words = [
            word for word in words if word.partition("=")[0] not in BUDGET_KEYS or not word.endswith("=null")
        ]
    default = schema.flatten_config(_compose([], known))
    files = [word for word in files if default[GROUPS[word.partition("=")[0]]] != word.partition("=")[2]]
    given = {word.partition("=")[0] for word in words}
    words = [f"{name}={_spell(value)}" for name, value in needed.items() if name not in given] + words
    return [f"variant={chosen['variant']}", *files, *words]


def _compose(words: list[str], known: Known) -> schema.Config:
    key = tuple(words)
    if key not in known.starts:
        known.starts[key] = load_config(["variant=relu", *words])
    return known.starts[key]


def _is_elsewhere(name: str, value: Any) -> bool:
    """Keys that words need not set: the seed comes last, trackers change nothing, prose is the file's."""
    prose = ("variant.family", "variant.formula", "variant.source", "variant.used_by")
    older = name.startswith("parallel.") and value is None  # the run is older than the key
    return name == "seed" or name.startswith("tracker.") or name in prose or older


def _spell(value: Any) -> str:
    """A value in Hydra's grammar."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return "[" + ",".join(map(_spell, value)) + "]"
    if not isinstance(value, str):
        return repr(value)
    if re.fullmatch(r"[A-Za-z][\w./-]*", value) and value.lower() not in WORDS_OF_YAML:
        return value
    # a backslash counts only before a quote
    escaped = re.sub(r"(\\*)'", r"\1\1\\'", value)
    n_last = len(escaped) - len(escaped.rstrip("\\"))
    return f"'{escaped}{escaped[len(escaped) - n_last :]}'"
