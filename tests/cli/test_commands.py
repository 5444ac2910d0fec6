"""Each verb: its JSON, its streams, its exit code."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from glu_bench.cli import main as room
from glu_bench.runs.checkpoint import list_checkpoints
from glu_bench.runs.folder import Run, list_runs
from glu_bench.train.run import train_run
from glu_bench.train.stop import StopRequest
from tests.conftest import Command, TinyConfig, Train


@pytest.fixture(scope="session")
def four_runs(tiny_config: TinyConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An output folder with two arms of two seeds."""
    output_dir = tmp_path_factory.mktemp("four")
    for variant in ("gelu", "swiglu"):
        for seed in (0, 1):
            config = tiny_config(f"variant={variant}", "train.steps=2")
            config.seed = seed
            list(train_run(config, output_dir, StopRequest()))
    return output_dir


Json = Callable[..., dict[str, Any]]


def refuse_constant(word: str) -> None:
    raise AssertionError(f"{word} is not strict JSON")


@pytest.fixture
def call_json(call_command: Command) -> Json:
    """Calls a command with --json; its stdout must be exactly one object, the version first."""

    def call(*words: str, code: int = 0) -> dict[str, Any]:
        ended = call_command(*words, "--json")
        assert ended.code == code, ended.err
        assert ended.out.endswith("}\n")
        assert ended.out.count("\n") == 1
        value = json.loads(ended.out, parse_constant=refuse_constant)
        assert next(iter(value)) == "schema_version"
        return value

    return call


def test_train_prints_the_record_and_where_it_lies(
    tiny_words: list[str], call_json: Json, tmp_path: Path
) -> None:
    value = call_json("train", *tiny_words, "--output-dir", str(tmp_path))
    assert value["status"] == "complete"
    assert Path(value["run_dir"]) == tmp_path / "runs" / value["run_id"]
    again = call_json("train", *tiny_words, "--output-dir", str(tmp_path))
    assert again == value


def test_eval_measures_each_run_named(four_runs: Path, call_json: Json) -> None:
    names = [run.run_id for run in list_runs(four_runs)][:2]
    value = call_json("eval", *names, "--split", "val", "--output-dir", str(four_runs))
    assert [entry["run_id"] for entry in value["runs"]] == names
    keys = {"run_id", "split", "loss_nats", "perplexity", "bits_per_byte", "tokens", "bytes", "stride"}
    assert all(keys <= set(entry) for entry in value["runs"])


def test_compare_prints_the_keys_of_the_interface(four_runs: Path, call_json: Json) -> None:
    value = call_json("compare", "--output-dir", str(four_runs), "--baseline", "gelu")
    (table,) = value["tables"]
    fixed = "setting baseline split left_out detectable_nats verdict warnings arms pairs"
    assert set(fixed.split()) <= set(table)
    fixed = (
        "arm n_finished n_planned n_diverged mean_loss_nats sd_loss_nats ci95 perplexity bits_per_byte "
        "difference_nats difference_ci95 p_raw p_holm verdict letters n_params n_ffn_params "
        "match_residual flops_per_token tokens_per_s peak_bytes speedup"
    )
    assert all(set(fixed.split()) <= set(arm) for arm in table["arms"])
    words = {"baseline", "better", "worse", "not_separable", "insufficient"}
    assert {arm["verdict"] for arm in table["arms"]} <= words
    assert [arm["verdict"] for arm in table["arms"] if arm["arm"] == "gelu"] == ["baseline"]


def test_compare_takes_arms_of_two_keys(four_runs: Path, call_json: Json) -> None:
    value = call_json("compare", "--output-dir", str(four_runs), "--arms", "variant, seed")
    assert len(value["tables"][0]["arms"]) == 4


def test_variants_lists_the_family_and_one_of_it(call_json: Json) -> None:
    names = [entry["name"] for entry in call_json("variants")["variants"]]
    assert {"relu", "gelu", "swish", "glu", "bilinear", "reglu", "geglu", "swiglu"} <= set(names)
    value = call_json("variants", "swiglu")
    assert value["variant"]["gated"] is True
    assert all(size["match_residual"] == 0 for size in value["sizes"])


