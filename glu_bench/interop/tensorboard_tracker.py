"""A run as TensorBoard shows it: tensorboard --logdir outputs/tensorboard."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from glu_bench.config_file import render_config
from glu_bench.train.events import Started

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

NOT_CURVES = ("step", "n_steps")


class TensorBoardTracker:
    """Writes event files under <folder>/<run id>/."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.writer: SummaryWriter | None = None

    def start(self, event: Started) -> None:
        """Open the run's event file; points past the checkpoint it goes on from are dropped."""
        from torch.utils.tensorboard import SummaryWriter

        self.writer = SummaryWriter(
            str(self.folder / event.run.run_id), purge_step=event.resumed_step + 1, flush_secs=10
        )
        text = "\n".join(f"    {line}" for line in render_config(event.config).splitlines())
        self.writer.add_text("configuration", text, event.resumed_step)

    def log(self, row: dict[str, Any]) -> None:
        """One point a curve."""
        assert self.writer is not None
        for name, value in row.items():
            if name not in NOT_CURVES and isinstance(value, int | float):
                self.writer.add_scalar(name, value, row["step"])

    def finish(self, record: dict[str, Any]) -> None:
        """The final numbers, at the last step."""
        assert self.writer is not None
        for name, value in record.items():
            if isinstance(value, int | float) and not isinstance(value, bool):
                self.writer.add_scalar(f"final/{name}", value, record["steps"])

    def close(self) -> None:
        """Write out what is waiting."""
        if self.writer is not None:
            self.writer.close()
