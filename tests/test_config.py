"""From override words and YAML files to a checked configuration."""

from __future__ import annotations

import dataclasses
import re
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from glu_bench import config_file, rules, schema
from glu_bench.config import (
    expand_grid,
    find_config_root,
    list_group,
    list_groups,
    load_config,
    read_variant,
)
from glu_bench.config_file import read_config, render_config
from glu_bench.errors import ConfigError, DataError
from glu_bench.ffn.formula import make_formula
from glu_bench.ffn.matching import match_width
from glu_bench.yaml_file import read_yaml
from tests.conftest import TinyConfig

OPTIONS = [(group, name) for group in list_groups() for name in list_group(group)]
NEEDS = {
    ("data", "text"): ["data.files=x"],
    ("data", "hub"): ["data.path=owner/name"],
    ("tokenizer", "file"): ["tokenizer.path=tokenizer.json"],
    ("tokenizer", "hub"): ["tokenizer.path=owner/name"],
    ("match", "none"): ["match.d_ff=64"],
}


def refused(*words: str, config_dir: Path | None = None) -> str:
    """The one line with which these words are refused."""
    with pytest.raises(ConfigError) as caught:
        load_config(words, config_dir)
    assert caught.value.exit_code == 2
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(("group", "name"), OPTIONS)
def test_every_file_of_every_group_composes_and_is_read_back_equal(
    group: str, name: str, tmp_path: Path
) -> None:
    chosen = load_config([f"{group}={name}", *NEEDS.get((group, name), [])])
    if group in ("variant", "model"):
        assert name == (chosen.variant.name if group == "variant" else chosen.model.preset)
    if group == "variant":
        assert read_variant(name) == chosen.variant  # alone as in a configuration
    path = tmp_path / "config.yaml"
    path.write_text(render_config(chosen), encoding="utf-8")
    assert read_config(path) == chosen


@pytest.mark.parametrize("preset", list_group("model"))
def test_every_preset_matches_exactly(preset: str) -> None:
    chosen = load_config([f"model={preset}"])
    for variant in ("gelu", "swiglu"):
        spec = read_variant(variant)
        receipt = match_width(spec, chosen.model.d_model, chosen.match, chosen.model.ffn_bias)
        assert receipt.residual == 0


def test_values_have_the_types_of_the_schema() -> None:
    chosen = load_config(["optim.lr=1", "seed=3", "train.compile=False", "train.tokens=1_000"])
    assert isinstance(chosen.optim.lr, float)
    assert chosen.seed == 3
    assert chosen.train.compile == "false"
    assert chosen.train.tokens == 1000
    assert type(chosen) is schema.Config


