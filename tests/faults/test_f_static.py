"""Group F: no line of the package opens what can hold code, or hands a text to a shell."""

from __future__ import annotations

import ast
from collections.abc import Iterator

import pytest

from tests.conftest import REPO

PACKAGE = REPO / "glu_bench"
# imported at all, these can run what a file holds
MODULES = (
    *("pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "marshal", "shelve", "runpy", "code"),
    *("codeop", "pty", "imp", "zipimport", "tarfile", "zipfile", "xml", "webbrowser", "ctypes"),
)
# called by the last part of their name
CALLS = (
    *("eval", "exec", "compile", "__import__", "import_module", "exec_module", "load_module"),
    *("spec_from_file_location", "entry_points", "instantiate", "instantiate_launcher", "get_class"),
    *("get_method", "get_object", "system", "popen", "getoutput", "getstatusoutput", "unsafe_load"),
    *("full_load", "load_all", "unsafe_load_all", "full_load_all", "from_string", "extractall"),
    *("read_pickle", "to_pickle", "hub_load", "register_new_resolver"),
)
# called by the whole of it
DOTTED = (
    *("torch.load", "torch.save", "torch.jit.load", "torch.hub.load", "torch.package.PackageImporter"),
    *("yaml.load", "numpy.load", "np.load", "os.system", "jinja2.Template"),
    *("os.execv", "os.execve", "os.execvp", "os.execl", "os.spawnv", "os.spawnl", "os.posix_spawn"),
)
LOADERS = ("UnsafeLoader", "FullLoader", "Loader", "CLoader", "CFullLoader", "CUnsafeLoader")
KEYWORDS = ("shell", "allow_pickle", "trust_remote_code")  # False, or not there
PLAIN = ("eval", "compile", "system")  # the word alone: model.eval(), re.compile(), platform.system()
STARTERS = ("run", "Popen", "call", "check_call", "check_output")

ALLOWED = {
    ("__init__.py", "import_module"): "names of a table in that file",
    ("allocator.py", "ctypes"): "the C library's own malloc, told how to keep memory",
    ("faults.py", "ctypes"): "a test asks for a crash",
    ("train/stop.py", "ctypes"): "prctl: a child ends with its parent",
    ("ffn/plugins.py", "entry_points"): "packages that the person installed, or named by --allow-plugin",
    ("ffn/plugins.py", "spec_from_file_location"): "a file that the person named at the command line",
    ("ffn/plugins.py", "exec_module"): "the same file",
    ("launch.py", "instantiate_launcher"): "a launcher that the person chose, of an installed package",
}


def find_banned(tree: ast.AST) -> Iterator[str]:
    """What of the lists above a module has."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (a.name.split(".")[0] for a in node.names if a.name.split(".")[0] in MODULES)
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            names = {alias.name for alias in node.names}
            if module.split(".")[0] in MODULES:
                yield module.split(".")[0]
            yield from sorted(names & set(LOADERS) if module == "yaml" else ())
            yield from sorted(f"{module}.{name}" for name in names if f"{module}.{name}" in DOTTED)
            yield from sorted(names & set(CALLS) if module.split(".")[0] in ("os", "subprocess") else ())
        elif isinstance(node, ast.Attribute) and node.attr in LOADERS and ast.unparse(node.value) == "yaml":
            yield node.attr
        elif isinstance(node, ast.Call):
            yield from _find_in_call(node)


def _find_in_call(node: ast.Call) -> Iterator[str]:
    whole = ast.unparse(node.func)
    last = whole.rpartition(".")[2]
    if whole in DOTTED or (last in CALLS and (last not in PLAIN or whole == last)):
        yield whole if whole in DOTTED else last
    for keyword in node.keywords:
        if keyword.arg in KEYWORDS and not _is_false(keyword.value):
            yield f"{keyword.arg}="
        if keyword.arg == "autoescape" and _is_false(keyword.value):
            yield "autoescape=False"
        if keyword.arg == "weights_only" and _is_false(keyword.value):
            yield "weights_only=False"
    starts = whole.rpartition(".")[0] == "subprocess" and last in STARTERS and node.args
    if starts and isinstance(node.args[0], ast.Constant | ast.JoinedStr):
        yield f"{whole} of a text"
    if last == "Environment" and not any(keyword.arg == "autoescape" for keyword in node.keywords):
        yield "Environment without autoescape"


def _is_false(value: ast.expr) -> bool:
    return isinstance(value, ast.Constant) and value.value is False


def test_f10_no_module_can_run_what_a_file_holds() -> None:
    """Every module is searched for pickle, torch.load, eval, exec, shells, unsafe YAML, instantiate,
    imports by name, and the like.

    None but those listed, each in its file and with its reason.
    """
    found = {
        (path.relative_to(PACKAGE).as_posix(), banned)
        for path in sorted(PACKAGE.rglob("*.py"))
        for banned in find_banned(ast.parse(path.read_text(encoding="utf-8")))
    }
    assert found == set(ALLOWED)
    assert all(ALLOWED.values())


def test_f10_no_template_and_no_configuration_can_either() -> None:
    """The page's template and all of configs/ are searched for what ends escaping or calls something.

    There is none.
    """
    templates = list(PACKAGE.rglob("*.j2"))
    assert templates
    for path in templates:
        text = path.read_text(encoding="utf-8")
        assert "safe" not in text.replace("unsafe-inline", "")
        assert "autoescape" not in text
    configs = list((REPO / "configs").rglob("*.yaml"))
    assert configs
    for path in configs:
        text = path.read_text(encoding="utf-8")
        assert "_target_" not in text
        assert "${" not in text
        assert "!!" not in text


BAD = (
    *("import pickle", "from pickle import loads", "import marshal", "import shelve", "import os.path, dill"),
    *("torch.load(x)", "import torch\ntorch.load(x, weights_only=True)", "from torch import load"),
    *("eval(x)", "exec(x)", "compile(x, '', 'exec')", "__import__(x)", "importlib.import_module(x)"),
    *("os.system(x)", "from os import system", "os.popen(x)", "subprocess.run('ls')", "os.execvp(a, b)"),
    *("subprocess.Popen(words, shell=True)", "subprocess.run(f'ls {x}')", "subprocess.getoutput(x)"),
    *(
        "run(words, shell=flag)",
        "yaml.load(x)",
        "yaml.unsafe_load(x)",
        "yaml.load(x, Loader=yaml.FullLoader)",
    ),
    *("from yaml import Loader", "hydra.utils.instantiate(x)", "instantiate(x)", "hydra.utils.get_class(x)"),
    *("np.load(x, allow_pickle=True)", "np.load(x)", "AutoModel.from_pretrained(x, trust_remote_code=True)"),
    *("runpy.run_path(x)\nimport runpy", "loader.exec_module(m)", "Environment(loader=x)", "import ctypes"),
    *("Environment(autoescape=False)", "tar.extractall(x)", "OmegaConf.register_new_resolver('x', f)"),
)
GOOD = (
    *("model.eval()", "re.compile('x')", "torch.compile(model)", "json.loads(x)", "yaml.parse(x)"),
    *("subprocess.run(['ls'])", "subprocess.Popen(command, env=env)", "safetensors.numpy.load(x)"),
    *("Environment(autoescape=True)", "from_pretrained(x, trust_remote_code=False)", "yaml.SafeLoader('')"),
)


@pytest.mark.parametrize("text", BAD)
def test_what_is_banned_is_found(text: str) -> None:
    assert list(find_banned(ast.parse(text)))


@pytest.mark.parametrize("text", GOOD)
def test_what_is_harmless_is_not(text: str) -> None:
    assert not list(find_banned(ast.parse(text)))
