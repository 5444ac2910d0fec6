"""Group F: files of a run changed at random; every reader says so in an error of its own, or reads right."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from glu_bench.config import load_config
from glu_bench.data.tokenizers import FileTokenizer, load_tokenizer_file, train_bpe
from glu_bench.errors import GluBenchError
from glu_bench.evaluate.history import read_history
from glu_bench.lm.decoder import make_decoder
from glu_bench.runs.checkpoint import load_checkpoint
from glu_bench.runs.difference import diff_runs
from glu_bench.runs.fields import SHOWN
from glu_bench.runs.folder import Run
from glu_bench.runs.integrity import verify_run
from glu_bench.show.columns import choose_columns
from glu_bench.show.csv_table import write_csv
from glu_bench.show.latex_table import write_latex
from glu_bench.show.tables import render_result
from glu_bench.study.arms import read_entry
from glu_bench.study.compare import compare_runs
from glu_bench.study.curves import collect_curves
from glu_bench.study.slices import _load
from glu_bench.study.traces import read_log
from glu_bench.train.optimizer import make_optimizer
from glu_bench.train.progress import restore_progress
from glu_bench.train.result import hash_weights
from tests.conftest import make_text
from tests.faults.conftest import newest_checkpoint
from tests.faults.foreign import change_config, change_result, copy_run, seal_checkpoint

TENSORS = ("model.safetensors", "optimizer.safetensors")
CHECKPOINT = (*TENSORS, "state.json", "manifest.json")
RECORDS = ("result.json", "environment.json", "metrics.jsonl", "blocks.safetensors")
# what a number, a word or a bracket of a text may become
WORDS = (
    *(
        "null",
        "true",
        "-1",
        "0",
        "1e999",
        "-1e308",
        "NaN",
        "Infinity",
        "1e-320",
        "9" * 30,
        "9" * 400,
        '""',
        "[]",
    ),
    *(
        "{}",
        '"\\ud800"',
        '"\\u0000"',
        '"=1+1"',
        "[[[[",
        "${oc.env:HOME}",
        "!!python/name:os.system",
        "&a",
        "*a",
    ),
    *("_target_: os.system", "\n", "\t", "'", "\x00", "\udce9", "0.5", "4096", "false", "~", "1_0", "0x1"),
)


def mutate(content: bytes, draw: random.Random) -> bytes:
    """The content with a bit turned, a piece gone, twice, moved or random, or a word in place of another."""
    kind = draw.choice(("bit", "cut", "twice", "swap", "noise", "end", "word", "word", "word"))
    at = draw.randrange(len(content) + 1)
    to = min(len(content), at + draw.choice((1, 2, 7, 40, 300)))
    if kind == "bit" and at < len(content):
        return content[:at] + bytes([content[at] ^ (1 << draw.randrange(8))]) + content[at + 1 :]
    if kind == "cut":
        return content[:at] + content[to:]
    if kind == "twice":
        return content[:to] + content[at:]
    if kind == "swap":
        return content[to:] + content[:to]
    if kind == "noise":
        return content[:at] + draw.randbytes(to - at or 1) + content[to:]
    if kind == "end":
        return content[:at]
    head = content[: 2**16]  # of tensors, the header
    places = [
        i for i in range(len(head)) if i == 0 or (head[i : i + 1].isalnum() > head[i - 1 : i].isalnum())
    ]
    start = draw.choice(places)
    end = next((i for i in range(start, len(head)) if not head[i : i + 1].isalnum()), len(head))
    word = draw.choice(WORDS).encode("utf-8", "surrogateescape")
    return content[:start] + word + content[end:]


def read_all(run: Run) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Everything that a command does with a run, but for arithmetic on a text."""
    yield "config", run.config
    yield "identity", run.identity
    yield "status", run.status
    yield "result", run.result
    yield "environment", run.environment
    yield "weights", lambda: hash_weights(run.load_model().state_dict())
    yield "tokenizer", lambda: run.load_tokenizer().fingerprint
    yield "optimizer", lambda: resume(run)
    yield "blocks", lambda: sorted((name, part.tobytes()) for name, part in _load(run, "test").items())
    yield "entry", lambda: read_entry(run)
    yield "log", lambda: read_log(run, 5)
    yield "history", lambda: read_history(run.rows(), None)
    yield "difference", lambda: diff_runs(run, run)
    yield "verify", lambda: verify_run(run)


# what these give is wrong if it is not what it was; the rest of environment.json and the log have no checksum
SURE = ("identity", "result", "weights", "tokenizer", "optimizer", "blocks")


def resume(run: Run) -> object:
    """What training would go on from."""
    config = run.config()
    model = make_decoder(config, 257)
    optimizer = make_optimizer(model, config.optim)
    checkpoint = load_checkpoint(newest_checkpoint(run.path), run.run_id)
    progress = restore_progress(checkpoint, model, optimizer, resume_inexact=True)
    return progress, hash_weights({k: v for k, v in checkpoint.optimizer.items() if k.startswith("exp_avg/")})


def try_all(run: Run) -> dict[str, Any]:
    """What each reader gives, or its error; any other exception fails the test."""
    found: dict[str, Any] = {}
    for name, read in read_all(run):
        try:
            found[name] = read()
        except GluBenchError as error:
            found[name] = error
    return found


