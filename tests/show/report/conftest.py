"""Reports of run folders made without training: a tidy one and one in which every text is an attack."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from glu_bench import schema
from glu_bench.files import write_json
from glu_bench.runs.folder import Run
from glu_bench.runs.record import append_row, write_record
from glu_bench.show.report.page import Asked, render_report
from glu_bench.study.compare import Comparison, compare_runs
from tests.conftest import TinyConfig
from tests.study.conftest import MakeRun, maker_of_runs

HOSTILE = [
    "<script>window.hit=1</script>",
    '"><img src=x onerror=window.hit=2>',
    "</script><script>window.hit=3</script>",
    "--><b onmouseover=window.hit=4>b</b><!--",
    '<a href="https://evil.example/">%{x}</a>',
    "_$\\alpha$ [/x]\x1b[31m\u202egnp\u2028{{7*7}}{% raw %}&lt;i&gt;#000001",
]


@dataclass(frozen=True)
class Made:
    """A report and what it is of."""

    page: str
    tables: list[Comparison]
    runs: list[Run]


def log_rows(run: Run, loss_nats: float, n_rows: int = 40, **more: object) -> None:
    """Rows of a run that fell from 5 nats to a loss, held out at every other row."""
    for row in range(1, n_rows + 1):
        loss = loss_nats + (5 - loss_nats) / row
        held_out = {"val_loss_nats": loss + 0.1} if row % 2 == 0 else {}
        values = {"loss_nats": loss, "grad_norm": 1 / row, "lr": 1e-3, "tokens_per_s": 100.0}
        place = {"step": row, "n_steps": n_rows, "tokens": 64 * row, "elapsed_s": 0.1 * row}
        append_row(run.metrics_path, {**place, **values, **held_out, **more})


def write_tuning_record(output_dir: Path, run: Run, arms: list[str], values: list[str]) -> None:
    """A tuning.json as `sweep --tune` leaves it, over optim.lr."""
    points = [
        {
            "values": {"optim.lr": v},
            "losses_nats": [3.0 + at, 3.2 + at],
            "n_planned": 2,
            "mean_loss_nats": 3.1 + at,
        }
        for at, v in enumerate(values)
    ]
    chosen = {"optim.lr": values[0]}
    curves = [{"arm": arm, "chosen": chosen, "edges": {"optim.lr": "low"}, "curve": points} for arm in arms]
    folder = output_dir / "sweeps" / "mine"
    folder.mkdir(parents=True)
    record = {"schema_version": 1, "tuned": {"optim.lr": values}, "seeds": [9, 10], "arms": curves}
    made = {run.run_id: {"keys": ["optim.lr"], "edges": {}}}
    write_record(folder / "tuning.json", {**record, "runs": made})


ARMS = {"swiglu": 2.0, "geglu": 2.1, "gelu": 2.6, "relu": 2.605}


@pytest.fixture(scope="session")
def tidy(tiny_config: TinyConfig, tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Four arms of three seeds, two pairs of them alike; one run more that diverged."""
    folder = tmp_path_factory.mktemp("tidy")
    make = maker_of_runs(tiny_config, folder)
    draw = random.Random(1)
    runs = []
    for arm, loss in ARMS.items():
        for seed in range(3):
            final = loss + 0.05 * seed + draw.gauss(0, 0.005)
            speed = 1000.0 * len(arm) + seed
            runs.append(make(arm, seed, final, tokens_per_s=speed, hidden_rms_at_init=[0.5, 0.1 * loss]))
            log_rows(runs[-1], final)
    runs.append(make("relu", 3, None, diverged=True))
    log_rows(runs[-1], 4.0, n_rows=9)
    write_tuning_record(folder, runs[0], ["variant=swiglu", "variant=geglu"], ["0.001", "0.002", "0.004"])
    tables = compare_runs(runs)
    return Made(render_report(tables, runs, Asked(words=("gates",))), tables, runs)


@pytest.fixture(scope="session")
def hostile(tiny_config: TinyConfig, tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Arms, reasons, quantities, machines and tunings named by somebody who means harm."""
    folder = tmp_path_factory.mktemp("hostile")
    runs = []
    for at, text in enumerate(HOSTILE):
        make = maker_of_runs(naming(tiny_config, text), folder)
        for seed in range(2):
            runs.append(make("gelu", seed, 2.0 + at + 0.1 * seed, **{text: [1.0, 2.0]}))
            log_rows(runs[-1], 2.0 + at, **{text: 1.0})
            place = runs[-1].path / "environment.json"
            write_json(place, {**json.loads(place.read_text()), "cpu": text, text: text})
        runs.append(make("gelu", 2, None, diverged=True))
        write_json(runs[-1].path / "failure.json", {"status": "diverged", "reason": text})
    write_tuning_record(folder, runs[0], [f"variant={text}" for text in HOSTILE], HOSTILE)
    tables = compare_runs(runs, arm_keys=("data.val_split",))
    asked = Asked(words=HOSTILE, arms="data.val_split")
    return Made(render_report(tables, runs, asked), tables, runs)


def naming(tiny_config: TinyConfig, text: str) -> Callable[..., schema.Config]:
    """As `tiny_config`, with a text of one's own among what determines the result."""

    def make(*words: str) -> schema.Config:
        config = tiny_config(*words)
        config.data.val_split = text
        return config

    return make


@pytest.fixture
def make_plain(tiny_config: TinyConfig, tmp_path: Path) -> MakeRun:
    """Makes run folders in this test's own place."""
    return maker_of_runs(tiny_config, tmp_path)
