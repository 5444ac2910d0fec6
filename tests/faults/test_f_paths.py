"""Group F: names and links lead nowhere but where they should."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from glu_bench.cost.compare import write_runs
from glu_bench.runs.folder import Run
from glu_bench.runs.record import write_record
from tests.faults.conftest import Here, Processes, newest_checkpoint, snapshot, tiny_command
from tests.faults.foreign import change_config, change_environment, copy_run

OUTSIDE = ("../../evil", "/tmp/evil", "a/../../b", ".", "..", "a\0b", "n" * 300)


@pytest.fixture
def sentinel(tmp_path: Path) -> Path:
    """A folder beside the output folder that nothing may change."""
    folder = tmp_path / "evil"
    folder.mkdir()
    (folder / "kept").write_text("kept")
    return folder


# --- F4


def check_plans(names: Iterable[str], here: Here, tmp_path: Path) -> None:
    """A plan for each name, its checksum in order: none is read, and nothing changes."""
    write_runs(tmp_path / "outputs", 2)
    sweep = tmp_path / "outputs" / "sweeps" / "theirs"
    sweep.mkdir(parents=True)
    before = snapshot(tmp_path)
    for name in names:
        entry = {"run_id": name, "words": ["seed=1"], "identity": {}}
        write_record(sweep / "plan.json", {"schema_version": 1, "runs": [entry]})
        ended = here("compare", str(sweep))
        assert (ended.code, len(ended.err.splitlines())) == (3, 1), ended.err
        assert "is not a run id" in ended.err
    (sweep / "plan.json").unlink()
    assert snapshot(tmp_path) == before


def test_f4_a_plan_whose_runs_lie_elsewhere(here: Here, tmp_path: Path, sentinel: Path) -> None:
    """A stranger's plan.json, its checksum in order, with a run id that leads out of the folder, or
    holds a NUL.

    Exit 3 in one line; nothing outside has changed.
    """
    check_plans(("../../evil", "a\0b"), here, tmp_path)


@pytest.mark.slow
def test_f4_names_that_lead_elsewhere(here: Here, tmp_path: Path, sentinel: Path) -> None:
    """The same with an absolute path, `a/../../b`, `.`, `..`, 300 letters; the first and the last as names
    of runs and sweeps on the command line.

    Exit 3 for a plan and 2 for a name, in one line each; nothing outside has changed.
    """
    check_plans((*OUTSIDE[1:5], OUTSIDE[-1]), here, tmp_path)
    before = snapshot(tmp_path)
    for name in ("../../evil", "n" * 300):
        for words in (("compare", name), ("runs", "show", name), ("status", name)):
            ended = here(*words)
            assert (ended.code, len(ended.err.splitlines())) == (2, 1), ended.err
    assert snapshot(tmp_path) == before


@pytest.mark.slow
def test_f4_names_of_sweeps(here: Here, tiny_words: list[str], tmp_path: Path, sentinel: Path) -> None:
    """`--name` of a sweep with the same names (no NUL, which no argument can hold).

    Exit 2; no sweep is made, inside the output folder or outside.
    """
    for name in OUTSIDE:
        if "\0" in name:
            continue
        ended = here("sweep", *tiny_words, "variant=relu", "--name", name)
        assert ended.code == 2, ended.err
        assert "name" in ended.err
    assert not [path for path in (tmp_path / "outputs").rglob("*") if path.is_file()]
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != "outputs") == ["evil"]
    assert [path.name for path in sentinel.iterdir()] == ["kept"]


@pytest.mark.slow
def test_f4_labels_that_name_a_folder(finished_run: Run, here: Here, tmp_path: Path) -> None:
    """Configurations whose variant, model or text has such a name, the id hashed anew; an environment.json
    that gives such an id; a manifest that names ../../evil. All are imported.

    The import refuses each (3), and leaves nothing.
    """
    theirs = tmp_path / "theirs"
    for at, name in enumerate(OUTSIDE):
        for group, key in (("variant", "name"), ("model", "preset"), ("data", "corpus")):
            run = copy_run(finished_run, theirs, f"{group}-{at}")
            change_config(run, lambda config, g=group, k=key, n=name: setattr(getattr(config, g), k, n))
        run = copy_run(finished_run, theirs, f"id-{at}")
        change_environment(run, run_id=name)
    run = copy_run(finished_run, theirs, "manifest")
    manifest = newest_checkpoint(run) / "manifest.json"
    names = json.loads(manifest.read_text())
    manifest.write_text(json.dumps({**names, "sha256": {"../../evil": "0" * 64}}))
    before = snapshot(tmp_path)
    ended = here("runs", "import", "theirs")
    assert ended.code == 3
    assert "Traceback" not in ended.err
    assert f"{4 * len(OUTSIDE) + 1} refused" in ended.err
    (tmp_path / "outputs" / "runs" / ".lock").unlink()
    assert snapshot(tmp_path) == before


# --- F5

FILES = ("config.yaml", "environment.json", "result.json", "metrics.jsonl", "blocks.safetensors")


def link_file(name: str) -> Callable[[Path], object]:
    """The file goes elsewhere, a link stands in its place."""

    def change(run: Path) -> None:
        away = run.parents[2] / f"away-{run.name}"
        (run / name).rename(away)
        (run / name).symlink_to(away)

    return change


def make_pipe(name: str) -> Callable[[Path], object]:
    """A pipe in place of the file: who opens it waits for ever."""

    def change(run: Path) -> None:
        (run / name).unlink(missing_ok=True)
        os.mkfifo(run / name)

    return change


def test_f5_links_and_pipes_in_a_run_folder(finished_run: Run, processes: Processes, tmp_path: Path) -> None:
    """Run folders in which one file is a link to elsewhere, to /etc/passwd or /dev/zero, or a pipe; whose
    checkpoints are a link; a run folder that is a link itself. All are verified, then shown one by one.

    Each is refused by name (3); no process waits for a pipe.
    """
    outputs = tmp_path / "outputs"
    spoilt: dict[str, Callable[[Path], object]] = {}
    for name in FILES:
        spoilt[f"link-{name}"] = link_file(name)
        if name != "config.yaml":  # without it a folder is no run
            spoilt[f"pipe-{name}"] = make_pipe(name)
    spoilt["passwd"] = lambda run: (
        (run / "result.json").unlink(),
        (run / "result.json").symlink_to("/etc/passwd"),
    )
    spoilt["zero"] = lambda run: (
        (run / "environment.json").unlink(),
        (run / "environment.json").symlink_to("/dev/zero"),
    )
    spoilt["checkpoints"] = link_file("checkpoints")
    for name in ("manifest.json", "state.json", "model.safetensors"):
        spoilt[f"link-of-{name}"] = lambda run, n=name: link_file(
            f"checkpoints/{newest_checkpoint(run).name}/{n}"
        )(run)
        spoilt[f"pipe-of-{name}"] = lambda run, n=name: make_pipe(
            f"checkpoints/{newest_checkpoint(run).name}/{n}"
        )(run)
    for name, change in spoilt.items():
        change(copy_run(finished_run, outputs, name))
    (outputs / "runs" / "itself").symlink_to(copy_run(finished_run, tmp_path / "elsewhere"))
    ended = processes.run("runs", "verify", "--json")
    assert ended.code == 3, ended.err
    sound = [run["run_id"] for run in json.loads(ended.out)["runs"] if run["ok"]]
    assert sound == []
    assert len(json.loads(ended.out)["runs"]) == len(spoilt) + 1
    for name in ("itself", "link-config.yaml", "pipe-environment.json"):
        ended = processes.run("runs", "show", name)
        assert (ended.code, len(ended.err.splitlines())) == (3, 1), ended.err
        assert "a link" in ended.err


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [("eval",), ("inspect",), ("export", "exported"), ("sample",), ("compare",), ("report", "-o", "p.html")],
    ids=lambda words: words[0],
)
def test_f5_commands_on_a_linked_run(
    words: tuple[str, ...], finished_run: Run, processes: Processes, tmp_path: Path
) -> None:
    """A run folder that is a link to another, given to each command that reads runs.

    Exit 3, in one line that names the link; nothing is written.
    """
    verb, *rest = words
    (tmp_path / "outputs" / "runs").mkdir(parents=True)
    link = tmp_path / "outputs" / "runs" / "linked"
    link.symlink_to(copy_run(finished_run, tmp_path / "elsewhere"))
    before = snapshot(tmp_path)
    ended = processes.run(verb, "linked", *rest)
    assert ended.code == 3, ended.err
    assert f"{link.name}: a link, not a run folder" in ended.err
    assert "Traceback" not in ended.err
    assert snapshot(tmp_path) == before


@pytest.mark.slow
def test_f5_nothing_is_written_through_a_link(
    finished_run: Run, processes: Processes, tiny_words: list[str], tmp_path: Path
) -> None:
    """A run folder, not finished, in which a file that training writes is a link to a file outside: the log,
    the record of a failure, the lock and its holder's number; then the same command trains.

    Refused (3), or finished with the link replaced; the file outside is as it was.
    """
    outside = tmp_path / "outside"
    for name, code in (("metrics.jsonl", 3), ("failure.json", 3), (".lock", 3), (".lock.pid", 0)):
        outside.write_text("kept\n")
        run = copy_run(finished_run, tmp_path / "outputs")
        shutil.rmtree(run / "checkpoints")
        (run / "result.json").unlink()
        (run / name).unlink(missing_ok=True)
        (run / name).symlink_to(outside)
        ended = processes.run(*tiny_command(tiny_words))
        assert ended.code == code, (name, ended.err)
        assert outside.read_text() == "kept\n"
        shutil.rmtree(run)
