"""The table of the fault matrix: its rows read from the tests, written with the times measured."""

from __future__ import annotations

import ast
import json
import re
import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
TABLE = FOLDER / "README.md"
GROUPS = {
    "A": "Resume",
    "B": "Crash safety, one process",
    "C": "Sweep",
    "D": "Numeric",
    "E": "Bad input",
    "F": "Security",
    "G": "Several processes",
}
HEAD = """# The fault matrix

What is done to glu-bench, and what must then be true on disk and in the exit code. Most rows run
the real command in a process of its own under a time limit, and may neither hang nor leave a
process behind; where the process is not the point, it is that of the tests. The tests of row B12
are named `test_b12_…`; a row marked *gate* runs in `.ci/run`, the others in the default suite as
well. Seconds of both cores of a small machine, set-up included.

This file is written from the tests and the times of a run of them:

    GLU_BENCH_FAULT_TIMES=times pytest tests/faults -m "slow or not slow"
    python -m tests.faults.table times
"""


@dataclass(frozen=True, kw_only=True)
class Row:
    """A row: one or more tests of the same number."""

    name: str  # B12
    injection: str
    outcome: str
    slow: bool


def row_of(test_name: str) -> str | None:
    """The row that a test's name gives: test_b12_a_flipped_byte is B12."""
    found = re.match(r"test_([a-g]\d+)_", test_name)
    return found[1].upper() if found else None


def read_rows() -> list[Row]:
    """The rows of all tests in order, from their docstrings; those of several tests joined."""
    rows: dict[str, list[Row]] = {}
    for path in sorted(FOLDER.glob("test_*.py")):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            name = row_of(node.name) if isinstance(node, ast.FunctionDef) else None
            if name is None:
                continue
            assert isinstance(node, ast.FunctionDef)
            injection, _, outcome = (ast.get_docstring(node) or "").partition("\n\n")
            if not outcome.strip():
                raise ValueError(f"{path.name}: {node.name} says not what is done and what must be true")
            slow = any("slow" in ast.unparse(decorator) for decorator in node.decorator_list)
            row = Row(name=name, injection=_join(injection), outcome=_join(outcome), slow=slow)
            rows.setdefault(name, []).append(row)
    joined = [
        Row(
            name=name,
            injection=" ".join(row.injection for row in parts),
            outcome=" ".join(dict.fromkeys(row.outcome for row in parts)),
            slow=all(row.slow for row in parts),
        )
        for name, parts in rows.items()
    ]
    return sorted(joined, key=lambda row: (row.name[0], int(row.name[1:])))


def write_table(path: Path, elapsed_s: Mapping[str, float]) -> None:
    """Write the table.

    Raises: ValueError if a row has no time.
    """
    lines = [HEAD]
    rows = read_rows()
    if untimed := [row.name for row in rows if row.name not in elapsed_s]:
        raise ValueError(f"no time of {', '.join(untimed)}: run all of tests/faults")
    for group, title in GROUPS.items():
        lines += [f"## {group}. {title}", "", "| row | injection | outcome | s |", "|---|---|---|---|"]
        for row in rows:
            if row.name.startswith(group):
                took = f"{elapsed_s[row.name]:.1f}{' *gate*' if row.slow else ''}"
                lines.append(f"| {row.name} | {_cell(row.injection)} | {_cell(row.outcome)} | {took} |")
        lines.append("")
    path.write_text("\n".join(lines), encoding="utf-8")


def read_table(path: Path) -> list[tuple[str, str, str]]:
    """Row, injection and outcome of every line of a written table."""
    found = re.findall(
        r"^\| ([A-G]\d+) \| (.*?) \| (.*?) \| [^|]* \|$", path.read_text("utf-8"), re.MULTILINE
    )
    return [(row, injection, outcome) for row, injection, outcome in found]


def read_times(folder: Path) -> Counter[str]:
    """Seconds of each row over all workers and sessions that wrote into a folder."""
    elapsed_s: Counter[str] = Counter()
    for path in folder.glob("*.json"):
        elapsed_s.update(json.loads(path.read_text("utf-8")))
    return elapsed_s


def _join(text: str) -> str:
    return " ".join(text.split())


def _cell(text: str) -> str:
    return text.replace("|", "¦")


if __name__ == "__main__":
    write_table(TABLE, read_times(Path(sys.argv[1])))
