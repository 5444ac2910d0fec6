"""The bibliography holds every paper that a variant cites, as the variant cites it."""

from __future__ import annotations

import re

import pytest

from glu_bench.config import list_group, read_variant
from glu_bench.study.bibliography import find_papers, load_bibliography

# sources that are software or reports without an entry
NO_PAPER = {
    "double_swiglu": "marin-community/marin",
    "leaky_relu2": "parameter-golf",
    "situ_glu": "Kimi K3 report",
    "swiglu_clamp": "transformers",
    "swiglu_mult": "x-transformers",
}
PAPERS = list(load_bibliography().values())
NUMBER = re.compile(r"\b\d{4}\.\d{4,5}\b")  # of arXiv


@pytest.mark.parametrize("name", list_group("variant"))
def test_every_source_of_a_variant_is_known(name: str) -> None:
    source = read_variant(name).source
    assert set(NUMBER.findall(source)) <= {paper.eprint for paper in PAPERS}
    if name in NO_PAPER:
        assert NO_PAPER[name] in source
        assert find_papers(source) == []
    else:
        assert len(find_papers(source)) >= 1


# "Song et al. 2024 (ProSparse), arXiv 2402.13516", "OpenAI 2025, gpt-oss model card, arXiv 2508.10925"
CITED = re.compile(
    r"([A-Z]\w+)(?: et al\.| and \w+)? (\d{4})(?: \([^)]*\))?(?:, [^,;]*)?, arXiv (\d{4}\.\d{5})"
)


def test_author_and_year_are_those_that_variants_name() -> None:
    by_number = {paper.eprint: paper for paper in PAPERS}
    found = {
        (who, int(year), number)
        for name in list_group("variant")
        for who, year, number in CITED.findall(read_variant(name).source)
    }
    assert len(found) >= 18
    for who, year, number in found:
        assert by_number[number].short.split()[0] == who
        assert by_number[number].year == year


@pytest.mark.parametrize("paper", PAPERS, ids=lambda paper: paper.key)
def test_an_entry_is_complete_and_no_older_than_its_number(paper: object) -> None:
    from glu_bench.study.bibliography import Paper

    assert isinstance(paper, Paper)
    assert paper.author
    assert all(name.startswith("{") or len(name.split()) > 1 for name in paper.author)
    assert re.fullmatch(r"[a-z]+\d{4}[a-z]*", paper.key)
    assert str(paper.year) in paper.key
    assert paper.eprint or paper.journal or paper.booktitle or paper.url
    if paper.eprint:
        submitted = 2000 + int(paper.eprint[:2])
        # a paper's year is that of its journal or conference where the sources count so
        assert submitted <= paper.year <= submitted + (2 if paper.booktitle else 0)


def test_no_number_stands_twice() -> None:
    numbers = [paper.eprint for paper in PAPERS if paper.eprint]
    assert len(numbers) == len(set(numbers))


def test_papers_come_in_the_order_of_the_words() -> None:
    source = "Dauphin et al. 2017, arXiv 1612.08083; Shazeer 2020, arXiv 2002.05202; arXiv 9999.00001"
    assert [paper.short for paper in find_papers(source)] == ["Dauphin et al. 2017", "Shazeer 2020"]
    assert [paper.short for paper in find_papers("the gate: Maas et al. 2013")] == ["Maas et al. 2013"]
    assert find_papers("my notebook, page 12") == []


@pytest.mark.parametrize("optimiser", list_group("optim"))
def test_every_optimiser_has_its_paper(optimiser: str) -> None:
    assert len(find_papers(optimiser)) == 1
