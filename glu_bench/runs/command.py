"""The command that makes a run, as a person types it."""

from __future__ import annotations

import copy
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from glu_bench import schema
from glu_bench.config import load_config
from glu_bench.errors import ConfigError
from glu_bench.ffn.matching import check_receipt, match_width
from glu_bench.files import OUTPUTS
from glu_bench.words import spell_config

# groups of files, and the key in each that is its file's name
CHOICES = {
    "variant": "name",
    "model": "preset",
    "match": "mode",
    "data": "corpus",
    "tokenizer": "kind",
    "optim": "name",
    "parallel": "mode",
    "tracker": "name",
}
NEEDED = ("data.files", "data.path", "tokenizer.path", "match.d_ff")  # some files are refused without
ALWAYS = ("variant", "model", "data", "seed")  # said even where they are the default


def spell_train(config: schema.Config, facts: dict[str, Any], output_dir: Path, *options: str) -> str:
    """The shell command that trains this configuration, or goes on with it, from any state of configs/.

    `facts` are those of environment.json, or nothing: threads, processes, determinism and plugins
    are asked for as they were.
    """
    import torch

    config = copy.deepcopy(config)
    n_threads = facts.get("n_threads")
    if config.train.threads is None and isinstance(n_threads, int) and n_threads != torch.get_num_threads():
        config.train.threads = n_threads
    if config.parallel.mode != "single" and config.parallel.devices is None:
        n_ranks = facts.get("n_ranks")
        config.parallel.devices = n_ranks if isinstance(n_ranks, int) else None
    words = find_words(config)
    if facts.get("deterministic") is True and config.train.device != "cpu":
        words.append("--deterministic")
    plugins = facts.get("plugins")
    for plugin in plugins if isinstance(plugins, list) else ():
        words += ["--plugin", str(plugin.get("name") if isinstance(plugin, dict) else plugin)]
    try:
        receipt = match_width(config.variant, config.model.d_model, config.match, config.model.ffn_bias)
        check_receipt(receipt, False)
    except ConfigError:
        words.append("--allow-unmatched")
    return join_words("train", [*words, *options], output_dir)


def join_words(verb: str, words: Sequence[str], output_dir: Path) -> str:
    """A glu-bench command for a shell; the output folder is named unless it is the default."""
    place = [] if output_dir == OUTPUTS else ["--output-dir", str(output_dir)]
    return shlex.join(["glu-bench", *verb.split(), *words, *place])


def find_words(config: schema.Config) -> list[str]:
    """The fewest words that make this configuration; every key where the files do not come to it."""
    spelled = {word.partition("=")[0]: word for word in spell_config(config)}
    own = schema.flatten_config(config)
    try:
        defaults = load_config()
        chosen = {group: f"{group}={_read_choice(config, group)}" for group in CHOICES}
        needed = {key: spelled[key] for key in NEEDED if own.get(key) not in (None, [])}
        base = schema.flatten_config(load_config([*chosen.values(), *needed.values()]))
        said = [
            word
            for group, word in chosen.items()
            if group in ALWAYS or _read_choice(config, group) != _read_choice(defaults, group)
        ]
        for key, word in spelled.items():
            if key in ALWAYS or key in needed or own.get(key) != base.get(key):
                said.append(word)
        if load_config(said) == config:
            return said
    except ConfigError:  # a variant or corpus of a person's own, or of an older version
        pass
    return list(spelled.values())


def _read_choice(config: schema.Config, group: str) -> str:
    return str(getattr(getattr(config, group), CHOICES[group]))
