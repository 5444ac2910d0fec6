"""Papers as BibTeX."""

from __future__ import annotations

from collections.abc import Iterable

from glu_bench.errors import show_controls
from glu_bench.study.bibliography import Paper

FIELDS = ("booktitle", "journal", "volume", "pages", "url")


def write_bibtex(papers: Iterable[Paper], unlisted: Iterable[str] = ()) -> str:
    """An entry a paper, each once, by key; sources that no paper stands behind as comments."""
    entries = {paper.key: paper for paper in papers}
    parts = [_write_entry(entries[key]) for key in sorted(entries)]
    # between entries BibTeX ignores everything but an @
    parts += [f"% not a paper: {show_controls(each).replace('@', '(at)')}\n" for each in unlisted]
    return "\n".join(parts)


def _write_entry(paper: Paper) -> str:
    kind = "inproceedings" if paper.booktitle else "article" if paper.journal else "misc"
    fields = {"author": " and ".join(paper.author), "title": f"{{{paper.title}}}", "year": str(paper.year)}
    fields |= {name: value for name in FIELDS if (value := getattr(paper, name))}
    if paper.eprint:
        fields |= {"eprint": paper.eprint, "archivePrefix": "arXiv"}
        if kind == "misc":
            fields["howpublished"] = f"arXiv:{paper.eprint}"
    lines = [f"  {name} = {{{value.replace('&', chr(92) + '&')}}}," for name, value in fields.items()]
    return "\n".join([f"@{kind}{{{paper.key},", *lines, "}"]) + "\n"
