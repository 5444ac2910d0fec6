"""The order of the rooms, one door for each library, and the other rules of the house."""

from __future__ import annotations

import ast
import functools
import itertools
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from glu_bench.cost.compare import write_runs
from tests.conftest import REPO, command_env

PACKAGE = REPO / "glu_bench"
ROOMS = (
    *("errors", "faults", "files", "cache", "host", "yaml_file", "typed_file", "keys", "schema", "rules"),
    *("words", "config_file", "config", "launch", "grid", "device"),
    *("ranks", "allocator", "compiler"),
    *("ffn", "lm", "data", "runs", "evaluate", "train", "stats", "study", "cost"),
    *("interop", "show", "cli"),
)
DOORS = {
    "hydra": ("config", "launch"),
    "omegaconf": ("typed_file", "config_file", "config", "launch"),
    "yaml": ("yaml_file",),
    "scipy": ("stats",),
    "jinja2": ("show",),
    "datasets": ("data",),
    "rich": ("show",),
    "plotly": ("show",),
    "matplotlib": ("show",),
    "typer": ("cli",),
    "click": ("cli",),
    "transformers": ("interop", "cost"),
    "wandb": ("interop",),
    "filelock": ("files",),
}
MODULES = sorted(PACKAGE.rglob("*.py"))
NAMES = [path.relative_to(PACKAGE).as_posix() for path in MODULES]


