"""What TAB offers: settings, run ids, sweep ids. Imports nothing that takes time.

Typer calls these functions with what it takes for the word being typed. In bash that is only
its end, for `=` and `:` split words there; the whole word is put together again, and only what
bash will put in the place of the end is returned.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import typer

from glu_bench.config import find_config_root, list_group, list_groups
from glu_bench.errors import GluBenchError
from glu_bench.files import OUTPUTS
from glu_bench.launch import EXTRAS
from glu_bench.schema import list_keys
from glu_bench.words import READ_ONLY

Offer = tuple[str, str]  # a whole word and what it means
LAUNCHER = "hydra/launcher"
FEW_VALUES = 12


def complete_setting(ctx: typer.Context, incomplete: str) -> list[Offer]:
    """Words that a setting of `train` or `sweep` may go on with."""
    before, word = _read_line(incomplete)
    given = _find_option("--config-dir", before) or ctx.params.get("config_dir")
    config_dir = Path(str(given)) if given else None
    try:
        offers = list_offers(word, config_dir, several=ctx.info_name == "sweep")
    except (GluBenchError, OSError):
        return []
    return _cut(offers, word, incomplete)


def complete_run(ctx: typer.Context, incomplete: str) -> list[str]:
    """Ids of runs under the output folder."""
    return _list_folders(ctx, incomplete, "runs", "config.yaml")


def complete_sweep(ctx: typer.Context, incomplete: str) -> list[str]:
    """Ids of sweeps under the output folder."""
    return _list_folders(ctx, incomplete, "sweeps", "plan.json")


def complete_run_or_sweep(ctx: typer.Context, incomplete: str) -> list[str]:
    """Ids of either."""
    return [*complete_sweep(ctx, incomplete), *complete_run(ctx, incomplete)]


def complete_variant(ctx: typer.Context, incomplete: str) -> list[str]:
    """Names of variants."""
    return _list_names(ctx, incomplete, "variant")


def complete_card(ctx: typer.Context, incomplete: str) -> list[str]:
    """Names of reproduction cards."""
    return _list_names(ctx, incomplete, "reproduce")


def _list_names(ctx: typer.Context, incomplete: str, group: str) -> list[str]:
    given = ctx.params.get("config_dir")
    try:
        names = list_group(group, Path(str(given)) if given else None)
    except GluBenchError:
        return []
    return [name for name in names if name.startswith(incomplete)]


def list_offers(word: str, config_dir: Path | None = None, several: bool = False) -> list[Offer]:
    """Whole words that begin with `word`, in the order of the configuration.

    `several`: a sweep is being typed, where a key may have a list, as in variant=relu,ge, and
    jobs a launcher.
    Raises: ConfigError if `config_dir` is not a folder.
    """
    name, equals, value = word.partition("=")
    if several and name == LAUNCHER and equals:
        launchers = ((f"{LAUNCHER}={known}", f"the extra {extra}") for known, extra in EXTRAS.items())
        return [offer for offer in launchers if offer[0].startswith(word)]
    if equals:
        done, comma, typed = value.rpartition(",") if several else ("", "", value)
        chosen = done.split(",")
        return [
            (f"{name}={done}{comma}{offered}", text)
            for offered, text in _list_values(name, config_dir)
            if offered.startswith(typed) and offered not in chosen
        ]
    groups = list_groups(config_dir)
    keys = {key: entry for key, entry in list_keys().items() if key != READ_ONLY}
    offers: list[Offer] = []
    if "." in word:
        offers = [(f"{key}=", str(entry.metadata["help"])) for key, entry in keys.items()]
    else:
        for group in groups:
            offers.append((f"{group}=", ", ".join(list_group(group, config_dir)[:FEW_VALUES])))
            if any(key.startswith(f"{group}.") for key in keys):
                offers.append((f"{group}.", f"one setting of {group}"))
        offers += [(f"{key}=", str(entry.metadata["help"])) for key, entry in keys.items() if "." not in key]
        offers += [(f"{LAUNCHER}=", "where jobs go: SLURM, Ray")] if several else []
    offers = [offer for offer in offers if offer[0].startswith(word)]
    if len(offers) == 1 and offers[0][0].endswith("="):
        # beside its values the bare key is no unique match, after which shells add a space
        offers += list_offers(offers[0][0], config_dir, several)
    return offers


def _list_values(name: str, config_dir: Path | None) -> Iterator[Offer]:
    """Values of a group or key: its files, its choices, or what the presets have."""
    entry = list_keys().get(name)
    if name in list_groups(config_dir):
        for option in list_group(name, config_dir):
            yield option, f"{name} group"
    elif entry is None or name == READ_ONLY:
        return
    elif entry.metadata["choices"]:
        for choice in entry.metadata["choices"]:
            yield choice, str(entry.metadata["help"])
    elif entry.type in (bool, "bool"):
        yield from (("true", ""), ("false", ""))
    elif name == "train.device":
        yield from ((device, "") for device in ("auto", "cpu", "cuda", "mps"))
    else:
        yield from _list_preset_values(name, config_dir)


def _list_preset_values(name: str, config_dir: Path | None) -> Iterator[Offer]:
    """What the files of the key's group have for it, each value once, with the files' names."""
    group, _, key = name.rpartition(".")
    roots = [find_config_root()] + ([config_dir] if config_dir else [])
    files = [file for root in roots for file in sorted((root / group).glob("*.yaml"))] if group else []
    holders: dict[str, list[str]] = {}
    for file in files or [find_config_root() / "config.yaml"]:
        text = file.read_text(encoding="utf-8", errors="replace")
        found = re.search(rf"^\s*{re.escape(key)}:\s*([\w.+-]+)\s*$", text, re.MULTILINE)
        if found:
            holders.setdefault(found[1], []).append(file.stem)
    for value, names in sorted(holders.items(), key=lambda item: (len(item[0]), item[0])):
        yield value, ", ".join(names)


def _list_folders(ctx: typer.Context, incomplete: str, kind: str, needed: str) -> list[str]:
    given = ctx.params.get("output_dir") or os.environ.get("GLU_BENCH_OUTPUTS") or OUTPUTS
    try:
        found = sorted((Path(str(given)) / kind).iterdir())
    except OSError:
        return []
    return [path.name for path in found if path.name.startswith(incomplete) and (path / needed).is_file()]


def _read_line(incomplete: str) -> tuple[list[str], str]:
    """The whole words before the one being typed, as far as bash has to be asked, and that word."""
    pieces, at = os.environ.get("COMP_WORDS", "").split("\n"), os.environ.get("COMP_CWORD", "")
    if not (_is_bash() and at.isdigit() and int(at) < len(pieces) + 1):
        return [], incomplete
    words: list[str] = []
    joins = False
    for piece in [*pieces, ""][: int(at) + 1]:
        is_break = piece in ("=", ":")
        if words and (joins or is_break) and len(words) > 1:
            words[-1] += piece
        else:
            words.append(piece)
        joins = is_break
    return words[:-1], words[-1]


def _cut(offers: list[Offer], word: str, incomplete: str) -> list[Offer]:
    """The offers without what the shell regards as an earlier word."""
    end = "" if incomplete in ("=", ":") else incomplete
    n_before = len(word) - len(end)
    return [(offer[n_before:], text) for offer, text in offers]


def _find_option(name: str, words: list[str]) -> str | None:
    for at, word in enumerate(words):
        if word.startswith(f"{name}="):
            return word.partition("=")[2]
        if word == name and at + 1 < len(words):
            return words[at + 1]
    return None


def _is_bash() -> bool:
    return any(value == "complete_bash" for name, value in os.environ.items() if name.endswith("_COMPLETE"))
