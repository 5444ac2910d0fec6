"""What `runs doctor` found: what is there, what is wrong since when, and the command that mends it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.text import Text

from glu_bench.runs.diagnosis import STATES, Finding
from glu_bench.show.console import plain

STYLES = {
    "sound": "green",
    "running": "green",
    "unfinished": "yellow",
    "leftover": "dim",
    "broken": "bold red",
}
MAX_MENDS = 6


def render_diagnosis(found: Sequence[Finding]) -> Iterator[Text]:
    """Lines, the state first; commands stand alone on a line, to be copied."""
    for finding in found:
        line = Text(f"{finding.state:<11}", style=STYLES[finding.state])
        line.append_text(plain(finding.path, style="not bold not dim default"))
        yield line
        since = "" if finding.since is None else f"; last written {finding.since}"
        yield plain(f"           {finding.holds}{since}")
        for problem in finding.problems:
            yield plain(f"           {problem}")
        for mend in finding.mends[:MAX_MENDS]:
            yield plain(f"  {mend.command}", style="bold")
            yield plain(f"           {mend.effect}")
        if len(finding.mends) > MAX_MENDS:
            yield plain(f"           … and {len(finding.mends) - MAX_MENDS} more, in --json")


def count_states(found: Sequence[Finding]) -> dict[str, int]:
    """How many findings are in each state."""
    return {state: sum(finding.state == state for finding in found) for state in STATES}