@pytest.mark.parametrize(
    ("word", "parts"),
    [
        ("optim.lrr=3", ["optim.lrr", "did you mean 'optim.lr'"]),
        ("optm.lr=3", ["optm.lr", "did you mean 'optim.lr'"]),
        ("+optim.lrr=3", ["optim.lrr", "did you mean 'optim.lr'"]),
        ("++optim.lrr=3", ["optim.lrr", "did you mean 'optim.lr'"]),
        ("~optim.lr", ["optim.lr"]),
        ("~optim.lr=1", ["cannot be taken out"]),
        ("variant=swigloo", ["swigloo", "did you mean 'swiglu'"]),
        ("varient=swiglu", ["varient", "did you mean 'variant'"]),
        ("model=nosuch", ["nosuch", "pico"]),
        ("data=nosuch", ["nosuch", "stdlib"]),
        ("model=3", ["model", "pico"]),
        ("optim.lr=abc", ["optim.lr=abc", "a number"]),
        ("optim.lr=", ["optim.lr", "a number"]),
        ("optim.lr=null", ["optim.lr=null", "a number"]),
        ("optim.lr=nan", ["optim.lr=nan", "finite"]),
        ("optim.lr=inf", ["optim.lr=inf", "finite"]),
        ("optim.lr=-1", ["optim.lr=-1", "> 0"]),
        ("optim.lr=0", ["optim.lr=0", "> 0"]),
        ("optim.lr=true", ["optim.lr", "a number"]),
        ("optim.lr=[1]", ["optim.lr", "a number"]),
        ("train.steps=0", ["train.steps=0", ">= 1"]),
        ("train.steps=1e3", ["train.steps", "a whole number"]),
        ("train.steps=1.5", ["train.steps", "a whole number"]),
        ("model.d_model=33", ["model.d_model=33"]),
        ("model.ffn_bias=1", ["model.ffn_bias", "true or false"]),
        ("seed=-1", ["seed=-1", ">= 0"]),
        ("seed=1.0", ["seed", "a whole number"]),
        ("numerics_version=2", ["numerics_version", "read only"]),
        ("train.compile=maybe", ["train.compile=maybe", "auto, true, false"]),
        ("train.precision=fp16", ["train.precision=fp16", "bf16"]),
        ("variant", ["KEY=VALUE"]),
        ("seed=1,2", ["glu-bench sweep"]),
        ("variant=relu,gelu", ["glu-bench sweep"]),
        ("variant=glob(*)", ["glu-bench sweep"]),
        ("variant=${oc.env:HOME}", ["variant"]),
        ("data.corpus=${oc.env:HOME}", ["data.corpus", "not allowed"]),
        ("data.files=[${oc.env:HOME}]", ["data.files", "not allowed"]),
        ("_target_=os.system", ["_target_"]),
        ("optim._target_=os.system", ["optim._target_"]),
        ("+optim._target_=os.system", ["_target_"]),
        ("optim={_target_: os.system}", ["optim"]),
        ("hydra.searchpath=[/tmp]", ["hydra.searchpath"]),
        ("model@optim=pico", ["model"]),
        ("optim.lr=${optim.eps}", ["optim.lr"]),
        ("optim.lr=(", ["optim.lr=("]),
    ],
)
def test_a_word_that_cannot_work_ends_in_one_line(word: str, parts: list[str]) -> None:
    message = refused(word)
    for part in parts:
        assert part in message


@pytest.mark.parametrize(
    ("words", "args"),
    [
        (("variant=swiglu_beta", "variant.gate_args.beta=2"), {"gate_args": {"beta": 2.0}}),
        (("variant=swiglu_beta", "variant.gate_args.beta=-1e-3"), {"gate_args": {"beta": -1e-3}}),
        (("variant=quick_gelu", "variant.activation_args.beta=1.5"), {"activation_args": {"beta": 1.5}}),
        (
            ("variant=xielu", "variant.activation_args.beta=0.25"),
            {
                "activation_args": {
                    "p": 0.2033823208110246,
                    "n": -1.0502256128148468,
                    "beta": 0.25,
                    "eps": -1e-6,
                }
            },
        ),
        # a constant that the file does not name, for a function that it does not name
        (("variant=swiglu", "variant.gate=swish", "variant.gate_args.beta=2"), {"gate_args": {"beta": 2.0}}),
        (
            ("variant.gate_args.beta=0.5", "variant=swiglu", "variant.gate=swish"),
            {"gate_args": {"beta": 0.5}},
        ),
        (("variant=situ_glu", "variant.value_args.beta=9"), {"value_args": {"beta": 9.0}}),
    ],
)
def test_a_constant_of_a_function_is_a_key(words: tuple[str, ...], args: dict[str, dict[str, float]]) -> None:
    chosen = load_config(words).variant
    for field, expected in args.items():
        found = getattr(chosen, field)
        assert found == expected
        assert all(type(number) is float for number in found.values())
    make_formula(chosen)


