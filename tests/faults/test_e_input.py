"""Group E: words, files, machines and places that cannot work, or only look so."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from glu_bench.config import find_config_root
from glu_bench.data.prepared import prepare_tokens
from glu_bench.runs.checkpoint import check_checkpoint, list_checkpoints
from glu_bench.runs.folder import Run
from tests.conftest import Command, TinyConfig, command_line
from tests.faults.conftest import (
    Fault,
    Here,
    Processes,
    TinyTrain,
    check_refused,
    find_run,
    snapshot,
    tiny_command,
)

HUGE = 10**20
TEXT = (find_config_root() / "data" / "text.yaml").read_bytes()
# runs commands one after another in one process, and writes down how each ended
MANY = """
import json, os, sys
from glu_bench.cli.main import main
commands, codes = sys.argv[1:3]
ended = []
for words in json.load(open(commands, encoding="utf-8")):
    sys.argv = ["glu-bench", *(os.fsdecode(word.encode()) for word in words)]
    try:
        main()
        ended.append(0)
    except SystemExit as leaving:
        ended.append(leaving.code or 0)
json.dump(ended, open(codes, "w"))
"""
# glu-bench with so many bytes of addresses beyond what it has once everything is imported
SHORT = """
import resource, sys
from pathlib import Path
import torch._dynamo, glu_bench.cli.main, glu_bench.train.run, glu_bench.show.progress, safetensors.torch
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + int(sys.argv.pop(1)), resource.RLIM_INFINITY))
glu_bench.cli.main.main()
"""


def test_e1_an_unknown_key(here: Here, tmp_path: Path) -> None:
    """`optim.lrr=3`, `optm.lr=3` and `+optim.lrr=3`, for a run and for a sweep.

    Exit 2 and one line that asks whether optim.lr was meant; nothing is written.
    """
    near = "did you mean 'optim.lr'"
    check_refused(here("train", "optim.lrr=3"), 2, "optim.lrr=3: no such key", near)
    there = ("--output-dir", str(tmp_path / "outputs"))
    check_refused(here("train", "optm.lr=3", *there), 2, "optm.lr=3: no such key", near)
    check_refused(here("train", "+optim.lrr=3", *there), 2, "+optim.lrr=3: write KEY=VALUE", near)
    check_refused(here("sweep", "optim.lrr=3,4", *there), 2, "optim.lrr=3,4: no such key", near)
    assert not list(tmp_path.iterdir())


def test_e2_a_value_out_of_range(here: Here, tmp_path: Path) -> None:
    """Text, nothing, NaN or a negative rate; no steps, 1e3 of them; a width of 33 with 4 heads, of 10^20;
    a context of 10^20 tokens; numbers of 400 and of 5,000 digits; an unknown size.

    Exit 2 within seconds, one line with the key and what it takes; nothing is written.
    """
    ended = here("train", f"model.d_model={HUGE + 1}")
    check_refused(ended, 2, f"model.d_model={HUGE + 1}: must be a finite number >= 2 and <= 131072")
    for words, *parts in (
        ("optim.lr=abc", "optim.lr=abc: expected a number > 0 and <= 1e+09"),
        ("optim.lr=", "optim.lr='': expected a number > 0 and <= 1e+09"),
        ("optim.lr=nan", "optim.lr=nan: must be a finite number > 0 and <= 1e+09"),
        ("optim.lr=-1", "optim.lr=-1.0: must be a finite number > 0 and <= 1e+09"),
        ("train.steps=0", "train.steps=0: must be a finite number >= 1"),
        ("train.steps=1e3", "train.steps=1000.0: expected a whole number or null >= 1"),
        (
            "model.d_model=33 model.n_heads=4",
            "model.n_heads=4",
            "model.d_model=33 must split into even heads",
        ),
        (f"model.seq_len={HUGE}", f"model.seq_len={HUGE}: must be a finite number >= 2 and <= 262144"),
        (f"train.eval_every={'9' * 400}", "train.eval_every=9999", ">= 1 and <= 9.22337e+18"),
        (f"optim.weight_decay={'9' * 400}", "optim.weight_decay", "expected a number >= 0"),
        (f"variant.gate_args.beta={'9' * 400}", "variant.gate_args.beta", "expected a number"),
        (f"seed={'9' * 5000}", "seed=9999", "4300 digits"),
        (f"optim.lr={'[' * 2000}", "optim.lr=[["),
        ("model=nosuch", "model=nosuch: no such model; known: deep, large"),
    ):
        there = ("--output-dir", str(tmp_path / "outputs"))
        check_refused(here("train", *words.split(" "), *there), 2, *parts)
    assert not list(tmp_path.iterdir())


BROKEN_FILES = {
    "an alias bomb": (
        b"a: &a [x, x, x, x]\n"
        + b"".join(b"%c: &%c [%s]\n" % (i + 1, i + 1, b"*%c," % i * 9) for i in b"abcdefgh"),
        ":1: aliases and tags are not allowed",
    ),
    "a list that never ends": (b"corpus: x\nfiles: [a, b\n", ":2: "),
    "a tab": (b"corpus: x\nfiles:\n\t- a\n", ":3: found character that cannot start any token"),
    "a key twice": (b"corpus: a\ncorpus: b\n", ":2: found duplicate key corpus"),
    "2 MiB": (b"# \n" * 2**20, ": larger than 1 MiB"),
    "latin-1": ("corpus: x\n# naïve\n".encode("latin-1"), ":2: not UTF-8 at byte 14"),
    "UTF-16": ("corpus: x\n".encode("utf-16"), ":1: not UTF-8 at byte 0"),
}


def test_e3_a_broken_configuration_file(here: Here, tmp_path: Path) -> None:
    """A file of one's own that is an alias bomb, has a list that never ends, a tab, a key twice, 2 MiB,
    latin-1 or UTF-16; and one that begins with a byte order mark.

    Exit 2 at once with the file and the line; the mark is read over, as YAML says.
    """
    path = tmp_path / "my" / "data" / "novels.yaml"
    path.parent.mkdir(parents=True)
    words = ("train", "data=novels", "data.files=x", "--config-dir", str(tmp_path / "my"))
    for content, said in BROKEN_FILES.values():
        path.write_bytes(content)
        check_refused(here(*words), 2, f"{path}{said}")
    configurations = []
    for content in (TEXT, b"\xef\xbb\xbf" + TEXT):
        path.write_bytes(content)
        ended = here(*words, "--cfg")
        assert ended.code == 0, ended.err
        configurations.append(ended.out)
    assert configurations[0] == configurations[1]
    assert [entry.name for entry in tmp_path.iterdir()] == ["my"]


def test_e4_an_unknown_name(here: Here, tmp_path: Path) -> None:
    """`variant=swigloo`, for a run, in a sweep and by `variants`; `data=stdlip`.

    Exit 2, the name that was meant, and those there are; nothing is written.
    """
    near = "did you mean 'swiglu'"
    check_refused(here("train", "variant=swigloo"), 2, "variant=swigloo: no such variant; known:", near)
    there = ("--output-dir", str(tmp_path / "outputs"))
    check_refused(here("sweep", "variant=relu,swigloo", *there), 2, "variant=swigloo", near)
    check_refused(here("variants", "swigloo"), 2, "no variant named 'swigloo'", near)
    check_refused(here("train", "data=stdlip", *there), 2, "data=stdlip", "did you mean 'stdlib'")
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_e10_a_device_that_is_not_there(
    tiny_train: TinyTrain, call_command: Command, tiny_words: list[str], finished_run: Run, tmp_path: Path
) -> None:
    """`train.device=cuda`, `cuda:99`, `mps` and `gpu` where there is none; `eval --device cuda:99`.

    Exit 7, for the unknown word 2; nothing is trained on something else, nothing is written.
    """
    ended = tiny_train("train.device=cuda", env={"CUDA_VISIBLE_DEVICES": ""})
    check_refused(ended, 7, "train.device=cuda: not there, this machine shows 0 CUDA devices")
    words = ["--output-dir", str(tmp_path / "outputs")]
    for device, code, said in (
        ("cuda:99", 7, "train.device=cuda:99: not there"),
        ("gpu", 2, "train.device=gpu: one of auto, cpu, cuda, cuda:N, mps"),
        *([("mps", 7, "train.device=mps: not there")] if sys.platform == "linux" else []),
    ):
        ended = call_command(*tiny_command(tiny_words, f"train.device={device}"), *words)
        check_refused(ended, code, said)
    ended = call_command("eval", str(finished_run.path), "--device", "cuda:99", "--quiet")
    check_refused(ended, 7, "cuda:99: not there")
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_e11_too_little_memory(
    tiny_words: list[str],
    tiny_config: TinyConfig,
    processes: Processes,
    tiny_train: TinyTrain,
    fault: Fault,
    tmp_path: Path,
) -> None:
    """200 MB of addresses beyond what is there after all imports, for a model of width 8192; and for
    the resume of a run of 20 million parameters.

    Exit 6, status failed with the reason out of memory; the checkpoint is not set aside, and with
    memory enough the same command goes on from it.
    """

    def run_short(*words: str) -> Any:
        command = [sys.executable, "-c", SHORT, str(200 * 10**6), *tiny_command(tiny_words, *words)]
        return processes.run(command=command)

    prepare_tokens(tiny_config())  # what reads texts is large, and is not what memory is short for here
    ended = run_short("model.d_model=8192", "model.n_heads=64")
    check_refused(ended, 6, "out of memory", "a smaller model.d_model")
    run = Run(find_run(tmp_path / "outputs"))
    assert run.status() == "failed"
    assert str((run.failure() or {})["reason"]).startswith("out of memory")

    there = ("--output-dir", str(tmp_path / "other"))
    wide = ("model.d_model=1280", "model.n_layers=1", "train.steps=2", "train.checkpoint_every=1", *there)
    assert tiny_train(*wide, env=fault("step.after_backward:kill9:2")).code == -9
    run = Run(find_run(tmp_path / "other"))
    before = snapshot(run.checkpoints)
    check_refused(run_short(*wide), 6, "out of memory")
    assert (run.status(), snapshot(run.checkpoints)) == ("failed", before)
    assert [check_checkpoint(path, run.run_id) for path in list_checkpoints(run.checkpoints)] == [1]
    assert tiny_train(*wide).code == 0
    assert [row["step"] for row in run.rows()] == [1, 2]


@pytest.mark.slow
def test_e12_a_kill_from_outside(
    processes: Processes, tiny_words: list[str], fault: Fault, tmp_path: Path
) -> None:
    """SIGKILL from outside to a run of a sweep, without a word, as the system does when memory is short.

    Exit 5; the sweep says: killed by signal 9, possibly out of memory.
    """
    words = ["sweep", "-j", "1", *tiny_words, "variant=gelu"]
    sweep = processes.start(*words, env=fault("run.begin:sleep@gelu"))
    until = time.monotonic() + 60
    while (
        not (holders := list((tmp_path / "outputs").glob("runs/*/.lock.pid"))) or not holders[0].read_text()
    ):
        assert time.monotonic() < until
        time.sleep(0.05)
    os.kill(int(holders[0].read_text()), signal.SIGKILL)
    ended = processes.end(sweep)
    assert ended.code == 5
    assert "killed by signal 9, SIGKILL (possibly out of memory)" in " ".join((ended.out + ended.err).split())
    assert "Traceback" not in ended.err


BARE: dict[str, str | None] = {
    **{"HOME": None, "TERM": "dumb", "COLUMNS": "20", "NO_COLOR": "1", "LANG": "C", "LC_ALL": "C"},
    **{"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "GLU_BENCH_CACHE": None},
}


@pytest.mark.slow
def test_e13_a_bare_environment(processes: Processes, tiny_words: list[str], tmp_path: Path) -> None:
    """No HOME, no terminal, TERM=dumb, 20 columns, locale C, ASCII alone, NO_COLOR, for 18 commands.

    The exit codes of an ordinary environment, every byte of the output ASCII, no traceback.
    """
    folder = "Läufe"
    there = ("--output-dir", folder)
    arms = [
        [*tiny_command(tiny_words, f"variant={name}", "train.steps=2"), *there] for name in ("gelu", "swiglu")
    ]
    commands = [
        *arms,
        [word for word in arms[1] if word != "--quiet"],
        ["eval", "swiglu", *there],
        ["sample", "swiglu", "--tokens", "60", *there],
        ["inspect", "swiglu", *there],
        ["compare", *there],
        ["compare", "--format", "markdown", *there],
        ["compare", "--methods", "--bibtex", *there],
        ["runs", "list", *there],
        ["runs", "show", "gelu", "--json", *there],
        ["status", *there],
        ["data", "show", *[word for word in tiny_words if word.startswith("data")]],
        ["variants"],
        ["variants", "swiglu"],
        ["--help"],
        ["train", "optim.lrr=3"],
        ["train", "data=text", "data.files=naïve.txt", *there],
        ["eval", "nosuch", *there],
    ]
    (tmp_path / "commands.json").write_text(json.dumps(commands))
    codes = []
    for name, env in (("plain", {}), ("bare", BARE)):
        (tmp_path / name).mkdir()
        command = [sys.executable, "-c", MANY, str(tmp_path / "commands.json"), "codes.json"]
        env = {**env, "XDG_CACHE_HOME": str(tmp_path / "cache")}
        ended = processes.run(command=command, env=env, cwd=tmp_path / name, limit_s=120)
        assert ended.code == 0, ended.err
        assert "Traceback" not in ended.err
        codes.append(json.loads((tmp_path / name / "codes.json").read_text()))
    assert codes[0] == codes[1] == [*[0] * 16, 2, 3, 2]
    assert (ended.out + ended.err).isascii()
    assert (tmp_path / "bare" / folder / "runs").is_dir()


@pytest.mark.slow
def test_e13_closed_streams(processes: Processes, tiny_words: list[str], tmp_path: Path) -> None:
    """stdin, stdout and stderr closed.

    The run is trained, its record and checkpoints hold no word of what nobody could hear.
    """
    words = [word for word in tiny_command(tiny_words, "train.steps=2") if word != "--quiet"]
    command = ["bash", "-c", 'exec "$@" <&- >&- 2>&-', "bash", *command_line(*words)]
    assert processes.run(command=command).code == 0
    run = Run(find_run(tmp_path / "outputs"))
    assert run.status() == "complete"
    assert [row["step"] for row in run.rows()] == [1, 2]
    assert [check_checkpoint(path, run.run_id) for path in list_checkpoints(run.checkpoints)] == [2]


PLACES = ("my runs", "Läufe 你好", "x" * 255, "a/../b/./c", "trailing/", "-dash", "a,b='c'[1]{2}$HOME")


@pytest.mark.slow
def test_e14_a_path_with_an_odd_name(
    processes: Processes,
    call_command: Command,
    tiny_words: list[str],
    text_path: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Output folders, texts and folders of configuration with blanks, other scripts, 255 bytes, `..`, a
    slash at the end, a dash at the start, signs of the shell and of Hydra, or a link in their place;
    one of 256 bytes.

    Each works and all is written below the folder that was named; the last ends with 2 or 3.
    """
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "link").symlink_to("elsewhere")
    records = []
    for number, place in enumerate((*PLACES, "link")):
        before = set(tmp_path.rglob("*"))
        name = f"{Path(place).name[:250]}.txt"
        (tmp_path / name).write_bytes(text_path.read_bytes())
        own = Path(place) / "my" / "data" / "novels.yaml"
        own.parent.mkdir(parents=True)
        own.write_bytes(TEXT)
        words = [word for word in tiny_words if not word.startswith("data=")]
        words = tiny_command(words, "data=novels", f"data.files={name}", "train.steps=1")
        words += ["--output-dir", place, "--config-dir", f"{place}/my", "--json"]
        ended = (processes.run if number == 0 else call_command)(*words)
        assert ended.code == 0, ended.err
        records.append(json.loads(ended.out))
        new = {path for path in set(tmp_path.rglob("*")) - before if path.name != name}
        target = Path(place).resolve()
        assert all(path.is_relative_to(target) or target.is_relative_to(path) for path in new), place
        assert Path(records[-1]["run_dir"]).resolve().parent == target / "runs"
    assert len({record["run_id"] for record in records}) == 1
    assert len({record["parameters_sha256"] for record in records}) == 1
    before = set(tmp_path.rglob("*"))
    too_long = "x" * 256
    ended = call_command(*tiny_command(tiny_words), "--output-dir", too_long)
    check_refused(ended, 2, "not a usable name")
    check_refused(call_command("runs", "list", "--output-dir", too_long), 2, "not a usable name")
    ended = call_command(*tiny_command(tiny_words, f"data.files={too_long}"), "--output-dir", "new")
    check_refused(ended, 3, f"data.files={too_long}: cannot be read (File name too long)")
    assert set(tmp_path.rglob("*")) == before
