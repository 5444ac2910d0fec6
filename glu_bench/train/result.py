"""The final record of a run and what it refers to."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from glu_bench import schema
from glu_bench.device import find_peak
from glu_bench.evaluate.loss import HeldOutLoss, perplexity
from glu_bench.files import fsync_file, sha256_file, write_bytes
from glu_bench.host import read_peak_rss_bytes
from glu_bench.lm.counts import Counts
from glu_bench.lm.decoder import Decoder
from glu_bench.ranks import ALONE, Ranks
from glu_bench.runs.folder import Run
from glu_bench.runs.integrity import CHECKSUMS, hash_parts
from glu_bench.train.progress import Progress


def collect_weights(model: Decoder, ranks: Ranks = ALONE) -> dict[str, Tensor]:
    """Every parameter by name, fp32 on the CPU; a tied matrix stands there once.

    Whole on the rank that writes, nothing on the others; all ranks call it together.
    """
    return {name: t.float() for name, t in ranks.collect(model.named_parameters()).items()}


def hash_weights(weights: dict[str, Tensor]) -> str:
    """sha256 over the names and bits of all parameters."""
    digest = hashlib.sha256()
    for name, tensor in sorted(weights.items()):
        digest.update(name.encode())
        digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()


def write_blocks(path: Path, found: dict[str, HeldOutLoss]) -> None:
    """Held-out nats and tokens of each window, place in the window and token.

    Arms can then be compared by stretch of text, by context and by frequency.
    """
    from safetensors.numpy import save

    arrays: dict[str, np.ndarray[Any, Any]] = {}
    for split, loss in found.items():
        arrays[f"{split}/nats"] = loss.nats_per_window
        arrays[f"{split}/tokens"] = loss.tokens_per_window
        arrays[f"{split}/nats_per_position"] = loss.nats_per_position
        arrays[f"{split}/tokens_per_position"] = loss.tokens_per_position
        arrays[f"{split}/nats_per_id"] = loss.nats_per_id
        arrays[f"{split}/tokens_per_id"] = loss.tokens_per_id
    write_bytes(path, save(arrays))


def make_result(
    *,
    config: schema.Config,
    run: Run,
    progress: Progress,
    counts: Counts,
    found: dict[str, HeldOutLoss],
    weights: dict[str, Tensor],
    n_steps: int,
    hidden_rms: list[float],
    ranks: Ranks = ALONE,
) -> dict[str, Any]:
    """The final record; its keys are those of `train --json`."""
    assert progress.first_loss_nats is not None
    fsync_file(run.metrics_path)  # the record vouches for it
    test, val = found["test"], found["val"]
    return {
        "run_id": run.run_id,
        "status": "complete",
        "variant": config.variant.name,
        "model": config.model.preset,
        "data": config.data.corpus,
        "seed": config.seed,
        "val_loss_nats": val.loss_nats,
        "val_bits_per_byte": val.bits_per_byte,
        "test_loss_nats": test.loss_nats,
        "test_perplexity": perplexity(test.loss_nats),
        "test_bits_per_byte": test.bits_per_byte,
        "train_loss_nats": progress.train_loss_nats,
        "best_val_loss_nats": progress.best_val_loss_nats,
        "best_val_step": progress.best_val_step,
        "unstable": progress.train_loss_nats > progress.first_loss_nats,
        "n_params": counts.n_params,
        "n_ffn_params": counts.n_ffn_params,
        "d_ff": counts.d_ff,
        "match_residual": counts.match_residual,
        "flops_per_token": counts.flops_per_token,
        "forward_flops_per_token": counts.forward_flops_per_token,
        "ffn_saved_bytes_per_token": counts.ffn_saved_bytes_per_token,
        "tokens": progress.tokens,
        "steps": n_steps,
        "tokens_per_s": progress.tokens_per_s,
        "mfu": find_utilisation(config.train, counts, progress, ranks.size),
        "elapsed_s": progress.elapsed_s,
        "peak_bytes": find_peak_bytes(progress, config.train.device),
        "hidden_rms_at_init": hidden_rms,  # a layer each
        "exact": progress.exact,
        "window": config.model.seq_len,
        "stride": test.stride,
        "n_test_tokens": test.n_tokens,
        "n_test_bytes": test.n_bytes,
        "blocks_sha256": sha256_file(run.path / "blocks.safetensors"),
        CHECKSUMS: hash_parts(run),
        "parameters_sha256": hash_weights(weights),
    }


def find_utilisation(train: schema.Train, counts: Counts, progress: Progress, n_devices: int) -> float | None:
    """Share of the devices' peak that training's matrix multiplies made use of; None if it is not known.

    Attention is counted in full. Source: Chowdhery et al. 2022, arXiv 2204.02311, appendix B.
    """
    peak = find_peak(train.device, train.precision)
    if peak is None or progress.tokens_per_s is None:
        return None
    return counts.flops_per_token * progress.tokens_per_s / (n_devices * peak)


def find_peak_bytes(progress: Progress, device: str) -> int:
    """Greatest memory in use, in bytes, of this process and of those that trained before it."""
    return max(progress.peak_bytes, read_peak_bytes(device))


def read_peak_bytes(device: str) -> int:
    """Greatest memory in use: of the allocator on a GPU, of the whole process on a CPU."""
    if device.startswith("cuda"):
        return torch.cuda.max_memory_allocated(device)
    return read_peak_rss_bytes()
