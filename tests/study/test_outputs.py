"""What doctor says of a whole output folder: sweeps, leftovers, and what is no run."""

from __future__ import annotations

import os
import shlex
import subprocess
from pathlib import Path

import pytest

from glu_bench.files import hold_lock, write_json
from glu_bench.grid import load_grid
from glu_bench.runs.diagnosis import Finding
from glu_bench.runs.folder import Run
from glu_bench.runs.record import read_record, write_record
from glu_bench.study.outputs import diagnose_outputs, spell_sweep
from glu_bench.study.plan import Plan, PlannedRun, load_plan, make_plan, name_grid


@pytest.fixture
def dead() -> int:
    """The number of a process that is gone."""
    process = subprocess.Popen(["true"])
    process.wait()
    return process.pid


def find(output_dir: Path, name: str) -> Finding:
    (found,) = [finding for finding in diagnose_outputs(output_dir) if finding.path.name == name]
    return found


def plan_tiny(tiny_words: list[str], output_dir: Path, *words: str, name: str | None = None) -> Plan:
    return make_plan([*tiny_words, *words], output_dir, name=name)


def write_end(run: Run, status: str) -> None:
    """As much of an end as `status` reads."""
    run.path.mkdir(parents=True, exist_ok=True)
    write_json(run.path / "environment.json", {"run_id": run.path.name})
    if status == "complete":
        write_record(run.path / "result.json", {"run_id": run.path.name})
    else:
        write_json(run.path / "failure.json", {"status": status, "reason": "said so", "step": 1})


def test_nothing_there_is_nothing_wrong(tmp_path: Path) -> None:
    assert diagnose_outputs(tmp_path / "none") == []


def test_the_command_of_a_sweep_makes_its_runs_again(tiny_words: list[str], tmp_path: Path) -> None:
    plan = plan_tiny(tiny_words, tmp_path, "variant=relu,gelu", "seed=0,1")
    for planned, status in zip(plan.runs, ("complete", "failed", "diverged"), strict=False):
        write_end(plan.run(planned), status)
    found = find(tmp_path, plan.sweep_id)
    assert found.state == "unfinished"
    assert found.holds == "1 of 4 runs complete, 1 failed, 1 diverged, 1 planned"
    (mend,) = found.mends
    assert mend.effect == "trains the 2 that are left, and no other"
    words = shlex.split(mend.command)
    assert words[:2] == ["glu-bench", "sweep"]
    assert words[-3:] == ["--retry-failed", "--output-dir", str(tmp_path)]
    assert "--name" not in words
    again = make_plan(words[2:-3], tmp_path)
    assert again.sweep_id == plan.sweep_id
    assert again.runs == plan.runs


def test_a_named_sweep_is_gone_on_with_under_its_name(tiny_words: list[str], tmp_path: Path) -> None:
    plan = plan_tiny(tiny_words, tmp_path, "variant=relu,gelu", name="gates")
    words = spell_sweep(load_plan(plan.folder))
    assert words is not None
    assert words[-2:] == ["--name", "gates"]
    assert [tuple(cell) for cell, _ in load_grid(words[:-2])] == [planned.words for planned in plan.runs]


def make_cells(folder: Path, *cells: str) -> Plan:
    runs = [PlannedRun(f"run-{number}", tuple(cell.split())) for number, cell in enumerate(cells)]
    return Plan(name_grid([run.run_id for run in runs]), folder / "sweeps" / "x", runs)


@pytest.mark.parametrize(
    "cells",
    [
        ("variant=relu seed=0", "variant=gelu seed=1"),  # no grid
        ("variant=relu seed=0", "variant=relu seed=1", "variant=gelu seed=0"),  # one is missing
        ("seed=0 variant=relu", "variant=gelu seed=0"),  # another order
        ("data.files=[a,b]", "data.files=[c,d]"),  # commas of its own
    ],
)
def test_what_is_no_grid_gets_no_sweep_command(tmp_path: Path, cells: tuple[str, ...]) -> None:
    assert spell_sweep(make_cells(tmp_path, *cells)) is None
    assert spell_sweep(make_cells(tmp_path, cells[0])) == cells[0].split()


def test_a_sweep_of_tuned_runs_names_a_command_each(tiny_words: list[str], tmp_path: Path) -> None:
    plan = plan_tiny(tiny_words, tmp_path, "variant=relu,gelu")
    (plan.folder / "tuning.json").touch()
    mends = find(tmp_path, plan.sweep_id).mends
    assert len(mends) == 2
    assert all(mend.command.startswith("glu-bench train ") for mend in mends)
    assert "variant=gelu" in mends[1].command