@pytest.mark.parametrize(
    ("word", "parts"),
    [
        ("variant.gate_args.beta=abc", ["variant.gate_args.beta=abc", "expected a number"]),
        ("variant.gate_args.beta='2'", ["expected a number"]),
        ("variant.gate_args.beta=true", ["expected a number"]),
        ("variant.gate_args.beta=null", ["expected a number"]),
        ("variant.gate_args.beta=[1]", ["expected a number"]),
        ("variant.gate_args.beta={a: 1}", ["expected a number"]),
        ("variant.gate_args.beta=nan", ["gate_args.beta=nan", "finite"]),
        ("variant.gate_args.beta=inf", ["gate_args.beta=inf", "finite"]),
        ("variant.gate_args.beta=1,2", ["glu-bench sweep"]),
        ("variant.gate_args.a.b=1", ["no such key"]),
        ("variant.activation_args.beta=1", ["activation_args without a activation"]),
        ("variant.gat_args.beta=1", ["no such key", "did you mean 'variant.gate_args'"]),
        ("variant.gate_args={beta: 2}", ["variant.gate_args.beta=1"]),
        ("variant.gate_args=2", ["variant.gate_args.beta=1"]),
        ("+variant.gate_args.beta=2", ["without '+'"]),
        ("~variant.gate_args.beta=1", ["cannot be taken out"]),
        ("variant.learned=[gate.bet]", ["did you mean 'gate.beta'"]),
        ("variant.up_clamp=-7", ["variant.up_clamp=-7", "> 0"]),
        ("variant.norm=batch", ["variant.norm=batch", "rms, layer"]),
    ],
)
def test_a_word_about_a_function_that_cannot_work_ends_in_one_line(word: str, parts: list[str]) -> None:
    message = refused("variant=swiglu_beta", word)
    for part in parts:
        assert part in message


@pytest.mark.parametrize(
    ("swept", "values"),
    [("0.5,1,2", [0.5, 1.0, 2.0]), ("range(1,4)", [1.0, 2.0, 3.0]), ("choice(1,1.5)", [1.0, 1.5])],
)
def test_a_constant_of_a_function_is_swept(swept: str, values: list[float]) -> None:
    grid = expand_grid(["variant=swiglu_beta", f"variant.gate_args.beta={swept}"])
    assert [load_config(words).variant.gate_args["beta"] for words in grid] == values


@pytest.mark.parametrize("swept", ["1,abc", "abc,xyz", "1,true"])
def test_text_in_a_sweep_of_a_constant_is_refused(swept: str) -> None:
    with pytest.raises(ConfigError, match="expected a number"):
        expand_grid(["variant=swiglu_beta", f"variant.gate_args.beta={swept}"])


@pytest.mark.parametrize("budget", ["train.tokens=4096", "train.steps=7", "train.epochs=0.5"])
@pytest.mark.parametrize("preset", ["default", "quick"])
def test_a_budget_replaces_the_presets_whatever_its_unit(budget: str, preset: str) -> None:
    train = load_config([f"train={preset}", budget]).train
    set_units = [unit for unit in ("tokens", "steps", "epochs") if getattr(train, unit) is not None]
    assert set_units == [budget.split("=")[0].removeprefix("train.")]


def test_two_budgets_on_the_command_line_are_refused() -> None:
    assert "train.tokens" in refused("train.tokens=4096", "train.steps=7")


@pytest.mark.parametrize(
    ("word", "files"),
    [
        ("data.files=notes.txt", ["notes.txt"]),
        ("data.files=my notes.txt", ["my notes.txt"]),
        ("data.files=naïve/Grüße 你好.txt", ["naïve/Grüße 你好.txt"]),
        ("data.files=a=b.txt", ["a=b.txt"]),
        ("data.files=a,b.txt", ["a,b.txt"]),
        ("data.files=it's.txt", ["it's.txt"]),
        ("data.files=src/**/*.py", ["src/**/*.py"]),
        ("data.files=a(1){2}.txt", ["a(1){2}.txt"]),
        ("data.files=back\\slash.txt", ["back\\slash.txt"]),
        ("data.files=trailing\\", ["trailing\\"]),
        ("data.files=null", ["null"]),
        ("data.files=1", ["1"]),
        ("data.files=[a.txt,b.txt]", ["a.txt", "b.txt"]),
        ("data.files=['a b.txt','c,d.txt']", ["a b.txt", "c,d.txt"]),
        ("data.files='quoted.txt'", ["quoted.txt"]),
    ],
)
def test_data_files_takes_a_path_as_it_is_written(word: str, files: list[str]) -> None:
    assert load_config(["data=text", word]).data.files == files


