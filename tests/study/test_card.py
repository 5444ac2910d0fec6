"""Cards: the published numbers as printed, and every mistake in a card said in one line with its key."""

from __future__ import annotations

from pathlib import Path

import pytest

from glu_bench.config import find_config_root, list_groups, load_config
from glu_bench.errors import ConfigError
from glu_bench.study.card import find_column, find_scale, list_cards, load_card, spell_grid
from tests.stats.test_golden import SHAZEER as SHORT

LONG = {
    "relu": 1.677,
    "gelu": 1.679,
    "swish": 1.683,
    "glu": 1.663,
    "bilinear": 1.648,
    "geglu": 1.633,
    "swiglu": 1.636,
    "reglu": 1.645,
}
NARANG = {
    "relu": 1.838,
    "gelu": 1.838,
    "swish": 1.847,
    "elu": 1.932,
    "glu": 1.814,
    "geglu": 1.792,
    "reglu": 1.803,
    "selu": 1.948,
    "swiglu": 1.789,
    "bilinear": 1.798,
    "sigmoid": 1.867,
    "softplus": 1.850,
}
SHAZEER = find_config_root() / "reproduce" / "shazeer2020.yaml"


def test_the_numbers_of_shazeer_are_those_printed() -> None:
    card = load_card("shazeer2020")
    short, long = card.columns["short"], card.columns["long"]
    assert {arm: (row.mean, row.sd) for arm, row in short.arms.items()} == SHORT
    assert {arm: (row.mean, row.sd) for arm, row in long.arms.items()} == {
        a: (m, None) for a, m in LONG.items()
    }
    assert (short.n, long.n) == (4, 1)
    assert list(card.arms) == list(SHORT)


def test_the_numbers_of_narang_are_those_printed() -> None:
    card = load_card("narang2021")
    (column,) = card.columns.values()
    assert {arm: (row.mean, row.sd) for arm, row in column.arms.items()} == {
        arm: (mean, None) for arm, mean in NARANG.items()
    }
    assert column.n == 1


def test_the_assumed_noise_is_pooled_from_the_short_column() -> None:
    pooled = (sum(sd**2 for _, sd in SHORT.values()) / len(SHORT)) ** 0.5
    for name, column in (("shazeer2020", "long"), ("narang2021", "final")):
        noise = load_card(name).columns[column].noise
        assert noise is not None
        assert (noise.sd, noise.df) == (pytest.approx(pooled, abs=5e-5), 8 * 3)


@pytest.mark.parametrize("name", list_cards())
def test_every_scale_is_a_protocol_of_equal_tuning(name: str) -> None:
    card = load_card(name)
    assert {"pico", "nano"} <= set(card.scales)
    for scale in card.scales.values():
        assert len(scale.seeds) >= 3
        for key, grid in scale.tune.items():
            assert grid == sorted(grid)  # the middle of it is what --quick takes
            load_config([f"model={scale.model}", spell_grid(key, grid[:1]), *scale.overrides])
    nano = card.scales["nano"]
    assert len(nano.seeds) >= 5
    assert len(nano.tune["optim.lr"]) >= 4
    assert nano.tokens >= 4_000_000


def test_a_card_is_no_group_of_the_configuration(tmp_path: Path) -> None:
    (tmp_path / "reproduce").mkdir()
    assert "reproduce" not in list_groups(tmp_path)
    with pytest.raises(ConfigError, match="reproduce=shazeer2020: no such key"):
        load_config(["reproduce=shazeer2020"])


def test_a_card_of_ones_own_is_found_by_name_and_by_file(tmp_path: Path) -> None:
    (tmp_path / "reproduce").mkdir()
    own = tmp_path / "reproduce" / "mine.yaml"
    own.write_text(SHAZEER.read_text().replace("name: shazeer2020", "name: mine"))
    assert list_cards(tmp_path) == ["mine", "narang2021", "shazeer2020"]
    assert load_card("mine", tmp_path) == load_card(str(own))


