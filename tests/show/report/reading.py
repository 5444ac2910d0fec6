"""A page as a browser without JavaScript has it, read by the standard library's parser."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from html.parser import HTMLParser
from typing import Any

VOID = {"meta", "link", "img", "input", "br", "hr", "line", "circle", "path", "use", "rect"}


@dataclass
class Table:
    """Rows of cells: text, and the value it is sorted by."""

    classes: str
    rows: list[list[tuple[str, str]]] = field(default_factory=list)


class Page(HTMLParser):
    """Tags with their attributes, tables, all text outside scripts and styles."""

    def __init__(self, source: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.tables: list[Table] = []
        self.texts: list[str] = []
        self.scripts: list[tuple[str, str]] = []
        self.styles: list[str] = []
        self._inside: list[str] = []
        self._cell: list[str] | None = None
        self._small = False
        self._sort = ""
        self.feed(source)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.tags.append((tag, given))
        self._inside += [] if tag in VOID else [tag]
        if tag == "table":
            self.tables.append(Table(given.get("class") or ""))
        elif tag == "tr":
            self.tables[-1].rows.append([])
        elif tag in ("td", "th"):
            self._cell, self._sort = [], given.get("data-v") or ""
        elif tag == "script":
            self.scripts.append((given.get("type") or "", ""))
        elif tag == "small":
            self._small = True

    def handle_endtag(self, tag: str) -> None:
        while self._inside and self._inside.pop() != tag:
            pass
        if tag in ("td", "th") and self._cell is not None:
            self.tables[-1].rows[-1].append((" ".join("".join(self._cell).split()), self._sort))
            self._cell = None
        if tag == "small":
            self._small = False

    def handle_data(self, data: str) -> None:
        where = self._inside[-1] if self._inside else ""
        if where == "script":
            kind, before = self.scripts[-1]
            self.scripts[-1] = (kind, before + data)
        elif where == "style":
            self.styles.append(data)
        else:
            self.texts.append(data)
            if self._cell is not None and not self._small:
                self._cell.append(data)

    @property
    def text(self) -> str:
        """All that is to be read, spaces made one."""
        return " ".join("".join(self.texts).split())

    def table(self, name: str) -> Table:
        """The first table of a class."""
        return next(table for table in self.tables if name in table.classes.split())

    def data(self) -> dict[str, Any]:
        """What the script draws from."""
        (text,) = [text for kind, text in self.scripts if kind == "application/json"]
        return json.loads(text)  # type: ignore[no-any-return]
