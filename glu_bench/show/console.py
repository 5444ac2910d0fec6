"""Where words go: results to stdout, progress and remarks to stderr, and nothing unescaped."""

from __future__ import annotations

import json
import os
import sys
from typing import Any, TextIO, cast

from rich.console import Console
from rich.text import Text

from glu_bench.errors import show_controls


def drop_stream(stream: TextIO) -> None:
    """Send what a stream still holds, and all that comes, nowhere: else the interpreter ends with 120."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


class Results(Console):
    """A console whose reader may leave: `glu-bench … | head -1` is no failure."""

    def on_broken_pipe(self) -> None:
        """Leave it to the command line; rich would end with 1."""
        raise


class Remarks:
    """Stderr that nobody may read any more, a terminal closed or a pipe broken: no reason to stop work."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    def write(self, text: str) -> int:
        """Write, or lose the text."""
        try:
            return self.stream.write(text)
        except OSError:
            drop_stream(self.stream)
            return len(text)

    def flush(self) -> None:
        """Flush, or lose what waits."""
        try:
            self.stream.flush()
        except OSError:
            drop_stream(self.stream)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


def make_stdout() -> Console:
    """For results. Piped output is as wide as its content, not cut to a terminal."""
    return Results(
        highlight=False, width=None if sys.stdout.isatty() else 200, soft_wrap=not sys.stdout.isatty()
    )


def make_stderr() -> Console:
    """For progress, remarks and errors."""
    return Console(file=cast(TextIO, Remarks(sys.stderr)), highlight=False, soft_wrap=True)


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
