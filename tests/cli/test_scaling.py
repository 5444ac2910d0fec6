"""glu-bench scaling: its table, its JSON, its figure, its refusals."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.conftest import Command, TinyConfig
from tests.study.conftest import maker_of_runs

STEPS = (100, 300, 1000, 3000)


@pytest.fixture(scope="module")
def two_laws(tiny_config: TinyConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An output folder with two arms at four budgets: gelu of 2 + 5 steps^-0.3, swiglu 1.37 times as fast."""
    output_dir = tmp_path_factory.mktemp("laws")
    make = maker_of_runs(tiny_config, output_dir)
    for variant, times in (("gelu", 1.0), ("swiglu", 1.37)):
        for steps in STEPS:
            for seed, jitter in enumerate((-1e-5, 1e-5)):
                loss = 2.0 + 5.0 * (times * steps) ** -0.3 + jitter
                make(variant, seed, loss, f"train.steps={steps}", tokens=64 * steps, tokens_per_s=1000.0)
    return output_dir


def test_the_json_has_laws_predictions_and_speedups(call_command: Command, two_laws: Path) -> None:
    ended = call_command("scaling", "--output-dir", str(two_laws), "--predict", "1e6", "--json")
    assert ended.code == 0, ended.err
    value = json.loads(ended.out)
    assert next(iter(value)) == "schema_version"
    (scaling,) = value["scalings"]
    assert {key: scaling[key] for key in ("over", "split", "baseline")} == {
        "over": "tokens",
        "split": "test",
        "baseline": "gelu",
    }
    swiglu, gelu = scaling["curves"]
    assert (swiglu["arm"], gelu["arm"]) == ("swiglu", "gelu")
    assert set(gelu["law"]) == {
        *("l_inf_nats", "l_inf_ci95", "a_nats", "a_ci95", "alpha", "alpha_ci95", "residual_sd_nats", "n_dof"),
        "lack_of_fit_p",
    }
    assert gelu["law"]["alpha"] == pytest.approx(0.3, rel=1e-3)
    assert [point["c"] for point in gelu["points"]] == [64.0 * steps for steps in STEPS]
    (foretold,) = gelu["predictions"]
    assert foretold["c"] == 1e6
    assert foretold["loss_nats"] == pytest.approx(2 + 5 * (1e6 / 64) ** -0.3, rel=1e-4)
    assert foretold["beyond"] is True
    assert gelu["speedup"] is None
    assert swiglu["speedup"]["compute"] == pytest.approx(1.37, rel=1e-3)
    assert swiglu["speedup"]["wall"] == pytest.approx(1.37, rel=1e-3)
    assert value["figure"] is None


def test_the_table_shows_points_laws_and_what_is_beyond(
    call_command: Command, two_laws: Path, tmp_path: Path
) -> None:
    figure = tmp_path / "new" / "scaling.svg"
    words = ("scaling", "--output-dir", str(two_laws), "--predict", "1e6")
    ended = call_command(*words, "--figure", str(figure))
    assert ended.code == 0, ended.err
    assert "0.300 [0.2" in ended.out or "0.300 [0.300" in ended.out
    assert "at 1M [95 %]" in ended.out
    assert "swiglu over gelu: 1.37x in compute (" in ended.out
    assert "gelu at 1e+06 tokens: 5.21 times above the measured range" in ended.err
    assert figure.read_bytes().startswith(b"<?xml")
    quiet = call_command(*words, "--quiet")
    assert (quiet.out, quiet.err) == (ended.out, "")


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("--split", "train"), "--split train: val or test"),
        (("--over", "seconds"), "--over seconds: tokens, params, flops"),
        (("--predict", "-1"), "--predict -1: a number above zero"),
        (("--predict", "nan"), "--predict nan: a number above zero"),
        (("--figure", "a.gif"), "--figure a.gif: the file's ending"),
        (("--baseline", "relu"), "--baseline relu: not among the arms gelu, swiglu"),
        (("--over", "params"), "a fit takes 4 sizes"),
    ],
)
def test_what_cannot_be_is_one_line(
    call_command: Command, two_laws: Path, words: tuple[str, ...], why: str
) -> None:
    ended = call_command("scaling", "--output-dir", str(two_laws), *words)
    assert (ended.code, ended.out) == (2, "")
    assert len(ended.err.splitlines()) == 1
    assert why in ended.err


def test_an_empty_folder_says_what_to_run(call_command: Command, tmp_path: Path) -> None:
    ended = call_command("scaling", "--output-dir", str(tmp_path))
    assert ended.code == 2
    assert "glu-bench sweep variant=gelu,swiglu model=nano train.tokens=131072,262144," in ended.err