def check_mutations(finished_run: Run, folder: Path, seed: int, n: int) -> None:
    """Change one file of a run at random, n times over; half of the times its checksums are put right."""
    draw = random.Random(seed)
    path = copy_run(finished_run, folder)
    last = newest_checkpoint(path)
    for checkpoint in (path / "checkpoints").iterdir():
        if checkpoint != last:
            shutil.rmtree(checkpoint)
    run, beside = Run(path), Run(copy_run(Run(path), folder / "beside"))
    change_config(beside.path, lambda config: setattr(config.data, "val_share", 0.2))  # another arm
    right = try_all(run)
    assert not [value for value in right.values() if isinstance(value, Exception)]
    assert right["verify"] == []
    n_refused = 0
    for number in range(n):
        name = draw.choice((*CHECKPOINT, *RECORDS, "config.yaml", "config.yaml"))
        file = last / name if name in CHECKPOINT else path / name
        content = file.read_bytes()
        sound = {each: each.read_bytes() for each in (last / "manifest.json", path / "result.json")}
        file.write_bytes(mutate(content, draw))
        sealed = draw.random() < 0.5
        if sealed and name in (*TENSORS, "state.json"):
            seal_checkpoint(last)
        elif sealed and name == "blocks.safetensors":
            from glu_bench.files import sha256_file

            change_result(path, blocks_sha256=sha256_file(file))
        elif sealed and name == "result.json":
            sealed = reseal(path, draw)
        else:
            sealed = False
        try:
            found = try_all(run)
            if not sealed:
                for reader in SURE:
                    wrong = not isinstance(found[reader], Exception) and found[reader] != right[reader]
                    assert not wrong, f"{reader} took a changed {name}"
            try_more([run, beside])
        except (Exception, pytest.fail.Exception) as error:
            kept = folder / "failing"
            shutil.rmtree(kept, ignore_errors=True)
            shutil.copytree(path, kept)
            raise AssertionError(f"seed {seed}, number {number}, {name}, sealed {sealed}; {kept}") from error
        n_refused += any(isinstance(value, Exception) for value in found.values()) or bool(found["verify"])
        file.write_bytes(content)
        for each, was in sound.items():
            each.write_bytes(was)
    assert n_refused > 0.5 * n  # the rest is prose, spaces, numbers of the log


def reseal(path: Path, draw: random.Random) -> bool:
    """Give a record with one field changed its checksum; True."""
    from glu_bench.files import read_json

    try:
        record = read_json(path / "result.json")
    except GluBenchError:
        return True
    values = (None, True, -1, 0, 10**30, 1e308, 1e-320, "x", "\x1b[31m", [], [1], {}, [{"a": []}], 0.5)
    (path / "result.json").write_text('{"record_sha256": ""}')
    record.pop("record_sha256", None)
    change_result(path, **{**record, draw.choice(sorted(record) or ["x"]): draw.choice(values)})
    return True


def try_more(runs: list[Run]) -> None:
    """Put the run beside a sound one, as `compare` and its figure do, and show it."""
    try:
        for table in compare_runs(runs, arm_keys=("data.val_share",), allow_mixed=True):
            collect_curves(table)
            write_csv([table], choose_columns("all"))
            write_latex(table, choose_columns("all"))
        render_result(runs[0].result(SHOWN))
    except GluBenchError:
        pass


def test_f11_changes_of_a_run(finished_run: Run, tmp_path: Path) -> None:
    """Twenty-five seeded changes of a run's checkpoint, records and configuration (in this process): bits,
    pieces, words; half of them with the checksums put right again.

    Every reader ends in an error of errors.py or reads; without the checksum nothing read is wrong.
    """
    check_mutations(finished_run, tmp_path, seed=0, n=25)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 4))
def test_f11_more_changes_of_a_run(seed: int, finished_run: Run, tmp_path: Path) -> None:
    """A hundred and fifty more.

    The same.
    """
    check_mutations(finished_run, tmp_path, seed, n=50)


@pytest.mark.slow
def test_f11_changes_of_a_configuration_and_a_tokenizer(tiny_words: list[str], tmp_path: Path) -> None:
    """Forty seeded changes of a variant's file in --config-dir, and forty of a tokenizer.json.

    Each is read, or refused in an error of errors.py.
    """
    draw = random.Random(7)
    folder = tmp_path / "own" / "variant"
    folder.mkdir(parents=True)
    variant = (
        b"name: mine\nfamily: gated\nformula: silu(g) * u\nsource: nobody\ngated: true\ngate: silu\n"
        b"gate_clamp: 7.0\nup_clamp: 7\nlearned: [mult]\nnorm: rms\n"
    )
    n_refused = 0
    for _ in range(40):
        (folder / "mine.yaml").write_bytes(mutate(variant, draw))
        try:
            load_config([*tiny_words, "variant=mine"], tmp_path / "own")
        except GluBenchError:
            n_refused += 1
    assert n_refused > 15
    path = tmp_path / "tokenizer.json"
    content = train_bpe(iter([make_text(200)]), 300).encode()
    for _ in range(40):
        path.write_bytes(mutate(content, draw))
        try:
            found = load_tokenizer_file(path, None)
        except GluBenchError:
            continue
        assert isinstance(found, FileTokenizer)
        found.encode(["some text"])
