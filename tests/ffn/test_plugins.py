"""Functions of a person's own: what loads them, what refuses them, what a run says of them."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from glu_bench.errors import ConfigError, DataError
from glu_bench.ffn import plugins
from glu_bench.ffn.activations import ACTIVATIONS, REDUCING, list_constants
from glu_bench.ffn.formula import load_variant
from glu_bench.ffn.plugins import check_plugins, find_plugins, load_plugins
from glu_bench.runs.folder import Run, list_runs, make_run_id
from tests.conftest import REPO, Command, Ended, TinyConfig

SNAKE = '''\
import torch

def snake(x, *, alpha=1.0):
    """x + sin(alpha x)^2 / alpha."""
    return x + torch.sin(alpha * x).square() / alpha

ACTIVATIONS = {"snake": snake}
'''
SNAKEGLU = ("variant=swiglu", "variant.name=snakeglu", "variant.gate=snake")

Forget = Callable[[], None]


@pytest.fixture(autouse=True)
def forget() -> Iterator[Forget]:
    """The tables of the process as they were, at the end and whenever it is called."""
    tables = ACTIVATIONS, plugins._origins
    before = [dict(table) for table in tables]  # type: ignore[call-overload]
    reducing, modules = set(REDUCING), set(sys.modules)

    def restore() -> None:
        for table, saved in zip(tables, before, strict=True):
            table.clear()
            table.update(saved)
        REDUCING.clear()
        REDUCING.update(reducing)
        for name in set(sys.modules) - modules:
            if name.startswith("glu_bench_plugin_"):
                del sys.modules[name]

    yield restore
    restore()


@pytest.fixture
def snake(tmp_path: Path) -> Path:
    """The plugin file of the README, ten lines or fewer."""
    return write_plugin(tmp_path / "own" / "snake.py")


def write_plugin(path: Path, text: str = SNAKE) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


TrainSnake = Callable[..., Run]


@pytest.fixture
def train_snake(call_command: Command, tiny_words: list[str], tmp_path: Path, forget: Forget) -> TrainSnake:
    """Trains by the command line; the tables are then those of a process of its own."""

    def run(*words: str) -> Run:
        ended = call_command("train", *words, *tiny_words, "--output-dir", str(tmp_path), "--json", "-q")
        assert ended.code == 0, ended.err
        forget()
        return Run(Path(json.loads(ended.out)["run_dir"]))

    return run


# --- From the command line to a run's record


def test_a_file_trains_end_to_end_and_the_record_names_it(train_snake: TrainSnake, snake: Path) -> None:
    assert len(SNAKE.splitlines()) <= 10
    run = train_snake("--plugin", str(snake), *SNAKEGLU)
    assert run.run_id.startswith("snakeglu-pico-text-s0-")
    recorded = run.environment()["plugins"]
    assert recorded == [{"name": "snake.py", "sha256": sha256(snake), "functions": ["snake"]}]
    assert run.result()["status"] == "complete"


def test_a_variant_file_may_name_the_function_and_train_its_constant(
    train_snake: TrainSnake, snake: Path, tmp_path: Path
) -> None:
    variant = tmp_path / "configs" / "variant" / "snakeglu.yaml"
    variant.parent.mkdir(parents=True)
    variant.write_text(
        'name: snakeglu\nfamily: own\nformula: "(g + sin(a g)^2/a) * u"\nsource: me\ngated: true\n'
        "gate: snake\ngate_args: {alpha: 2.0}\nlearned: [gate.alpha]\n"
    )
    words = ("--config-dir", str(tmp_path / "configs"), "variant=snakeglu")
    run = train_snake("--plugin", str(snake), *words)
    load_plugins([snake])
    model = run.load_model()
    alphas = [block.ffn.hidden.learned["gate_alpha"].item() for block in model.blocks]  # type: ignore[union-attr, operator]
    assert all(alpha != 2.0 and abs(alpha - 2.0) < 0.1 for alpha in alphas)


def test_a_constant_that_a_function_requires_comes_from_the_command_line(
    train_snake: TrainSnake, snake: Path
) -> None:
    write_plugin(snake, SNAKE.replace("alpha=1.0", "alpha"))
    run = train_snake("--plugin", str(snake), *SNAKEGLU, "variant.gate_args.alpha=0.5")
    assert run.config().variant.gate_args == {"alpha": 0.5}


@pytest.mark.slow
def test_the_subprocesses_of_a_sweep_get_the_file(
    call_command: Command, tiny_words: list[str], snake: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(snake.parent)
    monkeypatch.setenv("PYTHONPATH", str(REPO))
    words = [word for word in tiny_words if not word.startswith("train.steps")]
    ended = call_command(
        *("sweep", "--plugin", "snake.py", *SNAKEGLU, "variant.gate=snake,silu", *words, "train.steps=1"),
        *("--output-dir", str(tmp_path), "--json", "-q"),
    )
    assert ended.code == 0, ended.err
    assert json.loads(ended.out)["complete"] == 2
    by_gate = {run.config().variant.gate: run.environment()["plugins"] for run in list_runs(tmp_path)}
    assert [plugin["sha256"] for plugin in by_gate["snake"]] == [sha256(snake)]
    assert by_gate["silu"] == []


def id_with(config: Any) -> str:
    facts = {"data_fingerprint": "d", "tokenizer_fingerprint": "t", "plugins": find_plugins(config.variant)}
    return make_run_id(config, facts)


def test_the_id_follows_the_bytes_of_the_file_where_its_functions_are_used(
    tiny_config: TinyConfig, snake: Path, forget: Forget
) -> None:
    uses, uses_none = tiny_config(*SNAKEGLU), tiny_config()
    ids, ids_of_others = [], [id_with(uses_none)]
    for text in (SNAKE, SNAKE, SNAKE + "# a word more\n"):
        load_plugins([write_plugin(snake, text)])
        ids.append(id_with(uses))
        ids_of_others.append(id_with(uses_none))
        forget()
    assert ids[0] == ids[1] != ids[2]
    assert len(set(ids_of_others)) == 1


def test_the_same_command_with_other_bytes_trains_another_run(train_snake: TrainSnake, snake: Path) -> None:
    first = train_snake("--plugin", str(snake), *SNAKEGLU)
    write_plugin(snake, SNAKE.replace("alpha=1.0", "alpha=3.0"))
    second = train_snake("--plugin", str(snake), *SNAKEGLU)
    assert first.path != second.path
    assert first.result()["parameters_sha256"] != second.result()["parameters_sha256"]


# --- A run folder loads nothing by itself


@pytest.fixture
def snake_run(train_snake: TrainSnake, snake: Path) -> Run:
    """A finished run with a plugin, in a process that does not know it."""
    return train_snake("--plugin", str(snake), *SNAKEGLU)


def refused(ended: Ended) -> str:
    """The one line of a refusal."""
    assert ended.code == 2, ended.err
    (line,) = [line for line in ended.err.splitlines() if line.startswith("glu-bench: ")]
    assert ended.err.splitlines()[-1] == line
    return line


READERS = [("eval", "-q"), ("sample", "--tokens", "3")]


@pytest.mark.parametrize("reader", READERS, ids=lambda words: words[0])
def test_reading_such_a_run_needs_the_very_file(
    reader: tuple[str, ...],
    snake_run: Run,
    snake: Path,
    call_command: Command,
    forget: Forget,
    tmp_path: Path,
) -> None:
    verb, *options = reader
    words = (verb, snake_run.run_id, *options, "--output-dir", str(tmp_path))
    line = refused(call_command(*words))
    for part in (snake_run.run_id, "snake came from the plugin snake.py", "--allow-plugin snake.py"):
        assert part in line
    other = write_plugin(tmp_path / "own" / "other.py", SNAKE + "# a word more\n")
    line = refused(call_command(*words, "--allow-plugin", str(other)))
    assert sha256(snake)[:12] in line
    assert sha256(other)[:12] in line
    forget()
    ended = call_command(*words, "--allow-plugin", str(snake))
    assert ended.code == 0, ended.err


def test_the_loss_of_such_a_run_comes_out_again(
    snake_run: Run, snake: Path, call_command: Command, tmp_path: Path
) -> None:
    words = ("eval", snake_run.run_id, "--allow-plugin", str(snake), "--output-dir", str(tmp_path), "--json")
    (found,) = json.loads(call_command(*words).out)["runs"]
    assert found["loss_nats"] == snake_run.result()["test_loss_nats"]


def test_no_command_runs_a_file_that_lies_in_a_run_folder(
    snake_run: Run, call_command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mark = tmp_path / "ran"
    text = f"import pathlib\npathlib.Path({str(mark)!r}).touch()\n{SNAKE}"
    path = write_plugin(snake_run.path / "snake.py", text)
    environment = snake_run.environment()
    environment["plugins"][0].update(name=str(path), path=str(path), sha256=sha256(path))
    (snake_run.path / "environment.json").write_text(json.dumps(environment))
    monkeypatch.chdir(snake_run.path)
    for words in (
        *((verb, snake_run.path.name, *options) for verb, *options in READERS),
        ("runs", "list"),
        ("runs", "show", snake_run.path.name),
        ("compare",),
    ):
        call_command(*words, "--output-dir", str(tmp_path))
        assert not mark.exists(), words
    load_plugins([path])
    assert mark.exists()


@pytest.mark.parametrize("plugins_recorded", [[], [{"sha256": "0" * 64}], "snake", [1], None])
def test_a_record_of_plugins_that_was_edited_is_refused(
    plugins_recorded: object, snake_run: Run, snake: Path
) -> None:
    environment = {**snake_run.environment(), "plugins": plugins_recorded}
    (snake_run.path / "environment.json").write_text(json.dumps(environment))
    load_plugins([snake])
    with pytest.raises((ConfigError, DataError), match=snake_run.path.name):
        snake_run.load_model()


def test_a_record_without_functions_does_not_let_another_file_pass(snake_run: Run, snake: Path) -> None:
    environment = snake_run.environment()
    environment["plugins"][0]["functions"] = []
    (snake_run.path / "environment.json").write_text(json.dumps(environment))
    load_plugins([write_plugin(snake, SNAKE + "# a word more\n")])
    with pytest.raises((ConfigError, DataError), match=snake_run.path.name):
        snake_run.load_model()


def test_what_is_not_a_plugins_needs_none(finished_run: Run) -> None:
    check_plugins(finished_run.environment()["plugins"], finished_run.config().variant, "here")
    assert finished_run.environment()["plugins"] == []


# --- Files that cannot be loaded


def message_of(path: Path, *more: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        load_plugins([path, *more])
    assert caught.value.exit_code == 2
    return str(caught.value)


def test_a_file_that_raises_shows_its_own_traceback_and_nothing_of_ours(
    call_command: Command, tiny_words: list[str], tmp_path: Path
) -> None:
    helper = write_plugin(
        tmp_path / "own" / "plugin_helper.py", "def work():\n    raise ValueError('broken here')\n"
    )
    text = f"import sys\nsys.path.insert(0, {str(helper.parent)!r})\nimport plugin_helper as h\nh.work()\n"
    path = write_plugin(tmp_path / "own" / "bad.py", text)
    try:
        ended = call_command("train", "--plugin", str(path), *SNAKEGLU, *tiny_words)
    finally:
        sys.path.remove(str(helper.parent))
        sys.modules.pop("plugin_helper", None)
    assert ended.code == 2
    lines = ended.err.splitlines()
    assert lines[0] == f"glu-bench: {path}: the plugin failed:"
    assert lines[1] == "Traceback (most recent call last):"
    assert lines[2] == f'  File "{path}", line 4, in <module>'
    assert lines[-1] == "ValueError: broken here"
    assert any(str(helper) in line for line in lines)
    assert "glu_bench/" not in ended.err.replace(str(path), "")
    assert "importlib" not in ended.err


def test_an_error_within_an_error_shows_both(tmp_path: Path) -> None:
    text = "try:\n    1 / 0\nexcept ZeroDivisionError as error:\n    raise ValueError('so') from error\n"
    message = message_of(write_plugin(tmp_path / "own" / "bad.py", text))
    assert "ZeroDivisionError" in message
    assert message.endswith("ValueError: so")
    assert "importlib" not in message


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("def snake(x:\n    return x\n", ["bad.py", "line 1", "SyntaxError"]),
        ("raise SystemExit(3)\n", ["SystemExit: 3"]),
        ("import nosuch_module\n", ["No module named 'nosuch_module'"]),
        ("def snake(x):\n    return x\n", ["brings no functions", "ACTIVATIONS ="]),
        ("ACTIVATIONS = {}\n", ["brings no functions"]),
        ("ACTIVATIONS = ['snake']\n", ["brings no functions"]),
        ("ACTIVATIONS = {'snake': 3}\n", ["snake is a int, not a function"]),
        ("ACTIVATIONS = {'a b': abs}\n", ["'a b' cannot name a function"]),
        ("ACTIVATIONS = {3: abs}\n", ["3 cannot name a function"]),
        ("ACTIVATIONS = {'relu': lambda x: x}\n", ["the name relu is taken by glu-bench"]),
        ("ACTIVATIONS = {'f': lambda x: x[..., :1]}\n", ["f must keep shape", "(3, 4)", "(3, 1)"]),
        ("ACTIVATIONS = {'f': lambda x: x.float()}\n", ["f must keep shape and dtype", "float32"]),
        (
            "ACTIVATIONS = {'f': lambda x: x.double()}\n",
            ["f must keep shape and dtype", "float32", "float64"],
        ),
        ("ACTIVATIONS = {'f': lambda x: 1.0}\n", ["became float"]),
        ("ACTIVATIONS = {'f': lambda x: x.detach() * 2}\n", ["f has no gradient"]),
        ("def f(x):\n    raise KeyError('k')\nACTIVATIONS = {'f': f}\n", ["line 2, in f", "KeyError: 'k'"]),
        ("def f(x, y, /):\n    return x\nACTIVATIONS = {'f': f}\n", ["TypeError"]),
    ],
)
def test_a_file_that_brings_no_function_of_use_is_refused(
    text: str, parts: list[str], tmp_path: Path
) -> None:
    before = dict(ACTIVATIONS)
    message = message_of(write_plugin(tmp_path / "own" / "bad.py", text))
    for part in ("bad.py", *parts):
        assert part in message
    assert "importlib" not in message
    assert "glu_bench/" not in message
    assert before == ACTIVATIONS


@pytest.mark.parametrize("name", ["nosuch.py", "."])
def test_a_file_that_is_not_there_is_named(
    name: str, call_command: Command, tiny_words: list[str], tmp_path: Path
) -> None:
    line = refused(call_command("train", "--plugin", str(tmp_path / name), *tiny_words))
    assert line == f"glu-bench: {tmp_path / name}: no such plugin file"


def test_a_file_that_is_not_python_is_refused(tmp_path: Path) -> None:
    assert "not a Python file" in message_of(write_plugin(tmp_path / "own" / "snake.txt"))


# --- Several files, and what functions do


def test_two_files_bring_their_functions_and_one_file_may_come_twice(snake: Path) -> None:
    other = write_plugin(snake.with_name("wave.py"), "import torch\nACTIVATIONS = {'wave': torch.sin}\n")
    load_plugins([snake, other, snake])
    load_plugins([snake])
    assert {"snake", "wave"} <= set(ACTIVATIONS)
    assert list_constants("snake") == {"alpha": False}
    assert list_constants("wave") == {}


def test_two_files_with_one_name_for_a_function_are_refused(snake: Path) -> None:
    other = write_plugin(snake.with_name("other.py"), SNAKE + "# a word more\n")
    message = message_of(snake, other)
    assert "other.py: the name snake is taken by snake.py" in message


def test_a_run_names_each_file_it_takes_functions_from(tiny_config: TinyConfig, snake: Path) -> None:
    text = "import torch\nACTIVATIONS = {'wave': torch.sin, 'idle': torch.cos}\n"
    load_plugins([snake, write_plugin(snake.with_name("wave.py"), text)])
    config = tiny_config(*SNAKEGLU, "variant.value=wave")
    assert [(p["name"], p["functions"]) for p in find_plugins(config.variant)] == [
        ("snake.py", ["snake"]),
        ("wave.py", ["wave"]),
    ]


@pytest.mark.parametrize(
    ("body", "reduces"),
    [
        ("torch.sin(x)", False),
        ("torch.sqrt(x)", False),  # not a number below 0, and that at its own place alone
        ("x - x.mean(-1, keepdim=True)", True),
        ("x * torch.softmax(x, -1)", True),
        ("x.cumsum(-1)", True),
        ("x.roll(1, -1)", True),
    ],
)
def test_a_function_of_the_whole_width_is_recognised(body: str, reduces: bool, tmp_path: Path) -> None:
    text = f"import torch\nACTIVATIONS = {{'f': lambda x: {body}}}\n"
    load_plugins([write_plugin(tmp_path / "own" / "f.py", text)])
    assert ("f" in REDUCING) == reduces


def test_a_plugins_function_computes_what_it_says(snake: Path, tiny_config: TinyConfig) -> None:
    from glu_bench.ffn.formula import make_formula

    load_plugins([snake])
    formula = make_formula(tiny_config(*SNAKEGLU).variant)
    g, u = torch.randn(2, 3, 8, dtype=torch.float64)
    torch.testing.assert_close(formula.hidden(g, u), (g + torch.sin(g) ** 2) * u)
    assert not formula.reduces


def test_an_unknown_function_is_suggested_a_plugins(snake: Path, tiny_config: TinyConfig) -> None:
    from glu_bench.ffn.formula import make_formula

    load_plugins([snake])
    with pytest.raises(ConfigError, match="did you mean 'snake'"):
        make_formula(tiny_config(*SNAKEGLU[:2], "variant.gate=snak").variant)


# --- Installed packages


@pytest.fixture
def package(snake: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installed package `snakes` with the function as an entry point; the file of its module."""
    path = write_plugin(snake.with_name("snakes_module.py"), SNAKE.partition("ACTIVATIONS")[0])
    monkeypatch.syspath_prepend(str(path.parent))
    entry = importlib.metadata.EntryPoint("snake", "snakes_module:snake", plugins.GROUP)
    installed = SimpleNamespace(
        name=entry.name, value=entry.value, load=entry.load, dist=SimpleNamespace(name="snakes")
    )
    ask = importlib.metadata.entry_points

    def answer(**wanted: Any) -> Any:
        return [installed] if wanted == {"group": plugins.GROUP} else ask(**wanted)

    monkeypatch.setattr(importlib.metadata, "entry_points", answer)
    monkeypatch.delitem(sys.modules, "snakes_module", raising=False)
    return path