def test_runs_are_listed_and_shown(four_runs: Path, call_json: Json) -> None:
    listed = call_json("runs", "list", "--output-dir", str(four_runs))["runs"]
    assert [entry["status"] for entry in listed] == ["complete"] * 4
    value = call_json("runs", "show", listed[0]["run_id"], "--output-dir", str(four_runs))
    assert value["status"] == "complete"
    assert value["result"]["test_loss_nats"] == listed[0]["test_loss_nats"]
    assert value["config"]["train"]["steps"] == 2


def test_sample_is_the_same_for_the_same_seed(finished_run: Run, call_json: Json) -> None:
    words = ("sample", str(finished_run.path), "--tokens", "20", "--prompt", "ab")
    one, other = (call_json(*words, "--seed", "1") for _ in range(2))
    assert one == other
    assert one["tokens"] == 20
    assert call_json(*words, "--seed", "2")["text"] != one["text"]


def test_a_dry_sweep_prints_the_plan_and_writes_nothing(
    tiny_words: list[str], call_json: Json, tmp_path: Path
) -> None:
    value = call_json(
        *("sweep", *tiny_words, "variant=relu,gelu", "seed=0,1", "--dry-run", "--output-dir", str(tmp_path))
    )
    assert value["planned"] == len(value["runs"]) == 4
    assert not (tmp_path / "sweeps").exists()


def test_status_without_a_sweep_is_an_empty_list(call_json: Json, tmp_path: Path) -> None:
    assert call_json("status", "--output-dir", str(tmp_path))["sweeps"] == []


def test_status_without_a_sweep_says_so_unless_quiet(call_command: Command, tmp_path: Path) -> None:
    words = ("status", "--output-dir", str(tmp_path))
    assert call_command(*words).out == f"no sweeps under {tmp_path}/sweeps\n"
    quiet = call_command(*words, "--quiet")
    assert (quiet.code, quiet.out, quiet.err) == (0, "", "")


def test_status_shows_what_is_left(
    tiny_words: list[str], call_json: Json, call_command: Command, train: Train, tmp_path: Path
) -> None:
    from glu_bench.study.plan import make_plan

    make_plan([*tiny_words, "variant=relu,gelu"], tmp_path, name="mine")
    train("variant=relu")
    (sweep,) = call_json("status", "--output-dir", str(tmp_path))["sweeps"]
    assert [run["status"] for run in sweep["runs"]] == ["complete", "planned"]
    assert "mine: 1 of 2 complete" in call_command("status", "mine", "--output-dir", str(tmp_path)).out


def test_a_complete_sweep_runs_nothing(
    tiny_words: list[str], train: Train, call_json: Json, tmp_path: Path
) -> None:
    train("variant=relu")
    value = call_json("sweep", *tiny_words, "variant=relu", "--output-dir", str(tmp_path))
    assert (value["planned"], value["complete"], value["skipped"], value["failed"]) == (1, 0, 1, [])


def test_the_configuration_is_printed_and_nothing_done(
    tiny_words: list[str], call_command: Command, tmp_path: Path
) -> None:
    from glu_bench.config import load_config
    from glu_bench.config_file import read_config

    ended = call_command("train", *tiny_words, "--cfg", "--output-dir", str(tmp_path / "o"))
    assert "  lr: 0.002  # peak learning rate" in ended.out
    (tmp_path / "config.yaml").write_text(ended.out)
    assert read_config(tmp_path / "config.yaml") == load_config(tiny_words)
    assert not (tmp_path / "o").exists()


def test_results_go_to_stdout_and_progress_to_stderr(
    tiny_words: list[str], call_command: Command, tmp_path: Path
) -> None:
    ended = call_command("train", *tiny_words, "--output-dir", str(tmp_path))
    assert ended.code == 0
    assert "test perplexity" in ended.out
    assert "step 6/6" not in ended.out
    assert "step 6/6" in ended.err
    again = call_command("train", *tiny_words, "--output-dir", str(tmp_path))
    assert again.out == ended.out
    assert "already complete" in again.err


