"""What a sweep will run."""

from __future__ import annotations

import resource
from pathlib import Path

import pytest

from glu_bench import config as composing
from glu_bench import grid, schema
from glu_bench.config import load_config
from glu_bench.errors import ConfigError, DataError
from glu_bench.runs.record import write_record
from glu_bench.study.plan import Plan, find_plan, list_plans, load_plan, make_plan, resolve_run
from glu_bench.train.run import train_run
from glu_bench.train.stop import StopRequest
from glu_bench.words import spell_config


@pytest.fixture
def words(tiny_words: list[str]) -> list[str]:
    return tiny_words


def test_a_plan_holds_every_combination_in_the_order_of_the_grid(words: list[str], tmp_path: Path) -> None:
    plan = make_plan([*words, "variant=relu,gelu", "seed=0,1"], tmp_path)
    names = [planned.run_id.rsplit("-", 1)[0] for planned in plan.runs]
    assert names == ["relu-pico-text-s0", "relu-pico-text-s1", "gelu-pico-text-s0", "gelu-pico-text-s1"]
    assert not (tmp_path / "runs").exists()


def test_the_planned_id_is_the_id_that_training_gives(words: list[str], tmp_path: Path) -> None:
    words = [word for word in words if not word.startswith("train.precision=")]  # left to the machine
    plan = make_plan([*words, "variant=relu,gelu"], tmp_path)
    for planned in plan.runs:
        list(train_run(load_config(planned.words), tmp_path, StopRequest()))
        assert plan.run(planned).status() == "complete"


def test_the_same_grid_is_the_same_sweep(words: list[str], tmp_path: Path) -> None:
    one = make_plan([*words, "variant=relu,gelu"], tmp_path)
    content = (one.folder / "plan.json").read_bytes()
    other = make_plan([*words, "variant=relu,gelu"], tmp_path)
    assert one == other
    assert (one.folder / "plan.json").read_bytes() == content
    assert load_plan(one.folder) == one


def test_another_grid_is_another_sweep_that_shares_runs(words: list[str], tmp_path: Path) -> None:
    one = make_plan([*words, "variant=relu,gelu"], tmp_path)
    other = make_plan([*words, "variant=relu,gelu,swiglu"], tmp_path)
    assert one.sweep_id != other.sweep_id
    assert {planned.run_id for planned in one.runs} < {planned.run_id for planned in other.runs}


def test_a_name_in_use_for_another_grid_is_refused_with_the_difference(
    words: list[str], tmp_path: Path
) -> None:
    make_plan([*words, "variant=relu,gelu"], tmp_path, name="mine")
    content = (tmp_path / "sweeps" / "mine" / "plan.json").read_bytes()
    with pytest.raises(
        ConfigError, match=r"1 runs new and 1 gone;.*\n  \+ .*variant=swiglu\n  - .*variant=gelu"
    ):
        make_plan([*words, "variant=relu,swiglu"], tmp_path, name="mine")
    assert (tmp_path / "sweeps" / "mine" / "plan.json").read_bytes() == content
    assert make_plan([*words, "variant=relu,gelu"], tmp_path, name="mine").sweep_id == "mine"


@pytest.mark.parametrize(
    ("grid", "said"),
    [
        ("relu,gelu,swiglu", r"1 runs new and 0 gone;.*\n  \+ \S.*$"),
        ("relu", r"0 runs new and 1 gone;.*\n  - \S.*$"),
    ],
)
def test_a_name_in_use_is_refused_for_more_or_less_of_a_grid(
    grid: str, said: str, words: list[str], tmp_path: Path
) -> None:
    make_plan([*words, "variant=relu,gelu"], tmp_path, name="mine")
    with pytest.raises(ConfigError, match=said):
        make_plan([*words, f"variant={grid}"], tmp_path, name="mine")


def test_a_long_difference_is_cut_and_counted(words: list[str], tmp_path: Path) -> None:
    make_plan([*words, "seed=0"], tmp_path, name="mine")
    with pytest.raises(ConfigError, match="12 runs new and 1 gone") as caught:
        make_plan([*words, "seed=range(1,13)"], tmp_path, name="mine")
    lines = str(caught.value).splitlines()
    assert [line.strip()[0] for line in lines[1:]] == ["+"] * 8 + ["-", "…"]
    assert lines[-1] == "  … and 4 more"


@pytest.mark.parametrize("word", ["train.log_every=1,2", "train.threads=1,2"])
def test_two_cells_that_are_one_run_are_refused(word: str, words: list[str], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="the same run twice"):
        make_plan([*words, word], tmp_path)


