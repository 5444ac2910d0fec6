"""Runs of two processes: how the tests start them, find them and follow them."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from glu_bench.files import read_json
from glu_bench.runs.checkpoint import check_checkpoint, list_checkpoints
from tests.faults.conftest import Processes, tiny_command

TIMEOUT_S = 8
TWO = ("parallel=ddp", "parallel.devices=2", f"parallel.timeout_s={TIMEOUT_S}")
STEPS = (
    *("train.steps=20", "train.batch_size=8", "train.eval_every=10"),
    *("train.checkpoint_every=5", "train.keep_checkpoints=9"),
)
LONG = ("train.steps=9000", "train.eval_every=9000", "train.checkpoint_every=9000")


def command_of_two(tiny_words: list[str], *words: str) -> list[str]:
    """The words that train the tiny run by two processes; later words replace earlier ones."""
    return command_of_one(tiny_words, *TWO, *words)


def command_of_one(tiny_words: list[str], *words: str) -> list[str]:
    """The words that train the run of the tests of group G by one process."""
    settings = {word.split("=", 1)[0]: word for word in (*STEPS, *words)}
    return tiny_command(tiny_words, *settings.values())


def start_by_hand(
    processes: Processes, each: Sequence[list[str]], port: int, address: str = "127.0.0.1"
) -> list[Any]:
    """Ranks without a launcher, as srun would start them, each with words of its own."""
    started = []
    for rank, words in enumerate(each):
        env: dict[str, str | None] = {"RANK": str(rank), "WORLD_SIZE": str(len(each))}
        env |= {"MASTER_ADDR": address, "MASTER_PORT": str(port)}
        started.append(processes.start(*words, env=env))
    return started


def find_port() -> int:
    """A port of this machine that nothing listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def list_ranks(processes: Processes) -> dict[int, int]:
    """Pid by rank of the run that is going on."""
    found = {}
    for pid in processes.list_left():
        with contextlib.suppress(OSError):
            lines = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
            env = dict(line.split(b"=", 1) for line in lines if b"=" in line)
            if b"RANK" in env:
                found[int(env[b"RANK"])] = pid
    return found


def list_listening(pids: Sequence[int]) -> list[str]:
    """Addresses, as the kernel writes them, on which processes listen: 0100007F is 127.0.0.1."""
    inodes = set()
    for pid in pids:
        for link in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                inodes.add(str(link.readlink()).removeprefix("socket:[").removesuffix("]"))
    addresses = []
    for name in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]:
            _, local, _, state, *rest = line.split()
            if state == "0A" and rest[5] in inodes:
                addresses.append(local.split(":")[0])
    return addresses


def wait_for_rows(process: Any, output_dir: Path, n_rows: int) -> Path:
    """The folder of the run that trains, once it has logged so many steps."""
    until = time.monotonic() + 60
    while time.monotonic() < until and process.poll() is None:
        for path in (output_dir / "runs").glob("*/metrics.jsonl"):
            if path.read_bytes().count(b"\n") >= n_rows:
                return path.parent
        time.sleep(0.02)
    raise AssertionError(f"{n_rows} rows were not logged; exit code {process.poll()}")


def read_steps(run: Path) -> list[int]:
    """Steps of a run's checkpoints, each verified."""
    return [check_checkpoint(path, run.name) for path in list_checkpoints(run / "checkpoints")]


def read_failure(run: Path) -> str:
    """Why a run failed, as its folder says."""
    failure = read_json(run / "failure.json")
    assert failure["status"] == "failed"
    return str(failure["reason"])
