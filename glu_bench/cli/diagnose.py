"""glu-bench runs doctor: what is wrong with run folders, and what mends it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from glu_bench.cli.completion import complete_run
from glu_bench.cli.options import AsJson, OutputDir, Quiet
from glu_bench.files import OUTPUTS


def diagnose(
    runs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="RUN",
            help="Run ids, prefixes or folders; nothing: all that lies under the output folder.",
            autocompletion=complete_run,
        ),
    ] = None,
    *,
    output_dir: OutputDir = OUTPUTS,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Explain broken and unfinished runs, and what mends each.

    Sweeps too; what mends each is a command to run. Exits with 3 if anything is broken, for which
    what is unfinished or left over does not count.

    Example: glu-bench runs doctor
    """
    import dataclasses

    from glu_bench.errors import DataError
    from glu_bench.runs.folder import find_run
    from glu_bench.show.console import make_stderr, make_stdout, plain, print_json
    from glu_bench.show.diagnosis import count_states, render_diagnosis
    from glu_bench.study.outputs import diagnose_entry, diagnose_outputs, load_planned_words

    if runs:
        found = []
        for text in runs:
            path = _find_folder(text, output_dir) or find_run(text, output_dir).path
            place = path.parent.parent if path.parent.name == "runs" else output_dir
            found += diagnose_entry(path, place, load_planned_words(place))
    else:
        found = diagnose_outputs(output_dir)
    counts = count_states(found)
    if as_json:
        rows = [dataclasses.asdict(finding) | {"path": str(finding.path)} for finding in found]
        print_json({"counts": counts, "findings": rows})
    else:
        shown = found if runs else [finding for finding in found if finding.state != "sound"]
        stdout = make_stdout()
        for line in render_diagnosis(shown):
            stdout.print(line, soft_wrap=True)
        if not quiet:
            summary = ", ".join(f"{n} {state}" for state, n in counts.items() if n) or "nothing there"
            make_stderr().print(plain(f"{output_dir}: {summary}"))
    if counts["broken"]:
        raise DataError(f"{counts['broken']} of {len(found)} are broken")


def _find_folder(text: str, output_dir: Path) -> Path | None:
    """A folder that is named in full, be it a run or what is left of one."""
    for path in (output_dir / "runs" / text, Path(text)):
        try:
            if path.is_dir() or path.is_symlink():
                return path
        except (OSError, ValueError):  # too long for a path, or a NUL in it
            return None
    return None
