"""A run for Weights & Biases; offline where there is no key, or as WANDB_MODE says."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, cast

from glu_bench import schema
from glu_bench.train.events import Started


class WandbTracker:
    """Sends rows to one wandb run that bears the run's id; offline ones lie in <folder>/wandb/."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.run: Any = None
        self.finished = False

    def start(self, event: Started) -> None:
        """Begin, or go on with, the wandb run of that id."""
        import wandb

        settings = wandb.Settings(
            silent=True,  # stdout holds results alone
            console="off",
            disable_code=True,
            disable_git=True,
            save_code=False,
            # the command line, the machine's and the person's name may tell what is nobody's business
            x_disable_meta=True,
            x_disable_machine_info=True,
            x_disable_stats=True,
        )
        self.run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "glu-bench"),
            id=event.run.run_id,
            name=event.run.run_id,
            group=event.config.variant.name,
            dir=str(self.folder),
            config=schema.flatten_config(event.config),
            mode=cast(Any, choose_mode()),  # wandb lists the words it knows
            resume="allow",
            settings=settings,
        )

    def log(self, row: dict[str, Any]) -> None:
        """One row at its step."""
        self.run.log({name: value for name, value in row.items() if name != "step"}, step=row["step"])

    def finish(self, record: dict[str, Any]) -> None:
        """The final record as the run's summary."""
        self.run.summary.update(record)
        self.finished = True

    def close(self) -> None:
        """Hand over what is waiting; a run that did not finish is marked so."""
        if self.run is not None:
            self.run.finish(exit_code=0 if self.finished else 1)


def choose_mode() -> str:
    """WANDB_MODE if set; else online with a key and offline without, so nobody is asked for one."""
    given = os.environ.get("WANDB_MODE")
    if given:
        return given
    if os.environ.get("WANDB_API_KEY"):
        return "online"
    netrc = Path(os.environ.get("NETRC") or Path.home() / ".netrc")
    try:
        known = "wandb" in netrc.read_text(encoding="utf-8", errors="replace")
    except OSError:
        known = False
    return "online" if known else "offline"
