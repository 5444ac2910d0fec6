"""What needs a process of its own: signals, pipes, the environment."""

from __future__ import annotations

from tests.conftest import Command


def test_help_is_quick_and_needs_no_torch(run_command: Command) -> None:
    ended = run_command("--help", env=[("PYTHONPROFILEIMPORTTIME", "1")])
    assert ended.code == 0
    assert {"train", "sweep", "compare"} <= set(ended.out.split())
    imported = {line.rsplit("|", 1)[-1].strip().split(".")[0] for line in ended.err.splitlines()}
    assert "typer" in imported
    assert imported.isdisjoint({"torch", "numpy", "datasets", "hydra", "omegaconf", "matplotlib", "plotly"})
