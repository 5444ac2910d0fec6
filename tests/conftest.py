"""What every test shares: one thread, no network, a cache and outputs of its own, tiny runs."""

from __future__ import annotations

import os
import tempfile

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MKL_NUM_THREADS", "1")
os.environ["HF_HUB_OFFLINE"] = "1"
# kept from one session of tests to the next, beside the person's own
os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", f"{tempfile.gettempdir()}/glu-bench-tests-{os.getuid()}")

import functools
import random
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, settings

from glu_bench import schema
from glu_bench.config import load_config
from glu_bench.ffn import activations, plugins
from glu_bench.runs import environment
from glu_bench.runs.folder import Run
from glu_bench.train.events import Finished
from glu_bench.train.run import train_run
from glu_bench.train.stop import StopRequest
from tests.composed import compose

settings.register_profile(
    "glu_bench",
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
settings.load_profile("glu_bench")

REPO = Path(__file__).resolve().parents[1]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leaves out what is marked slow unless -m says otherwise."""
    if not config.option.markexpr:
        items[:] = [item for item in items if item.get_closest_marker("slow") is None]


def make_text(n_lines: int, seed: int = 0) -> str:
    """Lines of words from a vocabulary of 60, about 45 bytes each; learnable and the same for ever."""
    draw = random.Random(seed)
    words = ["".join(draw.choices("abcdefghij", k=draw.randint(2, 8))) for _ in range(60)]
    return "".join(" ".join(draw.choices(words, k=7)) + "\n" for _ in range(n_lines))


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """One cache of prepared tokens for the session, away from the person's own.

    What this process alone writes need not outlive a loss of power, and the checkout's commit
    stays what it is: neither is waited for here, both are in the processes that tests start.
    """
    torch.set_num_threads(1)
    cache = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda fd: None)
        patch.setattr(environment, "_read_commit", functools.cache(environment._read_commit))
        for name in ("GLU_BENCH_OUTPUTS", "NO_COLOR", "FORCE_COLOR", "COLUMNS", "CI"):
            patch.delenv(name, raising=False)
        patch.setenv("GLU_BENCH_CACHE", str(cache))
        patch.setenv("HF_HOME", str(cache / "hf"))
        yield cache


@pytest.fixture(scope="session")
def text_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A text of about 25 kB."""
    path = tmp_path_factory.mktemp("text") / "words.txt"
    path.write_text(make_text(600), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def tiny_words(text_path: Path) -> list[str]:
    """Settings of a run of a few hundredths of a second: 6 steps of 4 x 16 bytes."""
    return [
        "data=text",
        f"data.files={text_path}",
        "model=pico",
        "model.seq_len=16",
        "train.steps=6",
        "train.batch_size=4",
        "train.compile=false",
        "train.precision=fp32",
        "train.device=cpu",
        "train.log_every=1",
        "train.eval_every=3",
        "train.eval_tokens=64",
        "train.checkpoint_every=2",
    ]


TinyConfig = Callable[..., schema.Config]


@pytest.fixture(scope="session")
def tiny_config(tiny_words: list[str]) -> TinyConfig:
    """Makes the configuration of a tiny run; its own words replace the shared ones."""

    def make(*words: str, config_dir: Path | None = None) -> schema.Config:
        keys = {word.split("=", 1)[0] for word in words}
        kept = [word for word in tiny_words if word.split("=", 1)[0] not in keys]
        return compose(*kept, *words) if config_dir is None else load_config([*kept, *words], config_dir)

    return make


class StopAt(StopRequest):
    """A request that arrives, as a signal would, while a given step is computed."""

    def __init__(self, step: int) -> None:
        super().__init__()
        self._n_left = step

    @property
    def nothing_to_save(self) -> bool:
        return False

    @nothing_to_save.setter
    def nothing_to_save(self, value: bool) -> None:
        if not value:
            self._n_left -= 1
            if self._n_left == 0:
                self.number = 15


Train = Callable[..., dict[str, Any]]


@pytest.fixture
def train(tiny_config: TinyConfig, tmp_path: Path) -> Train:
    """Trains a tiny run to its end in this process; returns the final record."""

    def run(*words: str, output_dir: Path = tmp_path, stop: StopRequest | None = None, **options: Any) -> Any:
        config = tiny_config(*words)
        events = list(train_run(config, output_dir, stop or StopRequest(), **options))
        assert isinstance(events[-1], Finished)
        return events[-1].record

    return run


@pytest.fixture(scope="session")
def finished_run(tiny_config: TinyConfig, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A complete run that tests only read; its output folder is `finished_run.path.parent.parent`."""
    events = list(train_run(tiny_config(), tmp_path_factory.mktemp("outputs"), StopRequest()))
    assert isinstance(events[-1], Finished)
    return events[-1].run


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str


Command = Callable[..., Ended]


def command_line(*words: str) -> list[str]:
    """The command of a subprocess."""
    return [sys.executable, "-m", "glu_bench", *words]


def command_env(**changes: str | None) -> dict[str, str]:
    """The environment of a subprocess; None takes a name out."""
    env = {**os.environ, "PYTHONPATH": str(REPO)}
    for name, value in changes.items():
        env.pop(name, None)
        if value is not None:
            env[name] = value
    return env


@pytest.fixture
def run_command(tmp_path: Path) -> Command:
    """Runs glu-bench as a process of its own, for at most a minute."""

    def run(*words: str, cwd: Path = tmp_path, env: Sequence[tuple[str, str | None]] = ()) -> Ended:
        done = subprocess.run(
            command_line(*words),
            cwd=cwd,
            env=command_env(**dict(env)),
            capture_output=True,
            timeout=60,
            check=False,
        )
        return Ended(done.returncode, done.stdout.decode("utf-8"), done.stderr.decode("utf-8"))

    return run


@pytest.fixture
def call_command(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Iterator[Command]:
    """Runs glu-bench in this process, exit codes and streams as in a process of its own.

    What a command's plugins brought is gone with the test.
    """
    from glu_bench.cli.main import main

    known, origins = dict(activations.ACTIVATIONS), dict(plugins._origins)

    def call(*words: str) -> Ended:
        monkeypatch.setattr(sys, "argv", ["glu-bench", *words])
        capfd.readouterr()
        code = 0
        try:
            main()
        except SystemExit as leaving:
            code = leaving.code if isinstance(leaving.code, int) else 0 if leaving.code is None else 1
        out, err = capfd.readouterr()
        return Ended(code, out, err)

    yield call
    for now, before in ((activations.ACTIVATIONS, known), (plugins._origins, origins)):
        now.clear()
        now.update(before)  # type: ignore[arg-type]
