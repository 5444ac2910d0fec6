"""Foreign run folders: what verifies is taken in whole, nothing else leaves a trace."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from glu_bench.errors import ConfigError
from glu_bench.runs import transfer
from glu_bench.runs.checkpoint import list_checkpoints
from glu_bench.runs.folder import Run, list_runs
from glu_bench.runs.integrity import hash_parts, verify_run
from glu_bench.runs.record import write_record
from glu_bench.runs.transfer import find_foreign, import_runs


@pytest.fixture
def foreign(finished_run: Run, tmp_path: Path) -> Path:
    """An outputs folder from elsewhere with one finished run that a test may spoil."""
    outputs = tmp_path / "elsewhere"
    shutil.copytree(finished_run.path, outputs / "runs" / finished_run.path.name)
    return outputs


def tree(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def take_in(outputs: Path, here: Path) -> transfer.Transfer:
    (done,) = import_runs(find_foreign(outputs), here)
    return done


def test_a_sound_run_arrives_whole(foreign: Path, tmp_path: Path) -> None:
    done = take_in(foreign, tmp_path / "here")
    assert done.status == "imported"
    (run,) = list_runs(tmp_path / "here")
    assert run.status() == "complete"
    assert verify_run(run) == []
    kept = {name: content for name, content in tree(done.source).items() if not name.startswith(".lock")}
    assert tree(run.path) == kept


def test_a_trace_stays_where_it_was_taken(foreign: Path, tmp_path: Path) -> None:
    (next((foreign / "runs").iterdir()) / "trace.json.gz").write_bytes(b"any")
    assert take_in(foreign, tmp_path / "here").status == "imported"
    (run,) = list_runs(tmp_path / "here")
    assert not (run.path / "trace.json.gz").exists()


@pytest.mark.parametrize("at", ["", "runs", "run"])
def test_any_of_the_three_folders_may_be_named(foreign: Path, at: str) -> None:
    run = next((foreign / "runs").iterdir())
    folder = run if at == "run" else foreign / at
    assert [path.name for path in find_foreign(folder)] == [run.name]


def test_a_second_import_skips(foreign: Path, tmp_path: Path) -> None:
    take_in(foreign, tmp_path / "here")
    before = tree(tmp_path / "here")
    assert take_in(foreign, tmp_path / "here").status == "present"
    assert tree(tmp_path / "here") == before


def test_another_run_of_the_same_id_is_refused(foreign: Path, tmp_path: Path) -> None:
    run_id = str(take_in(foreign, tmp_path / "here").run_id)
    rows = foreign / "runs" / run_id / "metrics.jsonl"
    rows.write_text(rows.read_text().replace('"loss_nats": ', '"loss_nats": 1'))
    run = Run(rows.parent)
    write_record(run.path / "result.json", run.result() | {"files_sha256": hash_parts(run)})
    before = tree(tmp_path / "here")
    done = take_in(foreign, tmp_path / "here")
    assert done.status == "refused"
    assert "differs in metrics.jsonl" in str(done.reason)
    assert tree(tmp_path / "here") == before


def test_a_run_without_checkpoints_is_taken(foreign: Path, tmp_path: Path) -> None:
    shutil.rmtree(next((foreign / "runs").iterdir()) / "checkpoints")
    assert take_in(foreign, tmp_path / "here").status == "imported"


def test_an_unfinished_run_stays(foreign: Path, tmp_path: Path) -> None:
    (next((foreign / "runs").iterdir()) / "result.json").unlink()
    assert take_in(foreign, tmp_path / "here").status == "unfinished"


def test_strays_of_a_killed_run_stay_behind(foreign: Path, tmp_path: Path) -> None:
    run = next((foreign / "runs").iterdir())
    (run / "checkpoints" / "corrupt-step-00000002").mkdir()
    (run / "checkpoints" / ".step-00000004.77.tmp").mkdir()
    assert take_in(foreign, tmp_path / "here").status == "imported"
    names = {path.name for path in (tmp_path / "here").rglob("*")}
    assert not any(name.startswith(("corrupt", ".step")) for name in names)


def replace_by_link(path: Path) -> None:
    target = path.with_name("away")
    path.rename(target)
    target.rename(path.parents[2] / "away")
    path.symlink_to(path.parents[2] / "away")


def edit_result(run: Path) -> None:
    record = json.loads((run / "result.json").read_text())
    (run / "result.json").write_text(json.dumps(record | {"test_loss_nats": 0.001}))


def rename_id(run: Path) -> None:
    facts = json.loads((run / "environment.json").read_text())
    (run / "environment.json").write_text(json.dumps(facts | {"run_id": "../../../x"}))


def drop_id(run: Path) -> None:
    facts = json.loads((run / "environment.json").read_text())
    del facts["run_id"]
    (run / "environment.json").write_text(json.dumps(facts))


def newest(run: Path) -> Path:
    return list_checkpoints(run / "checkpoints")[-1]


SPOIL: dict[str, Callable[[Path], object]] = {
    "edited setting": lambda run: (run / "config.yaml").write_text(
        (run / "config.yaml").read_text().replace("seed: 0", "seed: 3")
    ),
    "tag in yaml": lambda run: (run / "config.yaml").write_text("!!python/object/apply:os.system [x]\n"),
    "edited result": edit_result,
    "torn result": lambda run: os.truncate(run / "result.json", 30),
    "changed windows": lambda run: (run / "blocks.safetensors").write_bytes(b"x"),
    "changed weights": lambda run: (newest(run) / "model.safetensors").write_bytes(b"pickle"),
    "a manifest less": lambda run: (newest(run) / "manifest.json").unlink(),
    "another id": rename_id,
    "no id": drop_id,
    "a file more": lambda run: (run / "sitecustomize.py").write_text("1/0"),
    "a file more in a checkpoint": lambda run: (newest(run) / "model.pt").write_text("x"),
    "a folder more": lambda run: (run / "src").mkdir(),
    "a link for a file": lambda run: replace_by_link(run / "metrics.jsonl"),
    "a link in a checkpoint": lambda run: replace_by_link(newest(run) / "state.json"),
    "a link for a folder": lambda run: replace_by_link(run / "checkpoints"),
    "a fifo": lambda run: ((run / "metrics.jsonl").unlink(), os.mkfifo(run / "metrics.jsonl")),
    "an absurd size": lambda run: os.truncate(run / "config.yaml", 2**21),
    "nothing but a result": lambda run: (run / "environment.json").unlink(),
}


@pytest.mark.parametrize("how", SPOIL)
def test_what_does_not_verify_is_refused(foreign: Path, tmp_path: Path, how: str) -> None:
    run = next((foreign / "runs").iterdir())
    SPOIL[how](run)
    done = take_in(foreign, tmp_path / "here")
    assert done.status == "refused"
    assert run.name in str(done.reason)
    left = [path.name for path in (tmp_path / "here").rglob("*")]
    assert set(left) <= {"runs", ".lock"}
    assert not (tmp_path / "x").exists()


def test_a_linked_run_folder_is_refused(foreign: Path, tmp_path: Path) -> None:
    run = next((foreign / "runs").iterdir())
    run.rename(tmp_path / "real")
    run.symlink_to(tmp_path / "real")
    assert take_in(foreign, tmp_path / "here").status == "refused"


def test_a_source_that_changes_while_it_is_copied_is_refused(
    foreign: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real_copy = transfer._copy_file

    def copy(source: Path, target: Path) -> None:
        real_copy(source, target)
        if source.name == "model.safetensors":
            target.write_bytes(target.read_bytes()[:-1] + b"\0")

    monkeypatch.setattr(transfer, "_copy_file", copy)
    assert take_in(foreign, tmp_path / "here").status == "refused"
    assert list_runs(tmp_path / "here") == []


def test_one_broken_run_keeps_no_other_out(foreign: Path, tmp_path: Path) -> None:
    run = next((foreign / "runs").iterdir())
    broken = Path(shutil.copytree(run, run.with_name("a-broken-one")))
    (broken / "blocks.safetensors").write_bytes(b"x")
    statuses = [each.status for each in import_runs(find_foreign(foreign), tmp_path / "here")]
    assert statuses == ["refused", "imported"]


def test_a_folder_without_runs_is_a_mistake(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no run folder"):
        find_foreign(tmp_path)


def test_a_run_with_a_tokenizer_of_its_own_comes_with_it(
    train: Callable[..., dict[str, object]], tmp_path: Path
) -> None:
    record = train("tokenizer=bpe", "tokenizer.vocab_size=300", output_dir=tmp_path / "elsewhere")
    assert take_in(tmp_path / "elsewhere", tmp_path / "here").status == "imported"
    (run,) = list_runs(tmp_path / "here")
    assert run.path.name == record["run_id"]
    assert run.load_tokenizer().vocab_size == 300
    path = tmp_path / "elsewhere" / "runs" / run.path.name / "tokenizer.json"
    path.write_text(path.read_text().replace("Ġ", "a", 1) + " ")
    shutil.rmtree(run.path)
    assert take_in(tmp_path / "elsewhere", tmp_path / "here").status == "refused"
