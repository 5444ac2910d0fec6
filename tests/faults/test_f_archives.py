"""Group F: files of tensors that are bombs, or say what is not so."""

from __future__ import annotations

import json
import os
import re
import struct
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save

from glu_bench.cost.compare import write_runs
from glu_bench.files import sha256_file
from glu_bench.runs.folder import Run
from tests.conftest import Ended, command_line
from tests.faults.conftest import Processes, newest_checkpoint
from tests.faults.foreign import change_config, change_result, copy_run, seal_checkpoint

MB = 10**6
MORE_MB = 200  # that a hostile file may cost above a sound one
# prints what the command took at most, in KiB, as its last line
MEASURE = (
    "import resource, subprocess, sys\n"
    "code = subprocess.call(sys.argv[1:])\n"
    "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss, file=sys.stderr)\n"
    "sys.exit(code)"
)


def measure(processes: Processes, *words: str) -> tuple[Ended, float]:
    """How a command ended and the memory it took at most, in MB."""
    command = [sys.executable, "-c", MEASURE, *command_line(*words)]
    ended = processes.run(command=command)
    said, _, peak = ended.err.rstrip("\n").rpartition("\n")
    return Ended(ended.code, ended.out, said), int(peak) * 1024 / MB


def pack(header: object, n_bytes: int, length: int | None = None) -> bytes:
    """A safetensors file of a header, given as JSON or as text, and zeros."""
    text = (header if isinstance(header, str) else json.dumps(header)).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + bytes(n_bytes)


def entry(shape: list[int], begin: int, end: int) -> dict[str, object]:
    return {"dtype": "F32", "shape": shape, "data_offsets": [begin, end]}


def make_many() -> bytes:
    """A million tensors of no numbers."""
    each = ",".join(f'"{n}":{{"dtype":"F32","shape":[0],"data_offsets":[0,0]}}' for n in range(10**6))
    return pack("{" + each + "}", 0)


MADE: dict[str, Callable[[], bytes]] = {
    "a header of 2^62 bytes": lambda: pack({}, 0, length=2**62),
    "a header longer than the file": lambda: pack({}, 8, length=99),
    "a header of 99 MB": lambda: pack('{"__metadata__":{"a":"' + "x" * (99 * MB - 30) + '"}}', 0),
    "a million tensors": make_many,
    "overlapping offsets": lambda: pack({"a": entry([2], 0, 8), "b": entry([2], 4, 12)}, 12),
    "a hole": lambda: pack({"a": entry([1], 0, 4), "b": entry([1], 8, 12)}, 12),
    "a negative offset": lambda: pack({"a": entry([2], -8, 0)}, 8),
    "an overflowing shape": lambda: pack({"a": entry([2**32, 2**32], 0, 8)}, 8),
    "a shape that the bytes do not hold": lambda: pack({"a": entry([3], 0, 8)}, 8),
    "a name twice": lambda: pack(
        '{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},'
        '"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}',
        4,
    ),
    "brackets without end": lambda: pack("[" * MB, 0),
    "no bytes": lambda: b"",
}
QUICK = "a name twice"


def check_nats(make: Callable[[], bytes], processes: Processes, tmp_path: Path) -> None:
    """Two arms compared, the one's held-out nats made so: exit 3 that names it, in little memory."""
    write_runs(tmp_path / "outputs", 2)
    sound, usual_mb = measure(processes, "compare", "--blocks")
    assert sound.code == 0, sound.err
    (run,) = [path for path in (tmp_path / "outputs" / "runs").iterdir() if path.name.startswith("relu")]
    path = run / "blocks.safetensors"
    path.write_bytes(make())
    change_result(run, blocks_sha256=sha256_file(path))
    ended, peak_mb = measure(processes, "compare", "--blocks")
    assert ended.code == 3, ended.err
    (line,) = [line for line in ended.err.splitlines() if line.startswith("glu-bench: ")]
    assert str(run / path.name).removeprefix(f"{tmp_path}/") in line
    assert "Traceback" not in ended.err
    assert peak_mb < usual_mb + MORE_MB


def test_f6_a_name_twice(processes: Processes, tmp_path: Path) -> None:
    """Held-out nats whose safetensors header names a tensor twice.

    `compare` exits 3 and names the file, with no more than 200 MB above what a sound file takes.
    """
    check_nats(MADE[QUICK], processes, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in MADE if name != QUICK])
def test_f6_headers_that_say_what_is_not_so(name: str, processes: Processes, tmp_path: Path) -> None:
    """The same with a header of 99 MB, of 2^62 bytes, longer than the file, a million tensors, overlapping
    offsets, a hole, a negative offset, shapes that overflow or do not fit, brackets without end, no bytes.

    Exit 3, the file named, memory bounded.
    """
    check_nats(MADE[QUICK], processes, tmp_path)


