"""glu-bench runs import: finished runs from another machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from glu_bench.cli.options import AsJson, OutputDir, Quiet
from glu_bench.files import OUTPUTS


def import_runs(
    folders: Annotated[
        list[Path],
        typer.Argument(metavar="FOLDER", help="A run folder, a folder of them, or an outputs folder."),
    ],
    *,
    output_dir: OutputDir = OUTPUTS,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Take in finished runs of another machine, each verified.

    What is there and equal is skipped.

    Example: glu-bench runs import copied-from-the-cluster/outputs
    """
    from glu_bench.errors import DataError
    from glu_bench.runs.transfer import find_foreign
    from glu_bench.runs.transfer import import_runs as take_in
    from glu_bench.show.console import make_stderr, make_stdout, plain, print_json

    sources = [source for folder in folders for source in find_foreign(folder)]
    stdout, stderr = make_stdout(), make_stderr()
    done = []
    for each in take_in(sources, output_dir):
        done.append(each)
        if not as_json and not quiet and each.status != "refused":
            reason = f" ({each.reason})" if each.reason else ""
            stdout.print(plain(f"{each.status}: {each.run_id or each.source}{reason}"), soft_wrap=True)
    refused = [each for each in done if each.status == "refused"]
    # an unfinished run beside others is left where it is; one that was named alone is a mistake
    refused += [each for each in done if each.status == "unfinished" and each.source in folders]
    if as_json:
        print_json(
            {
                "runs": [
                    {
                        "source": str(each.source),
                        "run_id": each.run_id,
                        "status": each.status,
                        "reason": each.reason,
                    }
                    for each in done
                ]
            }
        )
    elif not quiet:
        counts = ", ".join(
            f"{sum(each.status == status for each in done)} {status}"
            for status in ("imported", "present", "unfinished", "refused")
        )
        stderr.print(plain(f"{len(done)} runs: {counts}"))
    if refused:
        raise DataError("\n".join(f"refused {each.source}: {each.reason}" for each in refused))
