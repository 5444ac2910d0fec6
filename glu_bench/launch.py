"""Jobs on other machines: a bridge from override words to Hydra's launcher plugins.

Hydra composes and checks what a launcher is told, and the plugin submits. What a job does is
one function that the caller passes; this file knows neither runs nor sweeps. Everything of
Hydra that is not public is imported here.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from glu_bench.errors import ConfigError, suggest

EXTRAS = {"submitit_slurm": "slurm", "submitit_local": "slurm", "ray": "ray"}
LAUNCHER_WORD = re.compile(r"(\+\+?|~)?hydra(/launcher[=@]|/launcher$|\.launcher[.=])")
DEFAULTS = {
    # a run resumes, so a job that reaches its wall time is queued again
    "submitit_slurm": {"hydra.launcher.max_num_timeout": "20"},
    # what a run prints is in its log; a killed one is reported, the same command goes on with it
    "ray": {
        "hydra.launcher.ray.init.log_to_driver": "false",
        "hydra.launcher.ray.init.logging_level": "error",
        "hydra.launcher.ray.remote.max_retries": "0",
    },
}
RAY_HERE = {"hydra.launcher.ray.init.address": "local", "hydra.launcher.ray.init.include_dashboard": "false"}
# the plugin asks for a store of 75 MiB, which Ray refuses to hear where the cluster runs already
RAY_THERE = {"hydra.launcher.ray.init.object_store_memory": "null"}


@dataclass
class JobConfig:
    """What Hydra hands to a job: the launch's folder and name, and which of its jobs this one is."""

    folder: str = "???"
    name: str = "???"
    number: int = 0


Task = Callable[[Any], None]


@dataclass(frozen=True)
class Launcher:
    """A launcher plugin, told what to do and ready to submit."""

    engine: str
    plugin: Any

    def launch(self, n_jobs: int) -> None:
        """Submit jobs 0 to n_jobs - 1 and wait for them, as far as the plugin can.

        Raises: whatever the plugin does, while other jobs may go on.
        """
        self.plugin.launch([[f"number={number}"] for number in range(n_jobs)], initial_job_idx=0)


