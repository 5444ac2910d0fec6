"""What a comparison costs as run folders grow in number: seconds, memory, milliseconds a folder.

Folders are made up, but as training leaves them: each configuration hashes to its run's id, each
record carries its checksum. The command is run as a person runs it, in a process of its own.
"""

from __future__ import annotations

import json
import multiprocessing
import random
import tempfile
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from glu_bench.config import load_config
from glu_bench.config_file import render_config
from glu_bench.cost.process import glu_bench_command, time_command
from glu_bench.cost.row import Row
from glu_bench.files import sha256_bytes
from glu_bench.runs.folder import make_run_id
from glu_bench.runs.record import add_checksum

ARMS = ("relu", "gelu", "swish", "bilinear", "glu", "reglu", "geglu", "swiglu")
N_STEPS = 1000  # of the default budget, a row each tenth
N_WINDOWS = 500  # of the held-out text, 256 bytes each
MB = 10**6


def bench_compare(sizes: Sequence[int] = (10, 100, 1000), rounds: int = 3) -> list[Row]:
    """Rows: for each number of folders the least seconds and the peak memory; what a folder more costs."""
    rows: list[Row] = []
    elapsed: dict[int, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        for n in sorted(set(sizes)):
            place = Path(folder) / str(n)
            # elsewhere, for a child's peak memory is at least what its parent held when it began
            context = multiprocessing.get_context("spawn")
            with ProcessPoolExecutor(1, mp_context=context) as pool:
                pool.submit(write_runs, place, n).result()
            command = glu_bench_command("compare", "--json", "--output-dir", str(place))
            measured = [time_command(command) for _ in range(rounds)]
            elapsed[n] = min(spent.elapsed_s for spent in measured)
            busy_s = min(spent.busy_s for spent in measured)
            peak_bytes = max(spent.peak_bytes for spent in measured)
            rows.append(Row(name=f"{n:,} folders", ours=elapsed[n], unit="s"))
            rows.append(Row(name=f"{n:,} folders, processor time", ours=busy_s, unit="s"))
            rows.append(Row(name=f"{n:,} folders, peak memory", ours=peak_bytes / MB, unit="MB"))
    least, most = min(elapsed), max(elapsed)
    if least < most:
        more_ms = 1e3 * (elapsed[most] - elapsed[least]) / (most - least)
        rows.append(Row(name=f"a folder more, {least:,} to {most:,}", ours=more_ms, unit="ms"))
    return rows


def write_runs(output_dir: Path, n_runs: int) -> None:
    """Make run folders: the arms in turns, a seed each turn, all finished."""
    draw = random.Random(0)
    metrics = "".join(json.dumps(_make_row(step)) + "\n" for step in range(10, N_STEPS + 1, 10))
    for number, arm in enumerate(ARMS[:n_runs]):
        config = load_config([f"variant={arm}", "train.precision=bf16", "train.compile=true"])
        text = render_config(config)
        for seed in range((n_runs - number + len(ARMS) - 1) // len(ARMS)):
            config.seed = seed
            facts: dict[str, Any] = {"data_fingerprint": "0" * 64, "tokenizer_fingerprint": "1" * 64}
            facts |= {"vocab_size": 257, "plugins": []}
            facts["run_id"] = make_run_id(config, facts)
            loss_nats = 1.3 - 0.01 * number + draw.gauss(0, 0.004)
            blocks = _make_blocks(loss_nats)
            result = _make_result(facts["run_id"], arm, seed, loss_nats, sha256_bytes(blocks))
            run = output_dir / "runs" / facts["run_id"]
            run.mkdir(parents=True)
            (run / "config.yaml").write_text(text.replace("\nseed: 0\n", f"\nseed: {seed}\n"))
            (run / "environment.json").write_text(json.dumps(facts, indent=2))
            (run / "metrics.jsonl").write_text(metrics)
            (run / "blocks.safetensors").write_bytes(blocks)
            (run / "result.json").write_text(json.dumps(add_checksum(result), indent=2))


def _make_row(step: int) -> dict[str, Any]:
    return {
        "step": step,
        "n_steps": N_STEPS,
        "tokens": 4096 * step,
        "loss_nats": 5.5 - 4 * step / N_STEPS,
        "grad_norm": 0.5,
        "lr": 0.002,
        "tokens_per_s": 40_000.0,
        "elapsed_s": step / 10,
    }


def _make_blocks(loss_nats: float) -> bytes:
    """Held-out nats as a run stores them, every token at the mean loss."""
    import numpy as np
    from safetensors.numpy import save

    arrays: dict[str, Any] = {}
    for split in ("val", "test"):
        for of, n in (("", N_WINDOWS), ("_per_position", 256), ("_per_id", 257)):
            tokens = np.full(n, 256 * N_WINDOWS // n, dtype=np.int64)
            arrays[f"{split}/nats{of}"] = loss_nats * tokens
            arrays[f"{split}/tokens{of}"] = tokens
    return bytes(save(arrays))


def _make_result(run_id: str, arm: str, seed: int, loss_nats: float, blocks_sha256: str) -> dict[str, Any]:
    bits_per_byte = loss_nats * 1.4427  # a byte a token: nats / ln 2
    return {
        "run_id": run_id,
        "status": "complete",
        "variant": arm,
        "model": "nano",
        "data": "stdlib",
        "seed": seed,
        "val_loss_nats": loss_nats,
        "val_bits_per_byte": bits_per_byte,
        "test_loss_nats": loss_nats,
        "test_perplexity": None,
        "test_bits_per_byte": bits_per_byte,
        "train_loss_nats": loss_nats,
        "best_val_loss_nats": loss_nats,
        "best_val_step": N_STEPS,
        "unstable": False,
        "n_params": 1_868_736,
        "n_ffn_params": 1_179_648,
        "d_ff": 768,
        "match_residual": 0.0,
        "flops_per_token": 14_000_000,
        "tokens": 4096 * N_STEPS,
        "steps": N_STEPS,
        "tokens_per_s": 40_000.0,
        "elapsed_s": 100.0,
        "peak_bytes": 10**9,
        "hidden_rms_at_init": [1.0] * 4,
        "exact": True,
        "window": 256,
        "stride": 256,
        "n_test_tokens": 256 * N_WINDOWS,
        "n_test_bytes": 256 * N_WINDOWS,
        "blocks_sha256": blocks_sha256,
        "parameters_sha256": "2" * 64,
    }
