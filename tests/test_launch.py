"""Words for a launcher are checked by Hydra, and Hydra leaves nothing where it should not."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from glu_bench import launch as room
from glu_bench.config import load_config
from glu_bench.errors import ConfigError
from glu_bench.launch import check_launcher, make_launcher, split_words


def test_words_for_the_launcher_are_told_from_settings() -> None:
    launcher = [
        "hydra/launcher=ray",
        "hydra.launcher.partition=gpu",
        "+hydra.launcher.ray.init.num_cpus=2",
        "++hydra.launcher.name=x",
        "~hydra.launcher.setup",
    ]
    settings = ["variant=relu,gelu", "seed=range(0,3)", "data.files=hydra.launcher.txt", "hydra.verbose=true"]
    mixed = [launcher[0], settings[0], launcher[1], settings[1], *launcher[2:], *settings[2:]]
    assert split_words(mixed) == (settings, launcher)
    assert split_words(settings) == (settings, [])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["hydra/launcher=bsic"], r"no such launcher; known: basic, .*; did you mean 'basic'\?"),
        (["hydra/launcher=basic,ray"], "one launcher is needed, such as hydra/launcher=submitit_slurm"),
        (["hydra/launcher=basic", "hydra/launcher=basic"], "one launcher is needed"),
        (["hydra.launcher.timeout_min=3"], "hydra.launcher.timeout_min=3: one launcher is needed"),
        (["hydra/launcher=basic", "hydra.launcher.partition=x"], "no such option of hydra/launcher=basic"),
    ],
)
def test_a_mistake_is_one_line(words: list[str], said: str) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        check_launcher(words)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("hydra.launcher.timeout_mn=3", "did you mean 'hydra.launcher.timeout_min'"),
        ("+hydra.launcher.timeout_mn=3", "did you mean 'hydra.launcher.timeout_min'"),
        ("hydra.launcher.timeout_min=soon", "hydra.launcher.timeout_min=soon: Value 'soon' of type 'str'"),
        ("hydra.launcher.additional_parameters.wckey=a", r"write \+hydra.launcher.additional_parameters"),
        ("hydra.launcher.name=[", "hydra.launcher.name=.: no viable alternative"),
    ],
)
def test_a_mistaken_option_of_a_plugin_is_one_line(option: str, said: str) -> None:
    pytest.importorskip("submitit", reason="the extra slurm")
    with pytest.raises(ConfigError, match=said) as caught:
        check_launcher(["hydra/launcher=submitit_slurm", option])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("name", "extra"), room.EXTRAS.items())
def test_a_plugin_that_is_not_installed_names_its_extra(name: str, extra: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(f"pip install '.[{extra}]'")):
        room._find_engine([f"hydra/launcher={name}"], ["basic"])


def test_jobs_get_their_folder_and_number_and_hydra_writes_nowhere_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    seen: list[tuple[str, str, int]] = []

    def task(job: Any) -> None:
        seen.append((job.folder, job.name, job.number))

    folder = tmp_path / "a folder, with = and 'signs'"
    make_launcher(["hydra/launcher=basic"], folder, "three runs", task).launch(3)
    assert seen == [(str(folder), "three runs", number) for number in range(3)]
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["0", "1", "2", folder.name]
    assert capfd.readouterr() == ("", "")
    assert load_config(["seed=3"]).seed == 3  # composing runs goes on as before


def test_a_folder_that_hydra_would_resolve_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="not allowed"):
        make_launcher(["hydra/launcher=basic"], tmp_path / "${oc.env:HOME}", "x", print)


def test_a_job_out_of_time_is_queued_again_unless_told_otherwise(tmp_path: Path) -> None:
    pytest.importorskip("submitit", reason="the extra slurm")
    words = ["hydra/launcher=submitit_slurm", "hydra.launcher.partition=gpu"]
    params = make_launcher(words, tmp_path, "x", print).plugin.params
    assert (params["max_num_timeout"], params["partition"], params["name"]) == (20, "gpu", "x")
    assert Path(params["submitit_folder"]) == tmp_path / ".submitit" / "%j"
    words.append("hydra.launcher.max_num_timeout=0")
    assert make_launcher(words, tmp_path, "x", print).plugin.params["max_num_timeout"] == 0


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], {"address": "local", "include_dashboard": False}),
        (["hydra.launcher.ray.init.address=local"], {"address": "local", "include_dashboard": False}),
        (
            ["hydra.launcher.ray.init.address=10.0.0.1:6379"],
            {"address": "10.0.0.1:6379", "object_store_memory": None},
        ),
        (["+hydra.launcher.ray.init.log_to_driver=true"], {"log_to_driver": True}),
    ],
)
def test_ray_is_told_what_it_needs_here_and_elsewhere(
    words: list[str], expected: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("ray", reason="the extra ray")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    told = make_launcher(["hydra/launcher=ray", *words], tmp_path, "x", print).plugin.ray_cfg
    assert {key: told.init[key] for key in expected} == expected
    assert told.remote.max_retries == 0
