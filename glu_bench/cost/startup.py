"""What starting costs: each command from its first instruction to its end, and the first compiled step.

Beside a command stands what it cannot be quicker than: an interpreter that does nothing or, for
commands that compute, one that imports torch. Caches are made for the occasion, so nothing of
the person's own is read, and a hub that does not answer keeps nobody waiting.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from glu_bench.cache import GRAPHS
from glu_bench.cost.compare import write_runs
from glu_bench.cost.process import Spent, glu_bench_command, time_command
from glu_bench.device import find_missing_compiler

BARE, TORCH = "python -c pass", "python -c 'import torch'"
PEERS = {BARE: "pass", TORCH: "import torch"}
TEXT = "data.max_tokens=200_000"  # of the standard library: enough for three splits


@dataclass(frozen=True, kw_only=True)
class StartupRow:
    """One command; the ratio is ours / peer. `ours` is None where it could not be measured, see note."""

    name: str
    ours: float | None
    peer: float | None
    ratio: float | None
    unit: str = "s"
    note: str = ""


@dataclass(frozen=True)
class Started:
    """A command that is timed: its words, what it stands beside, and whether it takes an output folder."""

    words: tuple[str, ...]
    peer: str
    reads_runs: bool = False

    @property
    def name(self) -> str:
        """The command as a person types it."""
        return " ".join(["glu-bench", *self.words])


COMMANDS = (
    Started(("--help",), BARE),
    Started(("train", "--help"), BARE),
    Started(("variants",), BARE),
    Started(("train", "--cfg"), BARE),
    Started(("status",), BARE, reads_runs=True),
    Started(("runs", "list"), BARE, reads_runs=True),
    Started(("compare",), BARE, reads_runs=True),
    Started(("doctor",), TORCH, reads_runs=True),
    Started(("sweep", "--dry-run", "model=pico", "train.compile=false", TEXT), TORCH, reads_runs=True),
)


def bench_startup(rounds: int = 5) -> list[StartupRow]:
    """Rows: of each command the least seconds and the least processor time; then of a compiled run.

    The contestants take turns, so that a machine that slows down slows all of them.
    """
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        write_runs(place / "outputs", 2)  # the least that compare takes
        changes = {"GLU_BENCH_CACHE": str(place / "cache"), "HF_HUB_OFFLINE": "1"}
        turns: list[dict[str, Spent]] = []
        time_command(_command(COMMANDS[-1], place), changes)  # tokenises the text
        for _ in range(rounds):
            turn = {name: time_command([sys.executable, "-c", code]) for name, code in PEERS.items()}
            for started in COMMANDS:
                turn[started.name] = time_command(_command(started, place), changes)
            turns.append(turn)
        return [*_make_rows(turns), *_bench_compiled(place, changes)]


def _command(started: Started, place: Path) -> list[str]:
    words = list(started.words)
    if started.reads_runs:
        words += ["--output-dir", str(place / "outputs")]
    return glu_bench_command(*words)


def _make_rows(turns: Sequence[Mapping[str, Spent]]) -> list[StartupRow]:
    elapsed = {name: min(turn[name].elapsed_s for turn in turns) for name in turns[0]}
    busy = {name: min(turn[name].busy_s for turn in turns) for name in turns[0]}
    rows = []
    for least, what in ((elapsed, ""), (busy, ", processor time")):
        rows += [_row(name + what, least[name]) for name in PEERS]
        rows += [
            StartupRow(
                name=started.name + what,
                ours=least[started.name],
                peer=least[started.peer],
                ratio=least[started.name] / least[started.peer],
            )
            for started in COMMANDS
        ]
    return rows


def _bench_compiled(place: Path, changes: Mapping[str, str]) -> list[StartupRow]:
    """Rows of a pico run of one step, made twice: compiling all of it, and finding it compiled."""
    missing = find_missing_compiler("cpu")
    graphs = {GRAPHS: str(place / "graphs")}
    rows = []
    for state in ("empty", "filled"):
        names = (f"first compiled step, {state} compiler cache", f"a run of one step, {state} compiler cache")
        if missing:
            rows += [StartupRow(name=name, ours=None, peer=None, ratio=None, note=missing) for name in names]
            continue
        outputs = place / state
        words = ["model=pico", "train.compile=true", "train.device=cpu", "train.steps=1", TEXT]
        words += ["--quiet", "--output-dir", str(outputs)]
        spent = time_command(glu_bench_command("train", *words), {**changes, **graphs})
        (record,) = outputs.glob("runs/*/result.json")
        rows.append(_row(names[0], json.loads(record.read_text())["elapsed_s"]))
        rows.append(_row(names[1], spent.elapsed_s))
    return rows


def _row(name: str, ours: float) -> StartupRow:
    return StartupRow(name=name, ours=ours, peer=None, ratio=None)
