"""glu-bench runs prune: space back, no result lost."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from glu_bench.cli.options import AsJson, OutputDir, Quiet
from glu_bench.files import OUTPUTS


def prune(
    *,
    checkpoints: Annotated[
        bool, typer.Option("--checkpoints", help="All checkpoints of complete runs but the last.")
    ] = False,
    interrupted: Annotated[
        bool, typer.Option("--interrupted", help="Whole runs that were interrupted.")
    ] = False,
    failed: Annotated[bool, typer.Option("--failed", help="Whole runs that failed.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would go and stop.")] = False,
    output_dir: OutputDir = OUTPUTS,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Delete checkpoints and runs nobody needs; shows, then asks.

    Example: glu-bench runs prune --checkpoints --failed
    """
    from glu_bench.errors import ConfigError
    from glu_bench.runs.pruning import find_prunings
    from glu_bench.runs.pruning import prune as delete
    from glu_bench.show.console import make_stderr, plain, print_json
    from glu_bench.show.numbers import binary_size

    if not (checkpoints or interrupted or failed):
        raise ConfigError("say what may go: --checkpoints, --interrupted, --failed")
    statuses = [name for name, asked in (("interrupted", interrupted), ("failed", failed)) if asked]
    found, remarks = find_prunings(output_dir, checkpoints=checkpoints, statuses=statuses)
    n_bytes = sum(each.n_bytes for each in found)
    stderr = make_stderr()
    if not quiet:
        for each in found:
            stderr.print(plain(f"{binary_size(each.n_bytes):>10}  {each.what}  {each.path}"))
        stderr.print(plain(f"{len(found)} folders, {n_bytes:,} bytes ({binary_size(n_bytes)})"))
        for remark in remarks:
            stderr.print(plain(f"note: {remark}"))
    if found and not dry_run and not yes:
        if not sys.stdin.isatty():
            raise ConfigError("nobody to ask; --yes deletes without a question")
        dry_run = not typer.confirm("delete them?", err=True)
    gone = [] if dry_run else list(delete(found))
    if as_json:
        print_json(
            {
                "found": [
                    {
                        "run_id": each.run.path.name,
                        "what": each.what,
                        "bytes": each.n_bytes,
                        "path": str(each.path),
                    }
                    for each in found
                ],
                "n_deleted": len(gone),
                "deleted_bytes": sum(each.n_bytes for each in gone),
            }
        )
    elif not quiet and not dry_run:
        stderr.print(plain(f"deleted {len(gone)}, {sum(each.n_bytes for each in gone):,} bytes freed"))