def test_quiet_leaves_stderr_empty(
    tiny_words: list[str], four_runs: Path, call_command: Command, tmp_path: Path
) -> None:
    name = list_runs(four_runs)[0].run_id
    for words in (
        ("train", *tiny_words, "--output-dir", str(tmp_path)),
        ("eval", name, "--output-dir", str(four_runs)),
        ("compare", "--output-dir", str(four_runs)),
        ("sweep", *tiny_words, "--output-dir", str(tmp_path)),
        ("sample", name, "--tokens", "2", "--output-dir", str(four_runs)),
        ("status", "--output-dir", str(tmp_path)),
        ("runs", "show", name, "--output-dir", str(four_runs)),
        ("runs", "diff", name, name, "--output-dir", str(four_runs)),
        ("variants", "relu"),
    ):
        ended = call_command(*words, "--quiet")
        assert (ended.code, ended.err) == (0, "")


@pytest.mark.parametrize(
    ("words", "code", "part"),
    [
        (("train", "optim.lrr=3"), 2, "did you mean 'optim.lr'"),
        (("train", "variant=swigloo"), 2, "did you mean 'swiglu'"),
        (("train", "data=text", "data.files=nosuch.txt"), 3, "nosuch.txt"),
        (("train", "train.device=cuda:7"), 7, "cuda:7"),
        (("train", "train.device=gpu"), 2, "cpu"),
        (("sweep", "seed=2,2"), 2, "twice"),
        (("eval", "nosuch"), 2, "no run 'nosuch'"),
        (("compare",), 2, "no runs to compare"),
        (("compare", "nosuch"), 2, "nosuch"),
        (("compare", "--split", "train"), 2, "val or test"),
        (("sample", "nosuch"), 2, "no run"),
        (("runs", "show", "nosuch"), 2, "no run"),
        (("status", "nosuch"), 2, "nosuch"),
        (("variants", "swigloo"), 2, "did you mean 'swiglu'"),
        (("nosuch",), 2, "nosuch"),
        (("train", "--nosuch"), 2, "--nosuch"),
        (("sweep", "-j", "0"), 2, "-j"),
        (("sweep", "seed=0,1", "--widen"), 2, "--widen: goes with --tune"),
        (("sweep", "seed=0,1", "--tune-seeds", "7"), 2, "--tune-seeds 7: goes with --tune"),
        (("sweep", "--tune", "optim.lr=1e-3,2e-3", "--name", "t", "--extend"), 2, "--extend: with --tune"),
    ],
)
def test_a_mistake_ends_with_its_code_and_a_word_on_stderr(
    words: tuple[str, ...], code: int, part: str, call_command: Command, tmp_path: Path
) -> None:
    where = () if words[0] in ("variants", "nosuch") else ("--output-dir", str(tmp_path / "o"))
    ended = call_command(*words, *where)
    assert ended.code == code
    assert part in ended.err
    assert ended.out == ""
    assert "Traceback" not in ended.err
    assert not (tmp_path / "o").exists()


def test_a_diverged_run_exits_4_both_times(
    tiny_words: list[str], call_command: Command, tmp_path: Path
) -> None:
    words = [word for word in tiny_words if not word.startswith("train.steps")]
    words += ["train.steps=40", "optim.lr=1e9", "optim.eps=1e-30", "optim.clip_norm=1e9"]
    for _ in range(2):
        ended = call_command("train", *words, "--output-dir", str(tmp_path), "--json")
        assert ended.code == 4
        assert "diverged at step" in ended.err.splitlines()[-1]
        assert ended.out == ""