@settings(max_examples=15)
@example("a\\b")
@example("a\\'b\\")
@given(st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=30))
def test_data_files_keeps_any_printable_path(path: str) -> None:
    if path[0] in "['\"" or "${" in path or path != path.strip():
        return
    assert load_config(["data=text", f"data.files={path}"]).data.files == [path]


def own_variant(folder: Path, content: str | bytes, name: str = "mine") -> Path:
    path = folder / "variant" / f"{name}.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


OWN = "name: mine\nfamily: own\nformula: tanh(g) * u\nsource: me\ngated: true\ngate: tanh\n"


def test_a_variant_of_ones_own_is_a_file_in_config_dir(tmp_path: Path) -> None:
    own_variant(tmp_path, OWN)
    assert load_config(["variant=mine"], tmp_path).variant.gate == "tanh"
    assert "mine" in list_group("variant", tmp_path)
    assert read_variant("mine", tmp_path) == load_config(["variant=mine"], tmp_path).variant
    assert load_config(["variant=relu"], tmp_path).variant.name == "relu"


def test_a_config_dir_with_odd_signs_in_its_name_works(tmp_path: Path) -> None:
    folder = tmp_path / "it's a, [folder] = ü"
    own_variant(folder, OWN)
    assert load_config(["variant=mine"], folder).variant.name == "mine"


def test_a_config_dir_that_is_not_there_is_refused(tmp_path: Path) -> None:
    assert "no such folder" in refused(config_dir=tmp_path / "nosuch")


def test_a_missing_field_of_an_own_variant_is_named(tmp_path: Path) -> None:
    own_variant(tmp_path, OWN.replace("source: me\n", ""))
    assert "variant.source" in refused("variant=mine", config_dir=tmp_path)


def test_an_unknown_field_of_an_own_variant_is_named(tmp_path: Path) -> None:
    own_variant(tmp_path, OWN + "gat: relu\n")
    message = refused("variant=mine", config_dir=tmp_path)
    assert "gat" in message
    assert "did you mean 'variant.gate'" in message


ALIAS_BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join(['*' + before] * 9)}]\n"
    for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)

BROKEN_FILES = [
    pytest.param("name: mine\n  family: [\n", ":2", id="malformed"),
    pytest.param("name: mine\nfamily:\n\tcore\n", ":3", id="tab"),
    pytest.param("name: mine\nname: other\n", ":2", id="duplicate key"),
    pytest.param(ALIAS_BOMB, ":1", id="alias bomb"),
    pytest.param("name: mine\nfamily: !!python/object/apply:os.system [id]\n", ":2", id="tag"),
    pytest.param("name: d\xe9j\xe0\n".encode("latin-1"), "byte 7", id="latin-1"),
    pytest.param("name: " + "x" * (2 * 2**20), "1 MiB", id="2 MiB"),
    pytest.param("- a\n- b\n", "list", id="list"),
    pytest.param("just words", "str", id="text"),
    pytest.param("name: ${oc.env:HOME}\n", "not allowed", id="interpolation"),
    pytest.param("[" * 1000, "", id="deep nesting"),
    pytest.param("name: a\0b\n", "", id="NUL"),
]


@pytest.mark.parametrize(("content", "place"), BROKEN_FILES)
def test_a_broken_file_is_named_with_its_line_within_two_seconds(
    content: str | bytes, place: str, tmp_path: Path
) -> None:
    path = own_variant(tmp_path, content)
    for words in (["variant=mine"], ["variant=relu"]):
        began = time.monotonic()
        message = refused(*words, config_dir=tmp_path)
        assert time.monotonic() - began < 2
        assert str(path) in message
        assert place in message
    with pytest.raises(ConfigError, match="mine"):
        read_variant("mine", tmp_path)


def test_a_byte_order_mark_is_no_part_of_the_first_key(tmp_path: Path) -> None:
    own_variant(tmp_path, b"\xef\xbb\xbf" + OWN.encode())
    assert load_config(["variant=mine"], tmp_path).variant.name == "mine"


def test_an_empty_file_is_refused_by_name(tmp_path: Path) -> None:
    path = own_variant(tmp_path, "")
    with pytest.raises(ConfigError, match=str(path)):
        read_variant("mine", tmp_path)


