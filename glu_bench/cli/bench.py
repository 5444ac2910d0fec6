"""glu-bench bench: what things cost, against peers and the machine's limit."""

from __future__ import annotations

import typer

app = typer.Typer(
    help="Cost, against peers and the machine's limit.", no_args_is_help=True, rich_markup_mode=None
)