def test_a_finished_sweep_is_sound_and_one_at_work_is_running(tiny_words: list[str], tmp_path: Path) -> None:
    plan = plan_tiny(tiny_words, tmp_path, "variant=relu,gelu")
    for planned in plan.runs:
        write_end(plan.run(planned), "complete")
    assert find(tmp_path, plan.sweep_id).state == "sound"
    (plan.run(plan.runs[0]).path / "result.json").unlink()
    with hold_lock(plan.run(plan.runs[0]).path):
        assert find(tmp_path, plan.sweep_id).state == "running"


def test_an_edited_plan_is_broken(tiny_words: list[str], tmp_path: Path) -> None:
    plan = plan_tiny(tiny_words, tmp_path, "variant=relu,gelu")
    path = plan.folder / "plan.json"
    path.write_text(path.read_text().replace("variant=relu", "variant=glu"))
    found = find(tmp_path, plan.sweep_id)
    assert found.state == "broken"
    assert "checksum" in found.problems[0]
    subprocess.run(shlex.split(found.mends[0].command), check=True)
    assert plan_tiny(tiny_words, tmp_path, "variant=relu,gelu").sweep_id == plan.sweep_id
    read_record(path)


def test_a_run_folder_without_settings(tiny_words: list[str], tmp_path: Path, dead: int) -> None:
    plan = plan_tiny(tiny_words, tmp_path, "variant=relu,gelu")
    planned, unknown = plan.run(plan.runs[0]).path, tmp_path / "runs" / "relu-pico-text-s0-0123456789"
    for folder in (planned, unknown):
        folder.mkdir(parents=True)
        (folder / f".config.yaml.{dead}.tmp").touch()
    empty, stray = [f for f in diagnose_outputs(tmp_path) if f.path.is_relative_to(planned)]
    assert (empty.state, stray.state) == ("leftover", "leftover")
    assert "killed before it began" in empty.holds
    assert str(dead) in stray.holds
    (planned / "checkpoints").mkdir()
    (unknown / "checkpoints").mkdir()
    known, lost = find(tmp_path, planned.name), find(tmp_path, unknown.name)
    assert known.state == lost.state == "broken"
    assert "config.yaml: not there" in known.problems[0]
    assert known.mends[0].command.startswith("glu-bench train ")
    assert [mend.command for mend in lost.mends] == [f"rm -r {unknown}"]


def test_what_does_not_belong_among_runs_and_sweeps(tmp_path: Path) -> None:
    for name in ("runs/.x.import.tmp", "runs/notes", "sweeps/never-planned"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "runs" / "notes" / "read.me").touch()
    (tmp_path / "runs" / "a file; with 'signs'").touch()
    (tmp_path / "runs" / "link").symlink_to(tmp_path)
    (tmp_path / "sweeps" / "file").touch()
    found = {finding.path.name: finding for finding in diagnose_outputs(tmp_path)}
    states = {name: finding.state for name, finding in found.items()}
    assert states.pop("link") == "broken"
    assert set(states.values()) == {"leftover"}
    assert set(states) == {".x.import.tmp", "notes", "never-planned", "a file; with 'signs'", "file"}
    assert "no run: it holds read.me" in found["notes"].holds
    for finding in found.values():
        subprocess.run(["sh", "-ec", finding.mends[0].command], check=True)
    assert diagnose_outputs(tmp_path) == []
    assert tmp_path.is_dir()


def test_an_import_at_work_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "runs" / ".x.import.tmp").mkdir(parents=True)
    with hold_lock(tmp_path / "runs"):
        assert diagnose_outputs(tmp_path) == []


def test_folders_of_ranks_whose_launcher_is_gone(tmp_path: Path, dead: int) -> None:
    run = tmp_path / "runs" / "some-run"
    for name in (f"{dead}-aaaa", f"{os.getpid()}-bbbb", "none-29500"):
        (tmp_path / ".ranks" / name).mkdir(parents=True)
    (tmp_path / ".ranks" / "none-29500" / "run").write_text(str(run))
    found = [finding for finding in diagnose_outputs(tmp_path) if finding.kind == "processes"]
    assert [finding.path.name for finding in found] == [f"{dead}-aaaa", "none-29500"]
    assert "of some-run" in found[1].holds
    run.mkdir(parents=True)
    with hold_lock(run):
        names = [finding.path.name for finding in diagnose_outputs(tmp_path) if finding.kind == "processes"]
        assert names == [f"{dead}-aaaa"]
