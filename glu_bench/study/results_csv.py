"""Anybody's results from a CSV file: a row a run (arm, seed, loss) or a row an arm (arm, mean, sd, n)."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from glu_bench.errors import ConfigError, DataError
from glu_bench.stats.findings import Findings, judge_losses, judge_summaries
from glu_bench.stats.interval import Summary, summarise
from glu_bench.study.compare import Arm, Comparison, add_estimate, add_findings, choose_baseline

COLUMNS = {
    "arm": ("arm", "variant", "activation"),
    "seed": ("seed",),
    "loss": ("loss", "loss_nats", "test_loss_nats", "nats"),
    "mean": ("mean", "mean_loss_nats"),
    "sd": ("sd", "std", "sd_loss_nats"),
    "n": ("n", "n_finished"),
}
MAX_NUMBER = 1e50  # its square and fourth power are still numbers
SHAPES = "arm,seed,loss (a row a run) or arm,mean,sd,n (a row an arm)"


def compare_csv(path: Path, baseline: str | None = None) -> Comparison:
    """One table of the file's arms; losses in nats per token, or in whatever unit the file has.

    A loss that is empty or not finite counts as a diverged run. Without a seed column, or with
    means alone, Welch's t tests every pair.
    Raises: ConfigError if the file or the baseline is not there, DataError naming the line otherwise.
    """
    rows = _read_rows(path)
    columns = set(rows[0][1])
    if "loss" in columns and "mean" not in columns:
        losses = _read_losses(path, rows)
        finished = {arm: {s: v for s, v in by.items() if v is not None} for arm, by in losses.items()}
        planned = {arm: len(by) for arm, by in losses.items()}
        finished = {arm: by for arm, by in finished.items() if by}
        chosen = _choose(baseline, list(losses), list(finished))
        found = None
        if finished and "seed" in columns:
            found = judge_losses(finished, chosen)
        elif finished:
            found = judge_summaries(
                {arm: summarise(list(by.values())) for arm, by in finished.items()}, chosen
            )
        lost = {arm: planned[arm] - len(finished.get(arm, {})) for arm in losses}
        return _tabulate(path, chosen, planned, lost, found, finished if "seed" in columns else {})
    if {"mean", "n"} <= columns and "loss" not in columns:
        summaries = _read_summaries(path, rows)
        chosen = _choose(baseline, list(summaries), list(summaries))
        counts = {arm: summary.n for arm, summary in summaries.items()}
        return _tabulate(path, chosen, counts, {}, judge_summaries(summaries, chosen), {})
    raise DataError(f"{path}: its columns must be {SHAPES}; found {', '.join(sorted(columns))}")


def _read_rows(path: Path) -> list[tuple[int, dict[str, str]]]:
    """Line numbers and cells by our names of the columns."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ConfigError(f"--from-csv {path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 at byte {error.start}") from None
    first = text.partition("\n")[0]
    reader = csv.reader(io.StringIO(text), delimiter=max(",;\t", key=first.count))
    header = [name.strip().lower() for name in next(reader, [])]
    names = {at: ours for at, name in enumerate(header) for ours, known in COLUMNS.items() if name in known}
    if "arm" not in names.values() or len(set(names.values())) < len(names):
        raise DataError(f"{path}: its first line must name the columns once each: {SHAPES}")
    rows = []
    for cells in _list_lines(path, reader):
        if not any(cell.strip() for cell in cells):
            continue
        if len(cells) != len(header):
            raise DataError(f"{path}:{reader.line_num}: {len(cells)} cells under {len(header)} columns")
        rows.append((reader.line_num, {ours: cells[at].strip() for at, ours in names.items()}))
        if not rows[-1][1]["arm"]:
            raise DataError(f"{path}:{reader.line_num}: no arm")
    if len({row["arm"] for _, row in rows}) < 2:
        raise DataError(f"{path}: fewer than two arms, nothing to compare")
    return rows


def _list_lines(path: Path, reader: Any) -> Iterator[list[str]]:
    """The cells of each line; what csv cannot split is said with its line."""
    while True:
        try:
            yield next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise DataError(f"{path}:{reader.line_num}: {error}") from None


def _read_losses(path: Path, rows: list[tuple[int, dict[str, str]]]) -> dict[str, dict[int, float | None]]:
    """Losses by arm and seed; None for a run that gave no number."""
    losses: dict[str, dict[int, float | None]] = {}
    for line, row in rows:
        at_arm = losses.setdefault(row["arm"], {})
        seed = _number(path, line, row["seed"], "seed") if "seed" in row else len(at_arm)
        if seed is None or seed != int(seed):
            raise DataError(f"{path}:{line}: seed '{row['seed']}' is not a whole number")
        if int(seed) in at_arm:
            raise DataError(f"{path}:{line}: {row['arm']} has seed {int(seed)} twice")
        at_arm[int(seed)] = _number(path, line, row["loss"], "loss")
    return losses


def _read_summaries(path: Path, rows: list[tuple[int, dict[str, str]]]) -> dict[str, Summary]:
    summaries: dict[str, Summary] = {}
    for line, row in rows:
        if row["arm"] in summaries:
            raise DataError(f"{path}:{line}: {row['arm']} stands there twice")
        mean, n = _number(path, line, row["mean"], "mean"), _number(path, line, row["n"], "n")
        sd = _number(path, line, row.get("sd", ""), "sd")
        if mean is None or n is None or n < 1 or n != int(n):
            raise DataError(f"{path}:{line}: needs a finite mean and a whole n of 1 or more")
        if sd is not None and sd < 0:
            raise DataError(f"{path}:{line}: sd {sd:g} is negative")
        summaries[row["arm"]] = Summary(n=int(n), mean=mean, sd=sd if n > 1 else None)
    return summaries


def _number(path: Path, line: int, text: str, column: str) -> float | None:
    """A finite number; None for an empty cell, nan or inf."""
    try:
        value = float(text or "nan")
    except ValueError:
        raise DataError(f"{path}:{line}: {column} '{text}' is not a number") from None
    if math.isfinite(value) and abs(value) > MAX_NUMBER:
        raise DataError(f"{path}:{line}: {column} {text} is beyond {MAX_NUMBER:g}, no result of anybody's")
    return value if math.isfinite(value) else None


def _choose(baseline: str | None, arms: list[str], finished: list[str]) -> str:
    if baseline is not None and baseline not in arms:
        raise ConfigError(f"--baseline {baseline}: not among the arms {', '.join(sorted(arms))}")
    return baseline or choose_baseline(finished or arms)


def _tabulate(
    path: Path,
    baseline: str,
    planned: dict[str, int],
    lost: dict[str, int],
    found: Findings | None,
    losses: dict[str, dict[int, float]],
) -> Comparison:
    estimates = {estimate.arm: estimate for estimate in found.estimates} if found else {}
    rank_of = {arm: rank for rank, arm in enumerate(estimates)}  # best first
    rows = []
    for arm, n in planned.items():
        n_lost = lost.get(arm, 0)
        row = Arm(
            arm=arm,
            n_finished=n - n_lost,
            n_planned=n,
            n_diverged=n_lost,
            losses=losses.get(arm, {}),
        )
        shared = len(set(losses.get(arm, {})) & set(losses.get(baseline, {})))
        rows.append(add_estimate(row, estimates[arm], shared) if arm in estimates else row)
    rows.sort(key=lambda row: (rank_of.get(row.arm, len(rank_of)), row.arm))
    table = Comparison(
        setting=path.name,
        baseline=baseline,
        split="published",
        arms=rows,
        left_out=[],
        warnings=[
            f"{row.arm}: the mean is over {row.n_finished} of {row.n_planned} runs"
            for row in rows
            if row.n_finished < row.n_planned
        ],
        verdict="no arm has a finite loss: nothing to compare",
    )
    return add_findings(table, found) if found else table
