"""Writes what the gate installs: constraints.txt, requirements.txt and licences.txt beside this file.

    python3 -m venv /tmp/pin && /tmp/pin/bin/pip install -U pip pip-tools && /tmp/pin/bin/python .ci/pin.py

The newest versions that fit pyproject.toml with all its extras, for the Python that runs this.
requirements.txt has the checksums of every file of each, for `pip --require-hashes`. torch is not
in it: builds of one version for the CPU alone are served from more than one place, with
checksums of their own. Its version stands in constraints.txt, which has all of them.
"""

from __future__ import annotations

import importlib.metadata
import re
import subprocess
import sys
import tarfile
import tempfile
import tomllib
import zipfile
from collections.abc import Iterator
from email import message_from_string
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from tests.licences import read_licence  # noqa: E402

UNHASHED = ("torch",)
# what builds glu-bench, and what is only there as source
BUILD = ("editables", "wheel")
PLAIN = ("--no-header", "--no-annotate", "--no-emit-index-url", "--no-emit-trusted-host")
QUIET = ("--no-emit-find-links", "--no-emit-options", "--quiet", "--allow-unsafe", "--strip-extras")


def compile_pins(work: Path) -> dict[str, list[str]]:
    """Exact requirements and the checksums of each."""
    project = tomllib.loads((HERE.parent / "pyproject.toml").read_text(encoding="utf-8"))
    optional = project["project"]["optional-dependencies"]
    wanted = [*project["project"]["dependencies"], *project["build-system"]["requires"], *BUILD]
    wanted += [line for lines in optional.values() for line in lines if not line.startswith("glu-bench[")]
    (work / "all.in").write_text("\n".join(wanted), encoding="utf-8")
    out = work / "all.txt"
    command = [sys.executable, "-m", "piptools", "compile", "--generate-hashes", *PLAIN, *QUIET]
    subprocess.run([*command, "-o", str(out), str(work / "all.in")], check=True)
    pins: dict[str, list[str]] = {}
    for line in out.read_text(encoding="utf-8").splitlines():
        words = line.strip().removesuffix("\\").split()
        if words and re.match(r"[\w.-]+==", words[0]):
            name, _, version = words[0].partition("==")
            pins[f"{name}=={version.partition('+')[0]}"] = []
        elif words and words[0].startswith("--hash="):
            pins[list(pins)[-1]].append(words[0])
    return dict(sorted(pins.items(), key=lambda pin: pin[0].partition("==")[0]))


def read_licences(pins: dict[str, list[str]], work: Path) -> Iterator[str]:
    """A line a distribution, from the metadata in the very files."""
    (work / "pins.txt").write_text("\n".join(pins), encoding="utf-8")
    command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", str(work / "files")]
    subprocess.run([*command, "-r", str(work / "pins.txt")], check=True)
    for path in (work / "files").iterdir():
        if path.suffix == ".whl":
            with zipfile.ZipFile(path) as wheel:
                (name,) = (n for n in wheel.namelist() if re.fullmatch(r"[^/]+\.dist-info/METADATA", n))
                text = wheel.read(name).decode("utf-8")
        else:
            with tarfile.open(path) as source:
                (member,) = (m for m in source.getmembers() if re.fullmatch(r"[^/]+/PKG-INFO", m.name))
                file = source.extractfile(member)
                assert file is not None
                text = file.read().decode("utf-8")
        metadata = message_from_string(text)
        name = re.sub(r"[-_.]+", "-", str(metadata["Name"])).lower()
        yield f"{name}: {read_licence(metadata)}"


def main() -> None:
    """Write the three files."""
    with tempfile.TemporaryDirectory() as folder:
        pins = compile_pins(Path(folder))
        (HERE / "constraints.txt").write_text("".join(f"{pin}\n" for pin in pins), encoding="utf-8")
        hashed = {pin: hashes for pin, hashes in pins.items() if pin.partition("==")[0] not in UNHASHED}
        lines = [" \\\n    ".join([pin, *hashes]) + "\n" for pin, hashes in hashed.items()]
        (HERE / "requirements.txt").write_text("".join(lines), encoding="utf-8")
        licences = sorted(read_licences(pins, Path(folder)))
        (HERE / "licences.txt").write_text("".join(f"{line}\n" for line in licences), encoding="utf-8")


if __name__ == "__main__":
    print(f"pinning for Python {sys.version.split()[0]}, pip {importlib.metadata.version('pip')}")
    main()