def test_read_yaml_refuses_what_is_no_file(tmp_path: Path) -> None:
    for path in (tmp_path / "nosuch.yaml", tmp_path):
        with pytest.raises(ConfigError, match=str(path)):
            read_yaml(path)


@pytest.mark.parametrize(
    "line",
    ["_target_: os.system", "optim:\n  _target_: os.system", "name: ${oc.env:HOME}", "nosuch: 1"],
)
def test_a_saved_configuration_from_a_stranger_is_data_not_code(
    line: str, tmp_path: Path, tiny_config: TinyConfig
) -> None:
    text = render_config(tiny_config())
    path = tmp_path / "config.yaml"
    path.write_text(text.replace("optim:", line, 1) if line.startswith("optim") else f"{text}{line}\n")
    with pytest.raises(DataError, match=str(path)):
        read_config(path)


@pytest.mark.parametrize(
    ("old", "new"),
    [("seed: 0", "seed: -1"), ("seed: 0\n", ""), ("lr: 0.002", "lr: abc"), ("lr: 0.002", "l: 1")],
)
def test_a_saved_configuration_must_be_complete_and_within_ranges(
    old: str, new: str, tmp_path: Path, tiny_config: TinyConfig
) -> None:
    path = tmp_path / "config.yaml"
    text = render_config(tiny_config())
    assert old in text
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(DataError, match=str(path)):
        read_config(path)


def test_a_nullable_key_that_is_younger_than_a_saved_configuration_is_null(
    tmp_path: Path, tiny_config: TinyConfig
) -> None:
    path = tmp_path / "config.yaml"
    text = render_config(tiny_config())
    for name in rules.OPTIM_READERS:
        text = text.replace(f"  {name}: null\n", "")
    assert "momentum" not in text
    path.write_text(text)
    assert read_config(path) == tiny_config()


@settings(max_examples=15)
@given(
    lr=st.floats(min_value=0, max_value=1e9, exclude_min=True),
    seed=st.integers(0, 2**63 - 1),
    files=st.lists(st.text(st.characters(exclude_categories=["Cs"])), min_size=1, max_size=3),
    theta=st.floats(min_value=0, exclude_min=True, allow_infinity=False),
    formula=st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(str.strip),
)
def test_any_value_survives_rendering_and_reading(
    lr: float,
    seed: int,
    files: list[str],
    theta: float,
    formula: str,
    tmp_path: Path,
    tiny_config: TinyConfig,
) -> None:
    if any("${" in text for text in (*files, formula)):
        return
    chosen = tiny_config()
    chosen.optim.lr, chosen.seed, chosen.model.rope_theta = lr, seed, theta
    chosen.data.files, chosen.variant.formula = files, formula
    path = tmp_path / "config.yaml"
    path.write_text(render_config(chosen), encoding="utf-8", newline="")
    assert read_config(path) == chosen


def test_the_grid_is_a_product_whose_last_word_varies_fastest() -> None:
    assert expand_grid(["variant=relu,gelu", "model=pico", "seed=0,1"]) == [
        ["variant=relu", "model=pico", "seed=0"],
        ["variant=relu", "model=pico", "seed=1"],
        ["variant=gelu", "model=pico", "seed=0"],
        ["variant=gelu", "model=pico", "seed=1"],
    ]


@pytest.mark.parametrize(
    ("word", "expanded"),
    [
        ("seed=range(0,5)", [f"seed={i}" for i in range(5)]),
        ("seed=range(4)", [f"seed={i}" for i in range(4)]),
        ("seed=range(0,10,5)", ["seed=0", "seed=5"]),
        ("optim.lr=choice(1e-3,2e-3)", ["optim.lr=0.001", "optim.lr=0.002"]),
        ("variant=glob(*glu)", [f"variant={name}" for name in list_group("variant") if name.endswith("glu")]),
        ("variant=glob(*)", [f"variant={name}" for name in list_group("variant")]),
        ("seed=3", ["seed=3"]),
        ("train.epochs=null,2", ["train.epochs=null", "train.epochs=2"]),
    ],
)
def test_hydras_sweep_grammar_works(word: str, expanded: list[str]) -> None:
    assert [words[0] for words in expand_grid([word])] == expanded


