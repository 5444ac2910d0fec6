"""What the gate installs is pinned, checked, and used as its licence says."""

from __future__ import annotations

import importlib.metadata
import os
import re
import sysconfig
import tomllib
from collections.abc import Iterator

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from tests.conftest import REPO
from tests.licences import read_licence

FOLDER = REPO / ".ci"
UNHASHED = {"torch"}
# what every environment begins with, and what only tests of the wheel leave in one
NOT_OURS = {"glu-bench", "pip", "setuptools", "wheel"}

pytestmark = pytest.mark.skipif(not FOLDER.is_dir(), reason="not a checkout")


def read_pins(name: str) -> dict[str, str]:
    lines = (FOLDER / name).read_text(encoding="utf-8").splitlines()
    requirements = [line.removesuffix(" \\") for line in lines if not line.startswith(" ")]
    assert all(re.fullmatch(r"[a-z0-9-]+==[\w.]+", line) for line in requirements), requirements
    return dict(line.split("==") for line in requirements)


def list_wanted() -> Iterator[Requirement]:
    project = tomllib.loads((REPO / "pyproject.toml").read_text(encoding="utf-8"))
    groups = project["project"]["optional-dependencies"].values()
    wanted = [*project["project"]["dependencies"], *project["build-system"]["requires"]]
    for line in (*wanted, *(line for group in groups for line in group)):
        if canonicalize_name(Requirement(line).name) != "glu-bench":
            yield Requirement(line)


@pytest.mark.parametrize("name", ["constraints.txt", "requirements.txt", "licences.txt"])
def test_no_host_is_named(name: str) -> None:
    text = (FOLDER / name).read_text(encoding="utf-8")
    assert "://" not in text
    assert "@" not in text
    assert {word.partition("=")[0] for word in text.split() if word.startswith("-")} <= {"--hash"}


def test_every_dependency_is_pinned_within_its_range() -> None:
    pins = read_pins("constraints.txt")
    assert list(pins) == sorted(pins)
    for requirement in list_wanted():
        assert requirement.specifier.contains(pins[canonicalize_name(requirement.name)]), requirement


def test_all_but_torch_has_checksums() -> None:
    pins = read_pins("constraints.txt")
    hashed = read_pins("requirements.txt")
    assert hashed == {name: version for name, version in pins.items() if name not in UNHASHED}
    text = (FOLDER / "requirements.txt").read_text(encoding="utf-8")
    for entry in re.split(r"^(?=\S)", text, flags=re.MULTILINE)[1:]:
        checksums = entry.splitlines()[1:]
        assert checksums, entry
        assert all(re.fullmatch(r" +--hash=sha256:[0-9a-f]{64}( \\)?", line) for line in checksums)


def list_installed() -> Iterator[importlib.metadata.Distribution]:
    """What pip put into this environment; not what setuptools keeps inside itself."""
    places = dict.fromkeys(sysconfig.get_path(name) for name in ("purelib", "platlib"))
    return iter(importlib.metadata.distributions(path=list(places)))


@pytest.mark.skipif(os.environ.get("GLU_BENCH_PINNED") != "1", reason="only .ci/run installs what is pinned")
def test_what_is_installed_is_what_is_pinned() -> None:
    pins = read_pins("constraints.txt")
    found = {canonicalize_name(each.name): Version(each.version).public for each in list_installed()}
    found = {name: version for name, version in found.items() if name not in NOT_OURS}
    assert len(found) > 30
    assert {name: pins.get(name) for name in found} == found


def test_licences_are_those_that_the_packages_state() -> None:
    lines = (FOLDER / "licences.txt").read_text(encoding="utf-8").splitlines()
    listed = dict(line.split(": ", 1) for line in lines)
    pins = read_pins("constraints.txt")
    assert set(listed) == set(pins)
    compared = 0
    for each in list_installed():
        name = canonicalize_name(each.name)
        if pins.get(name) == Version(each.version).public:
            assert read_licence(each.metadata) == listed[name], name
            compared += 1
    assert compared > 0