def test_an_installed_package_brings_its_functions(package: Path, train_snake: TrainSnake) -> None:
    run = train_snake(*SNAKEGLU)
    recorded = run.environment()["plugins"]
    assert recorded == [{"name": "snakes", "sha256": sha256(package), "functions": ["snake"]}]


def test_reading_a_run_loads_a_package_only_if_it_is_named(
    package: Path, train_snake: TrainSnake, call_command: Command, tmp_path: Path
) -> None:
    run = train_snake(*SNAKEGLU)
    del sys.modules["snakes_module"]
    words = ("eval", run.run_id, "-q", "--output-dir", str(tmp_path))
    assert "--allow-plugin snakes" in refused(call_command(*words))
    assert "snakes_module" not in sys.modules
    ended = call_command(*words, "--allow-plugin", "snakes")
    assert ended.code == 0, ended.err


def test_a_package_that_fails_is_named(package: Path) -> None:
    write_plugin(package, "raise ValueError('broken here')\n")
    with pytest.raises(ConfigError, match=r"snakes: the plugin failed:\n(.|\n)*ValueError: broken here"):
        load_plugins([])


def test_a_compiled_function_of_a_package_is_registered(package: Path) -> None:
    write_plugin(package, "import torch\nsnake = torch.sin\n")
    load_plugins([])
    assert plugins._origins["snake"].sha256 == ""


def test_copies_of_a_file_count_as_the_same(snake: Path, tiny_config: TinyConfig, forget: Forget) -> None:
    (snake.parent / "copy").mkdir()
    copy = Path(shutil.copy(snake, snake.parent / "copy" / "renamed.py"))
    ids = []
    for path in (snake, copy):
        load_plugins([path])
        ids.append(id_with(tiny_config(*SNAKEGLU)))
        forget()
    assert ids[0] == ids[1]


def test_the_tables_are_those_of_the_package() -> None:
    """What the tests above register does not stay."""
    assert plugins._origins == {}
    assert load_variant("swiglu").on_gate is ACTIVATIONS["silu"]