@pytest.mark.parametrize("name", ["a/b", "../x", ".", "..", ".hidden", "/abs", "x" * 300])
def test_a_name_that_is_no_folder_name_is_refused(name: str, words: list[str], tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        make_plan([*words, "seed=0,1"], tmp_path, name=name)
    assert not list(tmp_path.rglob("plan.json"))


def test_a_cell_that_cannot_run_refuses_the_sweep_before_anything_is_written(
    words: list[str], tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="even heads"):
        make_plan([*words, "model.d_model=48,33"], tmp_path)
    with pytest.raises(ConfigError, match="match=params"):
        make_plan([*words, "match.multiple_of=1,256"], tmp_path)
    with pytest.raises(ConfigError, match="slu"):
        make_plan([*words, "variant.gate=silu,slu"], tmp_path)
    assert not (tmp_path / "sweeps").exists()


def test_a_dry_plan_writes_nothing(words: list[str], tmp_path: Path) -> None:
    assert len(make_plan([*words, "seed=0,1"], tmp_path, write=False).runs) == 2
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def two_plans(words: list[str], tmp_path: Path) -> list[Plan]:
    return [make_plan([*words, "seed=0,1"], tmp_path, name=name) for name in ("first", "fifth")]


def test_plans_are_found_by_name_prefix_and_folder(two_plans: list[Plan], tmp_path: Path) -> None:
    assert find_plan("first", tmp_path) == two_plans[0]
    assert find_plan("fif", tmp_path) == two_plans[1]
    assert find_plan(str(two_plans[0].folder), tmp_path / "x").runs == two_plans[0].runs
    assert [plan.sweep_id for plan in list_plans(tmp_path)] == ["fifth", "first"]
    assert list_plans(tmp_path / "nosuch") == []


def test_a_prefix_of_two_plans_or_of_none_is_refused(two_plans: list[Plan], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"names 2 sweeps.*fifth, first; write more of the id"):
        find_plan("fi", tmp_path)
    with pytest.raises(ConfigError, match="names 0 sweeps"):
        find_plan("second", tmp_path)


@pytest.mark.parametrize(
    ("record", "said"),
    [
        ({}, "not a plan"),
        ({"runs": 3}, "not a plan"),
        ({"runs": [{"run_id": "x"}]}, "not a plan"),
        ({"runs": [{"run_id": "x", "words": 3, "identity": {}}]}, "not a plan"),
        ({"runs": ["x"]}, "not a plan"),
        ({"runs": [{"run_id": "../../evil", "words": [], "identity": {}}]}, "not a run id"),
        ({"runs": [{"run_id": "/etc", "words": [], "identity": {}}]}, "not a run id"),
        ({"runs": [{"run_id": "..", "words": [], "identity": {}}]}, "not a run id"),
        ({"runs": [{"run_id": ".hidden", "words": [], "identity": {}}]}, "not a run id"),
        ({"runs": [{"run_id": "", "words": [], "identity": {}}]}, "not a run id"),
        ({"runs": [{"run_id": "x", "words": ["--plugin=x.py"], "identity": {}}]}, "not a setting"),
        ({"runs": [{"run_id": "x", "words": ["x.py"], "identity": {}}]}, "not a setting"),
    ],
)
def test_a_plan_that_is_none_or_leaves_the_folder_is_refused(
    record: dict[str, object], said: str, tmp_path: Path
) -> None:
    write_record(tmp_path / "plan.json", record)
    with pytest.raises(DataError, match=rf"plan\.json: .*{said}"):
        load_plan(tmp_path)


def test_a_plan_edited_by_hand_is_refused(words: list[str], tmp_path: Path) -> None:
    plan = make_plan([*words, "seed=0,1"], tmp_path, name="mine")
    path = plan.folder / "plan.json"
    path.write_text(path.read_text().replace("seed=1", "seed=7"))
    with pytest.raises(DataError, match="edited"):
        make_plan([*words, "seed=0,1"], tmp_path, name="mine")


def test_extend_adds_what_is_new_and_keeps_what_was(words: list[str], tmp_path: Path) -> None:
    before = make_plan([*words, "seed=0,1"], tmp_path, name="mine")
    after = make_plan([*words, "seed=1,2"], tmp_path, name="mine", extend=True)
    assert [planned.words[-1] for planned in after.runs] == ["seed=0", "seed=1", "seed=2"]
    assert after.runs[:2] == before.runs
    assert load_plan(after.folder) == after
    with pytest.raises(ConfigError, match="no sweep other"):
        make_plan([*words, "seed=1,2"], tmp_path, name="other", extend=True)


def test_files_are_composed_once_a_choice_of_them(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    composed: list[list[str]] = []

    def count(words: list[str], config_dir: Path | None) -> schema.Config:
        composed.append(words)
        return load_config(words, config_dir)

    monkeypatch.setattr(grid, "load_config", count)
    plan = make_plan([*words, "variant=relu,gelu", "seed=range(0,100)", "optim.lr=1e-3,2"], tmp_path)
    assert len(plan.runs) == 400
    assert len(composed) == 1  # the other variant is a file put in its place


@pytest.mark.parametrize(
    ("more", "n_composed"),
    [
        ([], 1),
        (["optim=adamw,muon"], 2),
        (["match=width,params", "seed=1,2"], 2),
        (["variant.up_clamp=7"], 3),  # reaches into the variant's file
        (["experiment=smoke"], 3),
    ],
)
def test_a_cell_is_what_composing_it_gives(
    more: list[str], n_composed: int, words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    n_calls = 0

    def count(words: list[str], config_dir: Path | None) -> schema.Config:
        nonlocal n_calls
        n_calls += 1
        return load_config(words, config_dir)

    monkeypatch.setattr(grid, "load_config", count)
    words = [word for word in words if not more or not word.startswith("experiment")]
    cells = list(grid.load_grid([*words, "variant=swiglu,swiglu_beta,reglu2_norm", *more]))
    assert n_calls == n_composed
    for cell, config in cells:
        assert config == load_config(cell), cell


@pytest.mark.slow
def test_a_thousand_runs_are_planned_and_skipped_with_few_files_open(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = make_plan([*words, "variant=relu,gelu", "seed=range(0,500)"], tmp_path)
    for planned in plan.runs[:900]:
        path = plan.run(planned).path
        path.mkdir(parents=True)
        write_record(path / "result.json", {"test_loss_nats": 1.0, "tokens_per_s": 1.0})
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    n_open = len(list(Path("/proc/self/fd").iterdir()))
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 100 + n_open), hard))
    try:
        again = make_plan([*words, "variant=relu,gelu", "seed=range(0,500)"], tmp_path)
        assert sum(again.run(planned).outcome() == "complete" for planned in again.runs) == 900
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize(
    "more",
    [
        ["variant=relu,swiglu_oai", "optim=adamw,muon", "seed=0,1"],
        ["variant=xielu", "optim=adafactor", "match=params,width"],
        ["variant=geglu", "match=none", "match.d_ff=96,128", "init=moment"],
        ["variant=swish_beta", "variant.activation_args.beta=0.5,2", "optim.lr=1e-3,2e-3"],
    ],
)
def test_a_resolved_run_is_the_planned_one_whatever_the_machine_and_configs_say(
    more: list[str], words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (text,) = (Path(word.partition("=")[2]) for word in words if word.startswith("data.files="))
    monkeypatch.chdir(text.parent)
    kept = [w for w in words if not w.startswith(("data.files", "train.precision", "train.compile"))]
    plan = make_plan([*kept, f"data.files={text.name}", *more], tmp_path)
    commands = {planned.run_id: spell_config(resolve_run(plan, planned)) for planned in plan.runs}
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    monkeypatch.setattr(composing, "find_config_root", lambda: tmp_path / "elsewhere")
    monkeypatch.setattr("glu_bench.device.has_bf16", lambda device: True)
    monkeypatch.setattr("glu_bench.device.find_missing_compiler", lambda device: None)
    for run_id, command in commands.items():
        assert [planned.run_id for planned in make_plan(command, tmp_path).runs] == [run_id]


def test_a_run_that_the_files_no_longer_give_is_not_resolved_to_another(
    words: list[str], tmp_path: Path
) -> None:
    own = tmp_path / "own"
    (own / "variant").mkdir(parents=True)
    text = "name: mine\nfamily: own\nformula: tanh(g) * u\nsource: me\ngated: true\ngate: tanh\n"
    (own / "variant" / "mine.yaml").write_text(text)
    made = make_plan([*words, "variant=mine"], tmp_path, config_dir=own)
    plan = load_plan(made.folder)
    (planned,) = plan.runs
    assert resolve_run(plan, planned, own) == resolve_run(made, made.runs[0])
    (own / "variant" / "mine.yaml").write_text(text.replace("gate: tanh", "gate: relu"))
    with pytest.raises(ConfigError, match=r"variant.gate was 'tanh' when .* and is 'relu' now"):
        resolve_run(plan, planned, own)
    assert resolve_run(made, made.runs[0]).variant.gate == "tanh"
    list(train_run(resolve_run(made, made.runs[0]), tmp_path, StopRequest()))
    assert resolve_run(plan, planned, own).variant.gate == "tanh"  # as its folder has it
