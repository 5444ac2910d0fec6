"""Group G: how several processes find one another, share a run, and go on as another number."""

from __future__ import annotations

import json
import math
import signal
import socket
from pathlib import Path

import pytest

from glu_bench.files import read_json
from tests.conftest import Train, make_text
from tests.faults.conftest import Fault, Processes, find_run
from tests.faults.ranks import (
    LONG,
    STEPS,
    command_of_one,
    command_of_two,
    find_port,
    list_listening,
    read_steps,
    start_by_hand,
    wait_for_rows,
)

LOOPBACK = {"0100007F", "0" * 24 + "01000000", "0000000000000000FFFF00000100007F"}


def read_losses(run: Path) -> list[float]:
    """Loss and gradient norm of every step, then the held-out losses of the end."""
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    result = read_json(run / "result.json")
    ends = [result[f"{split}_loss_nats"] for split in ("train", "val", "test")]
    return [row[name] for row in rows for name in ("loss_nats", "grad_norm")] + ends


@pytest.mark.slow
@pytest.mark.parametrize(("differs", "code"), [("configuration", 2), ("text", 3)])
def test_g9_ranks_see_something_else(
    differs: str, code: int, processes: Processes, tiny_words: list[str], tmp_path: Path
) -> None:
    """Two ranks, started without a launcher, with another setting or another text for one of them.

    Both exit 2 or 3 before the first step, each says that rank 1 differs, and no run folder is made.
    """
    other = tmp_path / "other.txt"
    other.write_text(make_text(600, seed=1))
    word = f"data.files={other}" if differs == "text" else "optim.lr=3e-4"
    each = [command_of_two(tiny_words), command_of_two(tiny_words, word)]
    started = start_by_hand(processes, each, find_port())
    for rank, ended in enumerate([processes.end(process) for process in started]):
        assert ended.code == code, ended.err
        said = f"rank 1 has another {differs} than rank 0; nothing was trained"
        assert ended.err == f"glu-bench: rank {rank}: {said}\n"
        (report,) = (tmp_path / "outputs" / ".ranks").rglob(f"rank-{rank}.json")
        assert read_json(report)["exit_code"] == code
    assert not (tmp_path / "outputs" / "runs").exists()


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["ddp", "fsdp"])
def test_g10_few_blocks_for_two_ranks(
    mode: str, processes: Processes, tiny_words: list[str], tmp_path: Path, train: Train
) -> None:
    """A text whose held-out windows two ranks cannot share evenly.

    No hang: one rank has a batch more, and the losses are those of one process.
    """
    path = tmp_path / "short.txt"
    path.write_text(make_text(28))
    few = (f"data.files={path}", "model.seq_len=64", "train.batch_size=2")
    ended = processes.run(*command_of_two(tiny_words, *few, f"parallel={mode}"))
    assert ended.code == 0, ended.err
    run = find_run(tmp_path / "outputs")
    n_batches = math.ceil(read_json(run / "result.json")["n_test_tokens"] / 64 / 2)
    assert n_batches % 2
    train(*STEPS, *few, output_dir=tmp_path / "alone")
    assert read_losses(run) == pytest.approx(read_losses(find_run(tmp_path / "alone")), abs=1e-5)


@pytest.mark.slow
def test_g11_the_port_is_taken(processes: Processes, tiny_words: list[str]) -> None:
    """Two ranks, started without a launcher, on a port where a program listens that never answers.

    Both exit 7 within 20 s; rank 0 names the port.
    """
    with socket.socket() as holder:
        holder.bind(("0.0.0.0", 0))
        holder.listen()
        port = holder.getsockname()[1]
        started = start_by_hand(processes, [command_of_two(tiny_words)] * 2, port)
        first, second = (processes.end(process, 20) for process in started)
    assert (first.code, second.code) == (7, 7)
    assert first.err == f"glu-bench: rank 0: port {port} is taken by another program (EADDRINUSE)\n"
    assert "another process of the run ended or does not answer" in second.err.splitlines()[-1]


