"""What `doctor` found, a line each and one below it for what to do."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.text import Text

from glu_bench.interop.machine import Finding
from glu_bench.show.console import plain

STYLES = {"ok": "green", "warning": "yellow", "problem": "bold red"}


def render_findings(found: Sequence[Finding]) -> Iterator[Text]:
    """Lines in which the status comes first, so that they read well in any width."""
    width = max((len(finding.name) for finding in found), default=0)
    for finding in found:
        line = Text(f"{finding.status:<8}", style=STYLES[finding.status])
        line.append_text(plain(f"{finding.name:<{width}}  {finding.found}", style="not bold default"))
        yield line
        if finding.advice:
            yield plain(f"{'':<8}{'':<{width}}  -> {finding.advice}", style="dim")