@pytest.mark.slow
def test_f6_arrays_that_do_not_belong_together(processes: Processes, tmp_path: Path) -> None:
    """Held-out nats as a sound file, but of other shapes, types and numbers than tokens have.

    `compare` exits 3 and names the file; no traceback.
    """
    write_runs(tmp_path / "outputs", 2)
    (run,) = [path for path in (tmp_path / "outputs" / "runs").iterdir() if path.name.startswith("relu")]
    path = run / "blocks.safetensors"
    sound = {
        f"test/{kind}{of}": np.ones(n)
        for of, n in (("", 500), ("_per_position", 256), ("_per_id", 257))
        for kind in ("nats", "tokens")
    }
    for changes in (
        {"test/nats": np.ones((500, 2))},
        {"test/nats_per_id": np.full(257, np.nan)},
        {"test/tokens_per_position": np.zeros(256)},
        {"test/tokens": -np.ones(500)},
        {"test/nats_per_position": np.ones(3)},
        {"test/nats": np.ones(500, dtype=np.complex64)},
    ):
        path.write_bytes(save({**sound, **changes}))
        change_result(run, blocks_sha256=sha256_file(path))
        ended = processes.run("compare", "--blocks")
        assert ended.code == 3, (changes, ended.err)
        assert "blocks.safetensors" in ended.err
        assert "Traceback" not in ended.err


@pytest.mark.slow
def test_f6_weights_that_are_bombs(finished_run: Run, processes: Processes, tmp_path: Path) -> None:
    """The weights of a checkpoint with a header of 99 MB, of 2^62 bytes, a name twice, overlapping offsets;
    a configuration of more blocks, or a wider model, than the weights have.

    `eval` exits 3, the checkpoint named, with no more than 200 MB above what a sound one takes.
    """
    run = copy_run(finished_run, tmp_path / "outputs")
    sound, usual_mb = measure(processes, "eval", str(run), "--quiet")
    assert sound.code == 0, sound.err
    checkpoint = newest_checkpoint(run)
    kept = (checkpoint / "model.safetensors").read_bytes()
    for name in ("a header of 99 MB", "a header of 2^62 bytes", "a name twice", "overlapping offsets"):
        (checkpoint / "model.safetensors").write_bytes(MADE[name]())
        seal_checkpoint(checkpoint)
        ended, peak_mb = measure(processes, "eval", str(run), "--quiet")
        assert (ended.code, len(ended.err.splitlines())) == (3, 1), (name, ended.err)
        assert checkpoint.name in ended.err
        assert peak_mb < usual_mb + MORE_MB
    (checkpoint / "model.safetensors").write_bytes(kept)
    seal_checkpoint(checkpoint)
    for field, value in (("n_layers", 4000), ("d_model", 2**16)):
        other = copy_run(Run(run), tmp_path / "outputs", field)
        change_config(other, lambda config, f=field, v=value: setattr(config.model, f, v))
        ended, peak_mb = measure(processes, "eval", str(other), "--quiet")
        assert (ended.code, len(ended.err.splitlines())) == (3, 1), (field, ended.err)
        assert peak_mb < usual_mb + MORE_MB


# --- F7


def write_bomb(path: Path) -> None:
    """What torch.save would write of 190 MiB of zeros, in 190 KiB."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("archive/data.pkl", b"\x80\x02}.")
        with file.open("archive/data/0", "w") as member:
            for _ in range(190):
                member.write(bytes(2**20))


@pytest.mark.slow
def test_f7_a_bomb_of_zeros(finished_run: Run, processes: Processes, tmp_path: Path) -> None:
    """190 KiB that unpack to 190 MiB: as a run's name, in place of the weights, in a Hugging Face folder;
    and a pipe named model.pt beside the weights, which would hang whoever opens it.

    Exit 2, 3 and 3 without unpacking it; the run with the pipe beside is evaluated as ever (0).
    """
    bomb = tmp_path / "model.pt"
    write_bomb(bomb)
    assert bomb.stat().st_size < 250 * 1024
    run = copy_run(finished_run, tmp_path / "outputs")
    os.mkfifo(newest_checkpoint(run) / "model.pt")
    sound, usual_mb = measure(processes, "eval", str(run), "--quiet")
    assert sound.code == 0, sound.err
    (newest_checkpoint(run) / "model.pt").unlink()
    assert processes.run("eval", str(bomb)).code == 2
    (newest_checkpoint(run) / "model.safetensors").write_bytes(bomb.read_bytes())
    seal_checkpoint(newest_checkpoint(run))
    ended, peak_mb = measure(processes, "eval", str(run), "--quiet")
    assert (ended.code, len(ended.err.splitlines())) == (3, 1), ended.err
    assert re.search(r"model\.safetensors: not a safetensors file|a header of", ended.err)
    assert peak_mb < usual_mb + 50
    folder = tmp_path / "hf"
    folder.mkdir()
    config = {"architectures": ["LlamaForCausalLM"], "model_type": "llama"}
    (folder / "config.json").write_text(json.dumps(config))
    bomb.rename(folder / "pytorch_model.bin")
    (tmp_path / "text.txt").write_text("text\n" * 100)
    ended = processes.run("eval", "--hf", "hf", "--files", "text.txt")
    assert ended.code == 3, ended.err
    assert "weights in other formats are not read" in ended.err