def test_an_unknown_split_or_an_empty_prompt_is_refused(finished_run: Run, call_command: Command) -> None:
    assert call_command("eval", str(finished_run.path), "--split", "dev").code == 2
    assert call_command("sample", str(finished_run.path), "--prompt", "").code == 2


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory")])
def test_running_out_of_memory_exits_6(
    error: Exception, call_command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> None:
        raise error

    monkeypatch.setattr(room, "app", fail)
    ended = call_command("train")
    assert ended.code == 6
    assert "out of memory" in ended.err


def test_a_bug_of_ours_is_not_dressed_up(call_command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise RuntimeError("shape mismatch")

    monkeypatch.setattr(room, "app", fail)
    with pytest.raises(RuntimeError, match="shape mismatch"):
        call_command("train")


HOSTILE = "[/x]\x1b[31m\u202e"
CONTROLS = {"\x1b", "\u202e"}


def test_hostile_text_in_a_variant_is_shown_as_text(call_command: Command, tmp_path: Path) -> None:
    (tmp_path / "variant").mkdir()
    text = json.dumps(HOSTILE)
    (tmp_path / "variant" / "mine.yaml").write_text(
        f"name: mine\nfamily: {text}\nformula: {text}\nsource: {text}\ngated: false\nactivation: relu\n"
    )
    for words in (("variants",), ("variants", "mine")):
        ended = call_command(*words, "--config-dir", str(tmp_path))
        assert ended.code == 0, ended.err
        assert "[/x]" in ended.out
        assert not CONTROLS & set(ended.out)


def test_hostile_names_of_folders_are_shown_as_text(
    finished_run: Run, call_command: Command, tmp_path: Path
) -> None:
    output_dir = tmp_path / HOSTILE.replace("/", "")
    copied = output_dir / "runs" / "[x]\x1b[31m"
    shutil.copytree(finished_run.path, copied)
    for words in (("runs", "list"), ("runs", "show", "[x]"), ("status",), ("eval", "[x]")):
        ended = call_command(*words, "--output-dir", str(output_dir))
        assert ended.code == 0, ended.err
        assert not CONTROLS & set(ended.out + ended.err)


@pytest.mark.parametrize("words", [("runs", "list"), ("status",)])
def test_an_output_folder_that_reads_like_markup_is_shown_as_text(
    words: tuple[str, ...], call_command: Command, tmp_path: Path
) -> None:
    ended = call_command(*words, "--output-dir", str(tmp_path / "[" / "x]"))
    assert ended.code == 0
    assert "[/x]" in ended.out


def test_hostile_text_in_an_error_is_shown_as_text(
    train: Train, call_command: Command, tmp_path: Path
) -> None:
    train("train.steps=1")
    (run,) = list_runs(tmp_path)
    (checkpoint,) = list_checkpoints(run.checkpoints)
    manifest = json.loads((checkpoint / "manifest.json").read_text())
    (checkpoint / "manifest.json").write_text(json.dumps({**manifest, "run_id": HOSTILE}))
    ended = call_command("eval", run.run_id, "--output-dir", str(tmp_path))
    assert ended.code == 3
    assert "belongs to run" in ended.err
    assert not CONTROLS & set(ended.err)


@pytest.mark.parametrize(
    ("name", "value"),
    [("NO_COLOR", "1"), ("TERM", "dumb"), ("COLUMNS", "20"), ("FORCE_COLOR", "1"), ("COLUMNS", "x")],
)
def test_an_odd_terminal_changes_no_result(
    name: str, value: str, four_runs: Path, call_command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("compare", "--output-dir", str(four_runs))
    expected = call_command(*words)
    monkeypatch.setenv(name, value)
    ended = call_command(*words)
    assert ended.code == 0
    plain = re.sub(r"\x1b\[[\d;]*m", "", ended.out)
    if name == "FORCE_COLOR":  # a terminal, which is wider: more columns, the same in those of before
        assert plain != ended.out
        assert set(re.findall(r"[^\s─]+", expected.out)) <= set(plain.split())
    else:
        assert ended.out == expected.out


@pytest.mark.parametrize("name", ["with space", "ünï", "a" * 200, "trailing/", "./x/../y", "-dash", "a=b,c"])
def test_an_output_folder_of_any_name_works(
    name: str, tiny_words: list[str], call_json: Json, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    value = call_json("train", *tiny_words, f"--output-dir={name}", "--quiet")
    assert (tmp_path / value["run_dir"] / "result.json").is_file()


def test_a_text_file_whose_name_is_no_utf8_works_or_is_refused(
    tiny_words: list[str], text_path: Path, call_command: Command, tmp_path: Path
) -> None:
    path = tmp_path / "a\udcff.txt"
    path.write_bytes(text_path.read_bytes())
    words = [word for word in tiny_words if not word.startswith("data.files")]
    ended = call_command("train", *words, f"data.files={path}", "--output-dir", str(tmp_path / "o"))
    assert ended.code == 0, ended.err
