"""Run folders of somebody who means harm: changed, and sealed again with checksums that agree."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from glu_bench import schema
from glu_bench.config_file import read_config, render_config
from glu_bench.files import sha256_file
from glu_bench.runs.folder import Run, make_run_id
from glu_bench.runs.record import CHECKSUM, add_checksum


class Payload:
    """Unpickled it makes a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch '{self.marker}'",)


def make_pickle(marker: Path) -> bytes:
    """A pickle that makes a file when it is opened."""
    return pickle.dumps(Payload(marker))


def copy_run(run: Run, output_dir: Path, name: str = "") -> Path:
    """A run as it lies under an output folder of its own, for a test to spoil."""
    target = output_dir / "runs" / (name or run.path.name)
    shutil.copytree(run.path, target, ignore=shutil.ignore_patterns(".lock*"))
    return target


def seal_checkpoint(checkpoint: Path) -> None:
    """Write the checksums of its files, as they are now, into the manifest."""
    manifest = json.loads((checkpoint / "manifest.json").read_text())
    manifest["sha256"] = {name: sha256_file(checkpoint / name) for name in manifest["sha256"]}
    (checkpoint / "manifest.json").write_text(json.dumps(manifest))


def change_result(run: Path, **changes: Any) -> None:
    """Change the final record and give it the checksum of what it then says."""
    record = json.loads((run / "result.json").read_text())
    del record[CHECKSUM]
    (run / "result.json").write_text(json.dumps(add_checksum({**record, **changes})))


def change_environment(run: Path, **changes: Any) -> None:
    """Change environment.json, which has no checksum."""
    facts = json.loads((run / "environment.json").read_text())
    (run / "environment.json").write_text(json.dumps({**facts, **changes}))


def change_config(run: Path, change: Callable[[schema.Config], object]) -> str:
    """Change the configuration, and the id everywhere to the one that it then hashes to."""
    config = read_config(run / "config.yaml")
    change(config)
    facts = json.loads((run / "environment.json").read_text())
    run_id = make_run_id(config, facts)
    (run / "config.yaml").write_text(render_config(config), encoding="utf-8")
    change_environment(run, run_id=run_id)
    change_result(run, run_id=run_id)
    for checkpoint in (run / "checkpoints").iterdir():
        manifest = json.loads((checkpoint / "manifest.json").read_text())
        (checkpoint / "manifest.json").write_text(json.dumps({**manifest, "run_id": run_id}))
    return run_id
