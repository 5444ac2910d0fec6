"""Trackers: told everything, trusted with nothing, missed by nobody."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from glu_bench.errors import ConfigError, InterruptedRunError
from glu_bench.interop import tracking
from glu_bench.interop.tracking import Tracking, make_tracker
from glu_bench.interop.wandb_tracker import WandbTracker, choose_mode
from glu_bench.runs.folder import Run
from glu_bench.schema import Tracker
from glu_bench.train.events import Event, Finished, Logged, Started
from glu_bench.train.run import train_run
from glu_bench.train.stop import StopRequest
from tests.conftest import Command, TinyConfig

SECRET = "hunter2-do-not-write"


class Recorder:
    """Remembers what it was told; raises at one point if asked."""

    def __init__(self, fails_at: str | None = None, error: BaseException | None = None) -> None:
        self.fails_at = fails_at
        self.error = error or RuntimeError("no\nnetwork")
        self.told: list[str] = []

    def _tell(self, what: str) -> None:
        self.told.append(what)
        if what == self.fails_at:
            raise self.error

    def start(self, event: Started) -> None:
        self._tell("start")

    def log(self, row: dict[str, Any]) -> None:
        self._tell("log")

    def finish(self, record: dict[str, Any]) -> None:
        self._tell("finish")

    def close(self) -> None:
        self._tell("close")


@pytest.fixture
def events(tiny_config: TinyConfig, tmp_path: Path) -> list[Event]:
    """All events of a tiny run."""
    return list(train_run(tiny_config(), tmp_path, StopRequest()))


def hear_all(events: list[Event], recorder: Recorder) -> list[str]:
    warnings: list[str] = []
    with Tracking("fake", recorder, warnings.append) as listening:
        for event in events:
            listening.hear(event)
    return warnings


def test_every_row_is_told_in_order(events: list[Event]) -> None:
    recorder = Recorder()
    assert hear_all(events, recorder) == []
    assert recorder.told == ["start", *["log"] * 6, "finish", "close"]


@pytest.mark.parametrize("fails_at", ["start", "log", "finish", "close"])
@pytest.mark.parametrize("error", [RuntimeError("no\nnetwork"), SystemExit(1), AssertionError()])
def test_a_failure_is_said_once_and_ends_nothing(
    events: list[Event], fails_at: str, error: BaseException
) -> None:
    recorder = Recorder(fails_at, error)
    warnings = hear_all(events, recorder)
    assert len(warnings) == 1
    assert warnings[0].startswith("tracker=fake failed")
    assert "\n" not in warnings[0]
    assert recorder.told[-1] == fails_at  # never called again


def test_a_signal_while_tracking_still_stops_the_run(events: list[Event]) -> None:
    with pytest.raises(InterruptedRunError):
        hear_all(events, Recorder("log", InterruptedRunError("stopped", 15)))


def test_a_reused_run_is_not_told(finished_run: Run) -> None:
    recorder = Recorder()
    hear_all([Finished(run=finished_run, record={}, reused=True)], recorder)
    assert recorder.told == []


@pytest.mark.parametrize("name", ["tensorboard", "wandb"])
def test_a_missing_package_names_its_extra(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
) -> None:
    monkeypatch.setattr(tracking.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=rf"pip install '\.\[{name}\]'"):
        make_tracker(Tracker(name=name), tmp_path)


def test_a_failing_tracker_leaves_the_command_whole(
    call_command: Command, tiny_words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracking, "make_tracker", lambda spec, folder: Recorder("log"))
    words = ["train", *tiny_words, "--output-dir", str(tmp_path), "--quiet", "--json"]
    ended = call_command(*words)
    assert ended.code == 0
    assert ended.err == ("warning: tracker=none failed, the run goes on without it (RuntimeError: no)\n")
    assert ended.out.count("\n") == 1
    (run,) = (tmp_path / "runs").iterdir()
    assert len((run / "metrics.jsonl").read_text().splitlines()) == 6


def files_with(folder: Path, word: str) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and word.encode() in path.read_bytes()]


def test_tensorboard_for_real(
    events: list[Event], tiny_config: TinyConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    monkeypatch.setenv("HF_TOKEN", SECRET)
    tracker = make_tracker(Tracker(name="tensorboard"), tmp_path)
    warnings: list[str] = []
    with Tracking("tensorboard", tracker, warnings.append) as listening:
        for event in events:
            listening.hear(event)
    assert warnings == []
    started = events[0]
    assert isinstance(started, Started)
    found = EventAccumulator(str(tmp_path / "tensorboard" / started.run.run_id)).Reload()
    rows = [event.row for event in events if isinstance(event, Logged)]
    points = [(point.step, point.value) for point in found.Scalars("loss_nats")]
    assert points == [(row["step"], pytest.approx(row["loss_nats"])) for row in rows]
    assert len(found.Scalars("val_loss_nats")) == 2
    assert len(found.Scalars("final/test_loss_nats")) == 1
    assert files_with(tmp_path, SECRET) == []


class FakeRun:
    """The part of a wandb run that is used."""

    def __init__(self) -> None:
        self.rows: list[tuple[int, dict[str, Any]]] = []
        self.summary: dict[str, Any] = {}
        self.exit_code: int | None = None

    def log(self, row: dict[str, Any], step: int) -> None:
        self.rows.append((step, row))

    def finish(self, exit_code: int) -> None:
        self.exit_code = exit_code


@pytest.fixture
def fake_wandb(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> SimpleNamespace:
    """A module in wandb's place."""
    for name in ("WANDB_MODE", "WANDB_API_KEY", "NETRC"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    fake = SimpleNamespace(run=FakeRun(), options={})

    def init(**options: Any) -> FakeRun:
        fake.options = options
        return fake.run

    fake.init = init
    fake.Settings = dict
    monkeypatch.setitem(sys.modules, "wandb", fake)  # type: ignore[arg-type]
    return fake


def test_wandb_gets_rows_settings_and_summary(
    events: list[Event], fake_wandb: SimpleNamespace, tmp_path: Path
) -> None:
    assert hear_all_by(events, WandbTracker(tmp_path)) == []
    assert [step for step, _ in fake_wandb.run.rows] == [1, 2, 3, 4, 5, 6]
    assert fake_wandb.options["mode"] == "offline"
    assert fake_wandb.options["config"]["variant.name"] == "swiglu"
    assert fake_wandb.options["settings"]["x_disable_meta"] is True
    assert fake_wandb.run.summary["status"] == "complete"
    assert fake_wandb.run.exit_code == 0


def test_wandb_hears_that_a_run_did_not_finish(
    events: list[Event], fake_wandb: SimpleNamespace, tmp_path: Path
) -> None:
    hear_all_by(events[:3], WandbTracker(tmp_path))
    assert fake_wandb.run.exit_code == 1


def hear_all_by(events: list[Event], tracker: WandbTracker) -> list[str]:
    warnings: list[str] = []
    with Tracking("wandb", tracker, warnings.append) as listening:
        for event in events:
            listening.hear(event)
    return warnings


@pytest.mark.parametrize(
    ("env", "mode"),
    [
        ({}, "offline"),
        ({"WANDB_API_KEY": "x"}, "online"),
        ({"WANDB_API_KEY": "x", "WANDB_MODE": "offline"}, "offline"),
        ({"WANDB_MODE": "disabled"}, "disabled"),
    ],
)
def test_the_mode_never_asks_for_a_key(
    fake_wandb: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, env: dict[str, str], mode: str
) -> None:
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    assert choose_mode() == mode


def test_a_key_in_netrc_means_online(fake_wandb: SimpleNamespace, tmp_path: Path) -> None:
    (tmp_path / ".netrc").write_text("machine api.wandb.ai login user password x\n")
    assert choose_mode() == "online"


Make = Callable[..., Any]


@pytest.mark.slow
def test_wandb_offline_for_real(run_command: Command, tiny_words: list[str], tmp_path: Path) -> None:
    pytest.importorskip("wandb")
    words = [
        "train",
        *tiny_words,
        "tracker=wandb",
        "--output-dir",
        str(tmp_path / "out"),
        "--json",
        "--quiet",
    ]
    env = [
        *(("WANDB_API_KEY", None), ("WANDB_MODE", None), ("NETRC", None), ("HF_TOKEN", SECRET)),
        ("HOME", str(tmp_path)),
    ]
    ended = run_command(*words, env=env)
    assert ended.code == 0
    assert ended.err == ""
    assert ended.out.count("\n") == 1
    assert list((tmp_path / "out" / "wandb").glob("offline-run-*/*.wandb"))
    assert files_with(tmp_path / "out", SECRET) == []
