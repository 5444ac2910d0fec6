"""Where words go: results to stdout, progress and remarks to stderr, and nothing unescaped."""

from __future__ import annotations

import json
import os
import sys
from typing import Any

from rich.console import Console
from rich.text import Text

from glu_bench.errors import show_controls


class Results(Console):
    """A console whose reader may leave: `glu-bench … | head -1` is no failure."""

    def on_broken_pipe(self) -> None:
        """Write no more and end well; rich would end with 1."""
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(0)


def make_stdout() -> Console:
    """For results. Piped output is as wide as its content, not cut to a terminal."""
    return Results(
        highlight=False, width=None if sys.stdout.isatty() else 200, soft_wrap=not sys.stdout.isatty()
    )


def make_stderr() -> Console:
    """For progress, remarks and errors."""
    return Console(stderr=True, highlight=False, soft_wrap=True)


def is_live(console: Console) -> bool:
    """Whether a moving screen is wanted there: a real terminal, colours not refused, no CI."""
    refused = any(os.environ.get(name) for name in ("NO_COLOR", "CI")) or os.environ.get("TERM") == "dumb"
    return console.is_terminal and not refused


def plain(text: object, style: str = "") -> Text:
    """Text from outside as text: no markup is read, control characters become visible."""
    return Text(show_controls(str(text)), style=style)


def print_text(text: str) -> None:
    """Text for a file on stdout, to the letter: no wrapping, no colour, a `?` for what has no code there."""
    encoding = sys.stdout.encoding or "utf-8"
    sys.stdout.write(text.encode(encoding, errors="replace").decode(encoding))


def print_json(value: dict[str, Any]) -> None:
    """One strict JSON object on stdout, schema_version first."""
    as_ascii = (sys.stdout.encoding or "").lower() not in ("utf-8", "utf8")
    text = json.dumps({"schema_version": 1, **value}, ensure_ascii=as_ascii, allow_nan=False)
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:  # a file's name that is no UTF-8
        text = json.dumps({"schema_version": 1, **value}, allow_nan=False)
    print(text)