def test_columns_and_scales_are_found_by_name_the_first_by_default() -> None:
    card = load_card("shazeer2020")
    assert find_column(card, None) == ("short", card.columns["short"])
    assert find_scale(card, None) == ("pico", card.scales["pico"])
    assert find_scale(card, "nano") == ("nano", card.scales["nano"])
    with pytest.raises(ConfigError, match=r"--column shrot: .*short, long; did you mean 'short'"):
        find_column(card, "shrot")
    with pytest.raises(ConfigError, match=r"--scale huge: .*pico, nano, micro"):
        find_scale(card, "huge")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("shazer2020", "known: .*shazeer2020; did you mean 'shazeer2020'"),
        ("no/such.yaml", "no/such.yaml: not there"),
    ],
)
def test_a_card_that_is_not_there(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_card(text)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("name: shazeer2020", "name: other", "name: 'other', but the file's is 'shazeer2020'"),
        ("title:", "titel:", "titel: no such key; known: name, title"),
        (
            "relu: {mean: 1.997",
            "relu: {meen: 1.997",
            "columns.short.arms.relu.meen: no such key; known: mean, sd",
        ),
        ("mean: 1.997", "mean: abc", "columns.short.arms.relu.mean: Value 'abc'"),
        ("mean: 1.997", "mean: .nan", "columns.short.arms.relu.mean: nan is not finite"),
        ("sd: 0.005", "sd: -1", "columns.short.arms.relu.sd: -1; a number > 0"),
        ("sd: 0.005", "sd: 0", "columns.short.arms.relu.sd: 0; a number > 0"),
        (", sd: 0.005", "", "columns.short.arms.relu.sd: missing"),
        ("relu: {mean: 1.997, sd: 0.005}", "relu:", "columns.short.arms.relu: missing"),
        ("relu: {mean: 1.997, sd: 0.005}", "relu: 1.997", "columns.short.arms.relu: "),
        ("relu: {mean: 1.997", "mish: {mean: 1.997", "columns.short.arms.mish: not among the card's arms"),
        ("n: 4", "n: four", "columns.short.n: Value 'four'"),
        ("n: 4", "n: 0", "columns.short.n: 0; 1 or more"),
        ("n: 4", "n: 1", "columns.short.arms.relu.sd: 0.005, but columns.short.n is 1"),
        ("    n: 1\n", "", "columns.long.n: missing"),
        (
            "    n: 4\n",
            "    n: 4\n    noise: {sd: 1, df: 3, reason: x}\n",
            "columns.short.noise: the column prints",
        ),
        ("sd: 0.0055", "sd: 0.0", "columns.long.noise.sd: 0; a number > 0"),
        ("df: 24", "df: 0", "columns.long.noise.df: 0; 1 or more"),
        ("relu: FFN_ReLU", "rele: FFN_ReLU", "arms.rele: no such variant; did you mean 'relu'"),
        ("scales:", "scales: []\nmore:", "scales: "),
        ("seeds: [0, 1, 2]", "seeds: []", "scales.pico.seeds: []; one seed or more"),
        ("seeds: [0, 1, 2]", "seeds: [0, 0]", "scales.pico.seeds: [0, 0]; one seed or more, each once"),
        ("seeds: [0, 1, 2]", "seeds: 3", "scales.pico.seeds: a list was expected"),
        ("tune_seeds: [100]", "tune_seeds: [1]", "scales.pico.tune_seeds: 1 is also in seeds"),
        ("    tune_seeds: [100]\n", "", "scales.pico.tune_seeds: needed where something is tuned"),
        ("model: pico", "model: pica", "scales.pico.model: model=pica: no such model"),
        ("tokens: 262_144", "tokens: 0", "scales.pico.tokens: 0; 1 or more"),
        (
            "data=stdlib",
            "daata=stdlib",
            "scales.pico.overrides: daata=stdlib: no such key; did you mean 'data'",
        ),
        (
            "data=stdlib",
            '"train=quick,default"',
            "scales.pico.overrides: train=quick,default train.compile=false: one",
        ),
        ("data=stdlib", "seed=3", "scales.pico.overrides: seed=3: seed has its own place"),
        ("data=stdlib", "optim.lr=1", "scales.pico.overrides: optim.lr=1: optim.lr is tuned"),
        ("optim.lr: [4e-3", "optim.lrr: [4e-3", "scales.pico.tune.optim.lrr: optim.lrr=0.004"),
        ("[4e-3, 8e-3, 1.6e-2]", "[4e-3]", "scales.pico.tune.optim.lr: at least two values"),
        ("[4e-3, 8e-3, 1.6e-2]", "[8e-3, 4e-3]", "scales.pico.tune.optim.lr: from low to high"),
        ("[4e-3, 8e-3, 1.6e-2]", "[a, b]", "scales.pico.tune.optim.lr: optim.lr=a: expected a number > 0"),
    ],
)
def test_a_mistake_is_one_line_with_its_key(old: str, new: str, message: str, tmp_path: Path) -> None:
    text = SHAZEER.read_text()
    assert old in text
    path = tmp_path / "shazeer2020.yaml"
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(ConfigError) as caught:
        load_card(str(path))
    assert str(caught.value).startswith(f"{path}: {message}")
    assert "\n" not in str(caught.value)


def test_a_grid_is_spelled_as_the_command_line_takes_it() -> None:
    assert spell_grid("optim.lr", [0.0005, 0.016, 2]) == "optim.lr=0.0005,0.016,2"
    assert spell_grid("optim.schedule", ["cosine", "wsd"]) == "optim.schedule=cosine,wsd"
