"""Tables of results."""

from __future__ import annotations

import dataclasses
import io
from typing import Any

import pytest
from rich.console import Console

from glu_bench.runs.folder import Run
from glu_bench.show.tables import make_table, render_result, render_rows, render_splits

HOSTILE = "[/x]\x1b[31m\u202e<script>"


def shown(table: Any, width: int = 200) -> str:
    console = Console(file=io.StringIO(), width=width)
    console.print(table)
    file = console.file
    assert isinstance(file, io.StringIO)
    return file.getvalue()


def test_a_result_shows_each_number_with_its_unit(finished_run: Run) -> None:
    record = finished_run.result()
    out = shown(render_result(record))
    assert record["run_id"] in out
    assert f"{record['test_loss_nats']:.4f} nats/token" in out
    assert f"{record['test_perplexity']:.3f}" in out
    assert "unstable" not in out
    assert "inexact" not in out
    assert "of peak" not in out
    known = shown(render_result({**record, "mfu": 0.4321}))
    assert "43.2% of the device's dense bf16 FLOP/s" in known


def test_a_result_says_what_is_wrong_with_it(finished_run: Run) -> None:
    record = {**finished_run.result(), "unstable": True, "exact": False, "test_perplexity": None}
    out = shown(render_result(record))
    assert "ended above where it began" in out
    assert "resumed under other threads" in out
    assert ">1e308" in out


def test_a_run_too_short_to_time_has_a_dash(finished_run: Run) -> None:
    assert "- tokens/s" in shown(render_result({**finished_run.result(), "tokens_per_s": None}))


@pytest.mark.parametrize("width", [20, 80, 200])
def test_hostile_text_in_any_cell_or_title_stays_text(width: int, finished_run: Run) -> None:
    record = {**finished_run.result(), "run_id": HOSTILE}
    tables = [
        make_table(HOSTILE, ("a",)),
        render_rows(HOSTILE, ("a", "b"), [(HOSTILE, HOSTILE)]),
        render_result(record),
    ]
    for table in tables:
        assert not set(shown(table, width)) & {"\x1b", "\u202e"}


def test_a_comparison_with_gaps_is_rendered() -> None:
    from glu_bench.show.columns import choose_columns
    from glu_bench.show.comparison import render_comparison
    from glu_bench.study.compare import Arm, Comparison

    def empty(kind: type) -> dict[str, Any]:
        return dict.fromkeys(entry.name for entry in dataclasses.fields(kind))

    counts = {"n_finished": 0, "n_planned": 3, "n_diverged": 3, "n_shared_seeds": 0}
    arm = Arm(**{**empty(Arm), **counts, "arm": HOSTILE})
    lists = {"arms": [arm], "left_out": [], "warnings": []}
    words = {"setting": HOSTILE, "baseline": "gelu", "split": "test", "verdict": HOSTILE}
    table = Comparison(**{**empty(Comparison), **lists, **words})
    out = shown(render_comparison(table, choose_columns("all")), 400)
    assert "0/3 (3 diverged)" in out
    assert "\x1b" not in out


def test_a_split_that_is_empty_has_a_dash_for_its_rate() -> None:
    sizes = {
        "train": {"n_documents": 1_200, "n_bytes": 9_000, "n_tokens": 4_000},
        "val": {"n_documents": 0, "n_bytes": 0, "n_tokens": 0},
    }
    out = shown(render_splits({"corpus": HOSTILE, "tokenizer": "bpe", "splits": sizes}))
    train, val = (line.split() for line in out.splitlines() if line.split()[:1] in (["train"], ["val"]))
    assert train == ["train", "1,200", "9,000", "4,000", "2.25"]
    assert val == ["val", "0", "0", "0", "-"]
    assert "bpe" in out
    assert "\x1b" not in out
