"""The benchmark of comparisons: folders that verify, rows that say what was measured."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from glu_bench.cost import compare
from glu_bench.cost.compare import bench_compare, write_runs
from glu_bench.cost.process import Spent
from glu_bench.errors import DataError
from glu_bench.runs.folder import list_runs
from glu_bench.study.compare import compare_runs
from tests.conftest import Command


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    write_runs(folder, 18)
    return folder


def test_made_up_runs_are_what_a_comparison_takes(made: Path) -> None:
    runs = list_runs(made)
    assert len(runs) == 18
    (table,) = compare_runs(runs)
    assert {arm.arm for arm in table.arms} == set(compare.ARMS)
    assert sorted(arm.n_finished for arm in table.arms) == [2] * 6 + [3] * 2
    assert all(len(run.rows()) == compare.N_STEPS // 10 for run in runs)


def test_made_up_runs_are_checked_as_real_ones_are(made: Path) -> None:
    path = list_runs(made)[0].path / "config.yaml"
    text = path.read_text()
    path.write_text(text.replace("d_model: 192", "d_model: 96"))
    with pytest.raises(DataError, match="was edited"):
        compare_runs(list_runs(made))
    path.write_text(text)


def test_the_rows_are_those_of_the_numbers_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """One second and 10 ms a folder: the least of three rounds counts, the greatest memory."""
    noise = iter([0.5, 0.0, 0.25] * 2)

    def measure(command: list[str]) -> Spent:
        assert command[:-1] == [sys.executable, "-m", "glu_bench", "compare", "--json", "--output-dir"]
        n, more = len(list_runs(Path(command[-1]))), next(noise)
        return Spent(elapsed_s=1 + 0.01 * n + more, busy_s=0.5 + more, peak_bytes=10**6 * n + int(4e6 * more))

    monkeypatch.setattr(compare, "time_command", measure)
    rows = {row.name: (row.ours, row.unit) for row in bench_compare([12, 2])}
    assert rows == {
        "2 folders": (pytest.approx(1.02), "s"),
        "2 folders, processor time": (0.5, "s"),
        "2 folders, peak memory": (4.0, "MB"),
        "12 folders": (pytest.approx(1.12), "s"),
        "12 folders, processor time": (0.5, "s"),
        "12 folders, peak memory": (14.0, "MB"),
        "a folder more, 2 to 12": (pytest.approx(10), "ms"),
    }


def test_the_command_measures_the_command(call_command: Command) -> None:
    ended = call_command("bench", "compare", "8", "--rounds", "1", "--json")
    assert ended.code == 0, ended.err
    found = json.loads(ended.out)
    assert [row["unit"] for row in found["rows"]] == ["s", "s", "MB"]
    assert all(row["ours"] > 0 and row["peer"] is None and row["ratio"] is None for row in found["rows"])
    assert found["peak"] is None
    assert found["environment"]["n_cores"] > 0
