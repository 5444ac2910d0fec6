"""What the README shows works: commands compose, the own variant is one, the file map is true."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

import glu_bench
from glu_bench.config import expand_grid, load_config
from tests.conftest import REPO

README = (REPO / "README.md").read_text(encoding="utf-8")


def blocks(kind: str) -> list[str]:
    return re.findall(rf"^```{kind}\n(.*?)^```", README, re.DOTALL | re.MULTILINE)


COMMANDS = [
    words
    for block in blocks("console") + blocks("sh")
    for line in block.splitlines()
    for command in line.split("&&")
    if "glu-bench" in (words := shlex.split(command, comments=True))[0]
]


@pytest.fixture
def own_configs(tmp_path: Path) -> Path:
    (tmp_path / "variant").mkdir()
    (yaml,) = blocks("yaml")
    (tmp_path / "variant" / "tanhglu.yaml").write_text(yaml, encoding="utf-8")
    return tmp_path


def test_there_are_commands_to_look_at() -> None:
    assert len([words for words in COMMANDS if words[1] in ("train", "sweep")]) >= 10


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_every_command_of_the_readme_composes(words: list[str], own_configs: Path) -> None:
    if words[1] not in ("train", "sweep"):
        from glu_bench.cli.main import app

        known = {
            command.name or command.callback.__name__
            for command in app.registered_commands
            if command.callback
        }
        known |= {group.name for group in app.registered_groups}
        assert words[1] in known | {"--install-completion"}
        return
    config_dir = own_configs if "--config-dir" in words else None
    settings = [word for word in words[2:] if "=" in word]
    for combination in expand_grid(settings, config_dir):
        load_config(combination, config_dir)


def test_the_variant_of_the_readme_is_one(own_configs: Path) -> None:
    assert load_config(["variant=tanhglu"], own_configs).variant.gate == "tanh"


def test_the_names_the_readme_imports_are_public() -> None:
    (code,) = blocks("python")
    assert set(re.findall(r"glu_bench\.(\w+)\(", code)) <= set(glu_bench.__all__)


def test_the_file_map_names_what_is_there() -> None:
    (listed,) = re.findall(r"^    glu_bench/\n((?:      \S+ .*\n)+)", README, re.MULTILINE)
    for line in listed.splitlines():
        assert (REPO / "glu_bench" / line.split()[0]).exists(), line