@functools.cache
def parse(path: Path) -> ast.Module:
    """The syntax tree of a module, which tests only read."""
    return ast.parse(path.read_text(encoding="utf-8"))


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported_modules(path: Path) -> Iterator[str]:
    """Full names of everything a file imports, inside functions and under TYPE_CHECKING too."""
    for node in ast.walk(parse(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative imports hide the room"
            assert node.module is not None
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def imported_rooms(path: Path) -> set[str]:
    parts = [name.split(".") for name in imported_modules(path)]
    return {names[1] for names in parts if names[0] == "glu_bench" and len(names) > 1}


def test_every_module_is_in_a_room_of_the_list() -> None:
    assert {room_of(path) for path in MODULES} <= {*ROOMS, "__init__", "__main__"}


def test_a_module_imports_only_from_its_own_room_and_rooms_above() -> None:
    rooms = {name: room_of(path) for name, path in zip(NAMES, MODULES, strict=True)}
    below = [
        (name, sorted(further))
        for name, room in rooms.items()
        if room not in ("__init__", "__main__")
        and (further := imported_rooms(PACKAGE / name) - set(ROOMS[: ROOMS.index(room) + 1]))
    ]
    assert below == []


def test_a_library_is_imported_in_its_own_room_alone() -> None:
    elsewhere = [
        (name, library)
        for name, path in zip(NAMES, MODULES, strict=True)
        for library in sorted({imported.split(".")[0] for imported in imported_modules(path)} & set(DOORS))
        if room_of(path) not in DOORS[library]
    ]
    assert elsewhere == []


def test_nothing_is_imported_by_a_text_that_this_test_cannot_read() -> None:
    dynamic = [
        name
        for name, path in zip(NAMES, MODULES, strict=True)
        if {"__import__", "import_module"}
        & {
            node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")
            for node in ast.walk(parse(path))
        }
    ]
    assert dynamic == ["__init__.py"]


def test_no_module_is_named_after_nothing() -> None:
    stems = {part.removesuffix(".py") for name in NAMES for part in Path(name).parts}
    assert stems.isdisjoint({"utils", "util", "helpers", "helper", "common", "base", "misc", "core", "tools"})


def test_no_file_is_longer_than_450_lines() -> None:
    lengths = {
        name: len(path.read_text(encoding="utf-8").splitlines())
        for name, path in zip(NAMES, MODULES, strict=True)
    }
    assert {name: n_lines for name, n_lines in lengths.items() if n_lines > 450} == {}


def test_every_module_and_public_function_says_what_it_is() -> None:
    silent = []
    for name, path in zip(NAMES, MODULES, strict=True):
        tree = parse(path)
        silent += [] if ast.get_docstring(tree) else [name]
        for node in tree.body:
            public = isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_")
            silent += [f"{name}: {node.name}"] if public and not ast.get_docstring(node) else []
    assert silent == []


def test_no_function_passes_unnamed_options_through() -> None:
    taking = [
        f"{path.relative_to(PACKAGE)}:{node.name}"
        for path in MODULES
        for node in ast.walk(parse(path))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.args.kwarg is not None
    ]
    assert taking == ["keys.py:key"]


def test_no_class_of_ours_has_a_child_of_ours() -> None:
    trees = [parse(path) for path in MODULES if room_of(path) != "errors"]
    classes = [node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
    names = {node.name for node in classes}
    bases = {base.id for node in classes for base in node.bases if isinstance(base, ast.Name)}
    assert names.isdisjoint(bases)


def calls_of(path: Path) -> Iterator[tuple[str, ast.Call]]:
    """Every call of a file with the text of what is called."""
    for node in ast.walk(parse(path)):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


def writes(called: str, call: ast.Call) -> bool:
    """Whether a call writes a file under its final name, or gives one a name."""
    method = called.rpartition(".")[2] if "." in called else ""
    if method in ("write_text", "write_bytes", "rename", "touch"):
        return True
    if method == "replace":  # a string's takes two
        return len(call.args) == 1 and called != "dataclasses.replace"
    if method in ("open", "") and called.endswith("open"):
        return any(isinstance(a, ast.Constant) and set(str(a.value)) & set("wax") for a in call.args[:2])
    return called in ("json.dump", "shutil.move", "shutil.copy", "shutil.copytree", "torch.save")


# what files.py cannot do for them: logs, what is copied or tokenised inside its write_folder, a
# broken checkpoint set aside, and what benchmarks make up in a temporary folder
WRITERS = {
    *("files.py", "runs/record.py", "runs/transfer.py", "data/writer.py", "runs/checkpoint.py"),
    *("train/launch.py", "study/job.py", "study/sweep.py", "cost/compare.py", "cost/data.py"),
}


def test_files_are_written_in_one_place() -> None:
    found = {
        name
        for name, path in zip(NAMES, MODULES, strict=True)
        if any(writes(called, call) for called, call in calls_of(path))
    }
    assert found == WRITERS


def test_errors_become_exit_codes_in_one_place() -> None:
    """The others end a process themselves: a rank, a second signal, a job for SLURM, a fail point."""
    ends = ("sys.exit", "os._exit", "exit", "quit", "SystemExit", "typer.Exit", "typer.Abort")
    found = {
        name
        for name, path in zip(NAMES, MODULES, strict=True)
        if any(called in ends for called, _ in calls_of(path))
    }
    assert found == {"cli/main.py", "train/reports.py", "train/stop.py", "study/job.py", "faults.py"}


def modules_after(code: str) -> set[str]:
    """Names of the modules that a fresh interpreter has loaded after some code."""
    printed = subprocess.run(
        [sys.executable, "-c", f"import sys\n{code}\nprint(*sys.modules)"],
        env=command_env(),
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    ).stdout
    return set(printed.split())


HEAVY = {"torch", "numpy", "scipy", "datasets", "matplotlib", "plotly", "hydra", "omegaconf", "transformers"}


def test_the_command_line_starts_without_any_heavy_library() -> None:
    assert modules_after("import glu_bench.cli.main").isdisjoint(HEAVY)


def test_the_package_alone_loads_nothing() -> None:
    assert modules_after("import glu_bench; from glu_bench import __all__").isdisjoint(
        {*HEAVY, "rich", "typer"}
    )


def test_the_configuration_is_read_without_torch() -> None:
    code = "from glu_bench.config import load_config; load_config(['variant=relu'])"
    assert "torch" not in modules_after(code)


@pytest.mark.parametrize("words", [["compare"], ["runs", "list", "--where", "seed=0"], ["variants"]], ids=str)
def test_what_reads_and_lists_waits_for_neither_torch_nor_hydra(words: list[str], tmp_path: Path) -> None:
    write_runs(tmp_path, 4)
    place = [] if words == ["variants"] else ["--output-dir", str(tmp_path)]
    code = f"""
import contextlib, io
from glu_bench.cli.main import main
sys.argv = {["glu-bench", *words, *place]!r}
with contextlib.redirect_stdout(io.StringIO()) as shown:
    main()
assert "gelu" in shown.getvalue()"""
    assert modules_after(code).isdisjoint({"torch", "hydra", "omegaconf", "datasets", "matplotlib"})


def test_no_room_below_is_needed_to_import_one_above() -> None:
    loaded = modules_after("import glu_bench.train.run")
    assert loaded.isdisjoint({f"glu_bench.{room}" for room in ROOMS[ROOMS.index("train") + 1 :]})


def tracked_files() -> list[str]:
    done = subprocess.run(
        ["git", "-C", str(REPO), "ls-files", "-z"], capture_output=True, text=True, check=False, timeout=30
    )
    if done.returncode:
        pytest.skip("not a git checkout")
    return [name for name in done.stdout.split("\0") if name]


def test_the_top_level_holds_what_the_house_says() -> None:
    top = {name.split("/")[0] for name in tracked_files()}
    visible = {name for name in top if not name.startswith(".")}
    expected = {"pyproject.toml", "README.md", "LICENSE", "glu_bench", "configs", "tests", "outputs"}
    assert visible <= expected
    assert visible >= expected - {"outputs"}


def test_no_run_and_no_cache_is_committed() -> None:
    parts = set(itertools.chain.from_iterable(name.split("/") for name in tracked_files()))
    assert parts.isdisjoint({"__pycache__", "runs-cache", ".venv"})
    assert not any(name.startswith(("outputs/runs/", "outputs/sweeps/")) for name in tracked_files())


PAGE = (".j2", ".css", ".js")  # what the report is made of


@pytest.mark.slow
def test_the_wheel_holds_the_configurations(tmp_path: Path) -> None:
    pytest.importorskip("hatchling", reason="hatchling builds the wheel")
    import zipfile

    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-w", str(tmp_path)]
    subprocess.run([*command, str(REPO)], check=True, capture_output=True, timeout=300)
    (wheel,) = tmp_path.glob("*.whl")
    held = set(zipfile.ZipFile(wheel).namelist())
    configs = {f"glu_bench/{path.relative_to(REPO)}" for path in (REPO / "configs").rglob("*.yaml")}
    assert configs <= held
    assert {f"glu_bench/{name}" for name in NAMES} <= held
    page = {path.relative_to(REPO).as_posix() for path in PACKAGE.rglob("*.*") if path.suffix in PAGE}
    assert len(page) >= 3
    assert page <= held
    assert not any(name.startswith("tests/") for name in held)