def compose_grid(*words: str) -> list[schema.Config]:
    return [load_config(cell) for cell in expand_grid(words)]


def test_every_cell_of_a_grid_composes() -> None:
    cells = compose_grid("variant=glob(*eglu)", "optim.lr=1e-3,5e-4")
    assert [(cell.variant.name, cell.optim.lr) for cell in cells] == [
        (variant, lr) for variant in list_group("variant") if variant.endswith("eglu") for lr in (1e-3, 5e-4)
    ]


def test_a_glob_sees_a_variant_of_ones_own(tmp_path: Path) -> None:
    own_variant(tmp_path, OWN)
    assert expand_grid(["variant=glob(min*)"], tmp_path) == [["variant=mine"]]


@pytest.mark.parametrize(
    ("word", "part"),
    [
        ("variant=glob(nosuch*)", "empty"),
        ("seed=range(5,0)", "empty"),
        ("seed=1,2,1", "twice"),
        ("variant=relu,relu", "twice"),
        ("variant=relu,swigloo", "did you mean 'swiglu'"),
        ("optim.lrr=1,2", "did you mean 'optim.lr'"),
        ("optim.lr=1,abc", "a number"),
        ("+seed=1,2", "without '+'"),
        ("numerics_version=1,2", "read only"),
        ("seed=interval(0,1)", "seed"),
        ("variant=range(0,2)", "variant"),
        ("seed=glob(*)", "seed"),
    ],
)
def test_a_sweep_that_cannot_work_is_refused_in_one_line(word: str, part: str) -> None:
    with pytest.raises(ConfigError) as caught:
        compose_grid(word)
    assert part in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_configuration_folder_has_a_file_for_every_group_of_the_schema() -> None:
    needed = {"variant", "model", "match", "data", "tokenizer", "optim", "train", "parallel", "tracker"}
    assert needed | {"experiment"} <= set(list_groups())


def test_the_file_of_every_option_is_named_after_what_it_holds() -> None:
    root = find_config_root()
    for name in list_group("variant"):
        assert read_yaml(root / "variant" / f"{name}.yaml")["name"] == name
    for preset in list_group("model"):
        assert read_yaml(root / "model" / f"{preset}.yaml")["preset"] == preset


ODD_VALUES = (
    None,
    True,
    0,
    3,
    0.5,
    "",
    "3",
    "0.5",
    "true",
    "yes",
    "word",
    "???",
    [],
    ["a"],
    [1],
    {},
    {"a": 1},
)


@pytest.mark.parametrize(
    "group",
    [
        pytest.param(entry.name, marks=[] if entry.name in ("variant", "train", "data") else pytest.mark.slow)
        for entry in dataclasses.fields(schema.Config)
    ],
)
def test_what_is_read_without_omegaconf_is_what_it_would_have_read(
    group: str, tmp_path: Path, tiny_config: TinyConfig
) -> None:
    """Any value at any key, any key away, any key more."""
    path = tmp_path / "config.yaml"
    plain = dataclasses.asdict(tiny_config())
    keys = list(plain[group]) if isinstance(plain[group], dict) else []
    changed: list[dict[str, Any]] = [{**plain, group: value} for value in ODD_VALUES]
    changed.append({name: value for name, value in plain.items() if name != group})
    for key in keys:
        changed += [{**plain, group: {**plain[group], key: value}} for value in ODD_VALUES]
        changed.append({**plain, group: {name: plain[group][name] for name in keys if name != key}})
    changed += [{**plain, "more": 1}, {**plain, group: {**plain[group], "more": 1} if keys else 1}]
    n_filled = 0
    for tree in changed:
        filled = config_file._fill(schema.Config, tree)
        if filled is None:
            continue
        n_filled += 1
        try:
            config_file._check(filled)
        except ConfigError as error:
            with pytest.raises(ConfigError, match=re.escape(str(error))):
                config_file._convert(path, tree)
        else:
            assert repr(filled) == repr(config_file._convert(path, tree))
    assert n_filled >= 1
    assert config_file._fill(schema.Config, plain) == tiny_config()