def split_words(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Settings of runs, and words for the launcher, which are no part of a run."""
    ours = [word for word in words if not LAUNCHER_WORD.match(word)]
    return ours, [word for word in words if LAUNCHER_WORD.match(word)]


def check_launcher(words: Sequence[str]) -> str:
    """The name of the launcher that these words choose, all of them checked.

    Raises: ConfigError as `make_launcher`.
    """
    return _compose(words, JobConfig(folder=".", name="check"))[0]


def make_launcher(words: Sequence[str], folder: Path, name: str, task: Task) -> Launcher:
    """The launcher that these words describe; all it writes goes to `folder`.

    `task` is a function of a module, called by each job with a `JobConfig`; `name` is the jobs'.
    Raises: ConfigError for a launcher that is not there, an unknown option or a wrong type.
    """
    from hydra._internal.callbacks import Callbacks
    from hydra.core.plugins import Plugins
    from hydra.types import HydraContext

    if "${" in str(folder):
        raise ConfigError(f"{folder}: '${{' is not allowed in the name of a folder that jobs write to")
    if any(word.partition("=")[0] == "hydra/launcher" and word.endswith("=ray") for word in words):
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is sent unless a person says so
    engine, config, loader = _compose(words, JobConfig(folder=str(folder), name=name))
    context = HydraContext(config_loader=loader, callbacks=Callbacks())
    plugin = Plugins.instance().instantiate_launcher(hydra_context=context, task_function=task, config=config)
    return Launcher(engine, plugin)


def _compose(words: Sequence[str], job: JobConfig) -> tuple[str, Any, Any]:
    """The launcher's name, Hydra's configuration for a launch, and the loader of its jobs'."""
    from hydra import version
    from hydra._internal.hydra import Hydra
    from hydra._internal.utils import create_config_search_path
    from hydra.core.config_store import ConfigStore
    from hydra.core.global_hydra import GlobalHydra
    from hydra.errors import HydraException
    from hydra.types import RunMode
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    version.setbase("1.3")
    ConfigStore.instance().store(name="launched_job", node=job)
    try:
        hydra = Hydra.create_main_hydra2("glu-bench", create_config_search_path(None))
        loader = hydra.config_loader
    finally:
        GlobalHydra.instance().clear()
    engine = _find_engine(words, loader.get_group_options("hydra/launcher"))
    given = {word.lstrip("+").partition("=")[0] for word in words}
    defaults = dict(DEFAULTS.get(engine, {}))
    if engine == "ray":
        there = "hydra.launcher.ray.init.address" in given or "RAY_ADDRESS" in os.environ
        there = there and "hydra.launcher.ray.init.address=local" not in words
        defaults |= RAY_THERE if there else RAY_HERE
    settings = [
        "hydra.sweep.dir=${folder}",
        "hydra.job.name=${name}",
        "hydra.output_subdir=null",
        "hydra/job_logging=none",  # the default writes to stdout
        "hydra/hydra_logging=none",
        *(f"++{key}={value}" for key, value in defaults.items() if key not in given),
    ]
    _check_options(words, loader, settings)
    try:
        config = loader.load_configuration(
            config_name="launched_job", overrides=[*settings, *words], run_mode=RunMode.MULTIRUN
        )
        OmegaConf.to_container(config.hydra.launcher, resolve=True, throw_on_missing=True)
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(_explain(error, words)) from None
    return engine, config, loader


def _find_engine(words: Sequence[str], known: Sequence[str]) -> str:
    chosen = [word.partition("=")[2] for word in words if word.partition("=")[0] == "hydra/launcher"]
    if len(chosen) != 1 or not re.fullmatch(r"\w+", chosen[0]):
        named = ", ".join(f"hydra/launcher={name}" for name in EXTRAS)
        raise ConfigError(f"{' '.join(words)}: one launcher is needed, such as {named}")
    if chosen[0] in known:
        return chosen[0]
    if chosen[0] in EXTRAS:
        extra = EXTRAS[chosen[0]]
        raise ConfigError(
            f"hydra/launcher={chosen[0]}: not installed; it comes with the extra: pip install '.[{extra}]'"
        )
    names = sorted({*known, *EXTRAS})
    raise ConfigError(
        f"hydra/launcher={chosen[0]}: no such launcher; known: {', '.join(names)}{suggest(chosen[0], names)}"
    )


def _check_options(words: Sequence[str], loader: Any, settings: Sequence[str]) -> None:
    """Refuse an option that the launcher does not have; a plugin would say so at length, and late."""
    from hydra.types import RunMode

    group = next(word for word in words if word.startswith("hydra/launcher="))
    plain = loader.load_configuration(
        config_name="launched_job", overrides=[*settings, group], run_mode=RunMode.MULTIRUN
    )
    known = [f"hydra.launcher.{key}" for key in plain.hydra.launcher if key != "_target_"]
    for word in words:
        key = word.lstrip("+~").partition("=")[0]
        if word != group and not any(key == name or key.startswith(f"{name}.") for name in known):
            raise ConfigError(f"{word}: no such option of {group}{suggest(key, known)}")


def _explain(error: BaseException, words: Sequence[str]) -> str:
    """What Hydra says of the options, on one line."""
    cause = error
    while cause.__cause__ is not None:
        cause = cause.__cause__
    said = str(cause).strip().splitlines()[0]
    key = str(getattr(cause, "full_key", None) or "")
    about = next((word for word in words if key and word.partition("=")[0].endswith(key)), None)
    if about and "not in struct" in said:
        return f"{about}: not there by default; to add it, write +{about}"
    options = [word for word in words if not word.startswith("hydra/launcher=")]
    return f"{about or ' '.join(options)}: {said}"
