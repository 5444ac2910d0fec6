"""What the README and the page of the reference study print of published results, written by the commands.

A block `console` whose command reads outputs/reference is followed by a block `text`, or by markdown
between comments, which is what that command prints. Written anew from the results:

    python -m tests.shown
"""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

REPO = Path(__file__).resolve().parents[1]
PAGES = (REPO / "README.md", REPO / "outputs/reference/README.md")
BLOCK = re.compile(
    r"^```console\n(?P<command>glu-bench [^\n]*outputs/reference[^\n]*)\n```\n\n"
    r"(?P<open>```text\n|<!-- printed -->\n\n)(?P<printed>.*?)(?P<close>\n```|\n\n<!-- end -->)$",
    re.DOTALL | re.MULTILINE,
)


@dataclass(frozen=True)
class Shown:
    """A command on a page and what the page says it prints."""

    page: Path
    command: str
    printed: str


def list_shown(page: Path) -> list[Shown]:
    """All such blocks of a page, in order."""
    text = page.read_text(encoding="utf-8")
    return [Shown(page, found["command"], found["printed"]) for found in BLOCK.finditer(text)]


def trim(printed: str) -> str:
    """Without blanks at the ends of lines, where a table pads its cells, and of the whole."""
    return "\n".join(line.rstrip() for line in printed.splitlines()).strip("\n")


def write_page(page: Path, run: Callable[[list[str]], str]) -> None:
    """Put what the commands print now into the page."""

    def put(found: re.Match[str]) -> str:
        printed = trim(run(shlex.split(found["command"])[1:]))
        return f"```console\n{found['command']}\n```\n\n{found['open']}{printed}{found['close']}"

    page.write_text(BLOCK.sub(put, page.read_text(encoding="utf-8")), encoding="utf-8")


def _run(words: list[str]) -> str:
    command = [sys.executable, "-m", "glu_bench", *words]
    return subprocess.run(command, cwd=REPO, check=True, capture_output=True, text=True).stdout


if __name__ == "__main__":
    for each in PAGES:
        write_page(each, _run)
