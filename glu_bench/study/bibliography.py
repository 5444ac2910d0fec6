"""The papers behind variants, optimisers and tests: who wrote them, when, and where a source cites them."""

from __future__ import annotations

import functools
from dataclasses import dataclass

from glu_bench.config import find_config_root
from glu_bench.yaml_file import read_yaml


@dataclass(frozen=True, kw_only=True)
class Paper:
    """One entry of a bibliography; its fields are BibTeX's."""

    key: str
    author: tuple[str, ...]  # first names first; an organisation in {}
    title: str
    year: int
    eprint: str | None = None  # the arXiv number
    cited_as: str | None = None  # words of a source that mean it
    booktitle: str | None = None
    journal: str | None = None
    volume: str | None = None
    pages: str | None = None
    url: str | None = None

    @property
    def short(self) -> str:
        """As a sentence cites it: Hendrycks and Gimpel 2016."""
        names = [name.strip("{}") if name.startswith("{") else name.split()[-1] for name in self.author]
        who = f"{names[0]} et al." if len(names) > 2 else " and ".join(names)
        return f"{who} {self.year}"


@functools.cache
def load_bibliography() -> dict[str, Paper]:
    """All papers by key.

    Raises: ConfigError if the file is not there.
    """
    tree = read_yaml(find_config_root() / "bibliography.yaml")
    return {
        key: Paper(key=key, **{**fields, "author": tuple(fields["author"])}) for key, fields in tree.items()
    }


def find_papers(source: str) -> list[Paper]:
    """The papers that a source's words cite, by arXiv number or by name, in the order of the words."""
    found = {}
    for paper in load_bibliography().values():
        words = [word for word in (paper.eprint, paper.cited_as) if word and word in source]
        if words:
            found[paper.key] = (min(source.index(word) for word in words), paper)
    return [paper for _, paper in sorted(found.values(), key=lambda each: each[0])]
