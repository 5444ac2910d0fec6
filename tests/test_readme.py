"""What the README shows works: commands compose, the own variant is one, the file map is true."""

from __future__ import annotations

import importlib.metadata
import json
import re
import shlex
from pathlib import Path

import pytest
import torch

import glu_bench
from glu_bench.ffn import activations, plugins
from glu_bench.ffn.formula import load_variant
from glu_bench.grid import load_grid
from glu_bench.launch import check_launcher, split_words
from tests.conftest import REPO, Command

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


def is_installed(launcher: str) -> bool:
    package = {"submitit_slurm": "hydra-submitit-launcher", "ray": "hydra-ray-launcher"}[launcher]
    return any(importlib.metadata.distributions(name=package))


@pytest.fixture
def own_configs(tmp_path: Path) -> Path:
    (tmp_path / "variant").mkdir()
    (yaml,) = blocks("yaml")
    (tmp_path / "variant" / "geglu_held.yaml").write_text(yaml, encoding="utf-8")
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
    settings, launcher_words = split_words([word for word in words[2:] if "=" in word])
    if launcher_words and is_installed(launcher_words[0].partition("=")[2]):
        check_launcher(launcher_words)
    assert list(load_grid(settings, config_dir))


def test_the_variant_of_the_readme_is_one(own_configs: Path) -> None:
    formula = load_variant("geglu_held", own_configs)
    g, u = torch.randn(2, 5, 7)
    torch.testing.assert_close(formula.hidden(g, u), torch.nn.functional.gelu(g) * (u.clamp(-4, 4) + 1))
    assert [each.argument for each in formula.learned] == ["offset"]


def test_the_plugin_of_the_readme_is_ten_lines_and_trains(
    call_command: Command, tiny_words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = blocks("python")[0]
    assert len(code.splitlines()) <= 10
    (tmp_path / "snake.py").write_text(code, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    (words,) = [words for words in COMMANDS if words[:3] == ["glu-bench", "train", "--plugin"]]
    with monkeypatch.context() as patch:
        patch.setattr(plugins, "_origins", {})
        patch.setattr(activations, "ACTIVATIONS", dict(activations.ACTIVATIONS))
        patch.setattr(plugins, "ACTIVATIONS", activations.ACTIVATIONS)
        ended = call_command(*words[1:], *tiny_words, "--json")
    assert ended.code == 0
    assert json.loads(ended.out)["variant"] == "snakeglu"


def test_the_table_of_variants_is_that_of_the_files(call_command: Command) -> None:
    (table,) = re.findall(r"variants --markdown` -->\n\n(.*?)\n<!-- end of variants -->", README, re.DOTALL)
    assert table == call_command("variants", "--markdown").out


def test_the_pictures_of_the_readme_are_there() -> None:
    pictures = re.findall(r"!\[.*?\]\((.*?)\)", README)
    assert pictures
    assert all((REPO / picture).is_file() for picture in pictures)


def test_the_names_the_readme_imports_are_public() -> None:
    code = blocks("python")[1]
    assert set(re.findall(r"glu_bench\.(\w+)\(", code)) <= set(glu_bench.__all__)


def test_the_file_map_names_what_is_there() -> None:
    (listed,) = re.findall(r"^    glu_bench/\n((?:      \S+ .*\n)+)", README, re.MULTILINE)
    for line in listed.splitlines():
        assert (REPO / "glu_bench" / line.split()[0]).exists(), line