@pytest.mark.slow
@pytest.mark.parametrize("address", ["nowhere.invalid", "192.0.2.1"])
def test_g11_the_address_is_wrong(address: str, processes: Processes, tiny_words: list[str]) -> None:
    """MASTER_ADDR is a name that nobody has, or an address where nobody answers.

    Both ranks exit 7 within 20 s.
    """
    started = start_by_hand(processes, [command_of_two(tiny_words)] * 2, find_port(), address)
    for ended in [processes.end(process, 20) for process in started]:
        assert ended.code == 7, ended.err
        assert "another process of the run ended or does not answer" in ended.err.splitlines()[-1]


@pytest.mark.slow
def test_g11_two_runs_at_the_same_time(processes: Processes, tiny_words: list[str], tmp_path: Path) -> None:
    """Two runs of two processes each, started by glu-bench at the same time.

    They do not meet: each has a port that was its own from the start, and all four processes
    listen on this machine's own address alone.
    """
    started = [
        processes.start(*command_of_two(tiny_words, *LONG, "--output-dir", name)) for name in ("a", "b")
    ]
    runs = [
        wait_for_rows(process, tmp_path / name, 3) for process, name in zip(started, ("a", "b"), strict=True)
    ]
    addresses = list_listening(processes.list_left())
    assert len(addresses) >= 2  # a store each
    assert set(addresses) <= LOOPBACK
    for process, run in zip(started, runs, strict=True):
        process.send_signal(signal.SIGTERM)
        assert processes.end(process, 20).code == 143
        assert len(read_steps(run)) == 1


@pytest.mark.slow
def test_g12_another_number_of_processes_goes_on(
    processes: Processes, fault: Fault, tiny_words: list[str], tmp_path: Path, train: Train
) -> None:
    """A run that two processes began (fsdp) is resumed by one, and one that a process began by two (ddp).

    Exit 2 naming both numbers; with --resume-inexact exit 0, `exact` false, and the losses are
    those of one process to 1e-5.
    """
    train(*STEPS, output_dir=tmp_path / "straight")
    one, two = command_of_one(tiny_words), command_of_two(tiny_words)
    sharded = command_of_two(tiny_words, "parallel=fsdp")
    for first, second, there, here in ((sharded, one, 2, 1), (one, two, 1, 2)):
        output = ("--output-dir", f"from-{there}")
        stop = fault("step.after_backward:term:7", rank=there - 1)
        assert processes.run(*first, *output, env=stop).code == 143
        refused = processes.run(*second, *output)
        assert refused.code == 2
        assert f"n_ranks={there}, this process has {here}" in refused.err
        assert refused.err.count("\n") == 1
        assert processes.run(*second, *output, "--resume-inexact").code == 0
        run = find_run(tmp_path / output[1])
        assert read_json(run / "result.json")["exact"] is False
        straight = find_run(tmp_path / "straight")
        assert read_losses(run) == pytest.approx(read_losses(straight), abs=1e-5)


def test_g13_two_processes_train_the_run_of_one(
    processes: Processes, tiny_words: list[str], tmp_path: Path, train: Train
) -> None:
    """Two processes with 4 sequences each, and one with 8, without dropout.

    The same run id; losses and gradient norms of all steps agree to 1e-5, not to the bit, as the
    README says. Nothing but the run is left.
    """
    train(*STEPS, output_dir=tmp_path / "alone")
    ended = processes.run(*command_of_two(tiny_words), "--json")
    assert (ended.code, ended.err) == (0, "")
    assert json.loads(ended.out)["tokens"] == 20 * 8 * 16
    run, alone = find_run(tmp_path / "outputs"), find_run(tmp_path / "alone")
    assert run.name == alone.name
    assert len(read_losses(run)) == 20 * 2 + 3
    assert read_losses(run) == pytest.approx(read_losses(alone), abs=1e-5)
    facts = read_json(run / "environment.json")
    assert (facts["parallel"], facts["n_ranks"]) == ("ddp", 2)
    assert list((tmp_path / "outputs" / ".ranks").iterdir()) == []
