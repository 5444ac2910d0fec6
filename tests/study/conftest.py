"""Run folders as training leaves them, without training."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from glu_bench.files import sha256_bytes, write_json
from glu_bench.runs.folder import Run, make_identity, make_run_id, open_run
from glu_bench.runs.record import write_record
from glu_bench.study.arms import Entry
from tests.conftest import TinyConfig

MakeRun = Callable[..., Run]


@pytest.fixture
def make_run(tiny_config: TinyConfig, tmp_path: Path) -> MakeRun:
    """Makes a run folder: complete with this test loss, or diverged, or begun and no more."""
    return maker_of_runs(tiny_config, tmp_path)


LOSSES = {"gelu": [2.0, 2.2, 2.1], "swiglu": [1.8, 2.0, 1.95], "relu": [2.5, 2.4, 2.6]}


@pytest.fixture(scope="session")
def nine_runs(tiny_config: TinyConfig, tmp_path_factory: pytest.TempPathFactory) -> list[Run]:
    """Three arms of three seeds, in an output folder of their own that tests only read."""
    make = maker_of_runs(tiny_config, tmp_path_factory.mktemp("nine"))
    return [make(arm, seed, loss) for arm, losses in LOSSES.items() for seed, loss in enumerate(losses)]


def maker_of_runs(tiny_config: TinyConfig, output_dir: Path) -> MakeRun:
    """The function behind `make_run`."""

    def make(
        variant: str,
        seed: int,
        loss_nats: float | None,
        *words: str,
        diverged: bool = False,
        data: str = "d",
        tokenizer: str = "t",
        plugins: Sequence[dict[str, Any]] = (),
        machine: Mapping[str, Any] | None = None,
        **changes: Any,
    ) -> Run:
        config = tiny_config(f"variant={variant}", *words)
        config.seed = seed
        facts = {
            "data_fingerprint": data,
            "tokenizer_fingerprint": tokenizer,
            "vocab_size": 257,
            "plugins": list(plugins),
            **(machine or {}),
        }
        facts["run_id"] = make_run_id(config, facts)
        run = open_run(output_dir, config, facts)
        if diverged:
            write_json(run.path / "failure.json", {"status": "diverged", "step": 3, "reason": "loss is nan"})
        if loss_nats is not None:
            record: dict[str, Any] = {
                "run_id": run.run_id,
                "status": "complete",
                "variant": variant,
                "model": config.model.preset,
                "data": config.data.corpus,
                "seed": seed,
                "val_loss_nats": loss_nats + 1,
                "val_bits_per_byte": loss_nats + 2,
                "test_loss_nats": loss_nats,
                "test_perplexity": None,
                "test_bits_per_byte": 2 * loss_nats,
                "train_loss_nats": loss_nats - 1,
                "best_val_loss_nats": loss_nats,
                "best_val_step": 5,
                "unstable": False,
                "n_params": 80_208,
                "n_ffn_params": 36_864,
                "d_ff": 128,
                "match_residual": 0.0,
                "flops_per_token": 424_224,
                "tokens": 384,
                "steps": 6,
                "tokens_per_s": 1000.0 + seed,
                "elapsed_s": 1.0,
                "peak_bytes": 10_000 + seed,
                "exact": True,
                "window": 16,
                "stride": 16,
                "n_test_tokens": 3868,
                "n_test_bytes": 3862,
                "blocks_sha256": "0" * 64,
                "parameters_sha256": sha256_bytes(run.run_id.encode()),
            }
            write_record(run.path / "result.json", {**record, **changes})
        return run

    return make


MakeEntry = Callable[..., Entry]


@pytest.fixture(scope="session")
def make_entry(tiny_config: TinyConfig) -> MakeEntry:
    """Makes what a comparison reads of a run, no folder behind it: complete with a loss, else diverged.

    `keys` replaces dotted settings, `changes` parts of the record.
    """
    facts = {"data_fingerprint": "d", "tokenizer_fingerprint": "t"}

    def make(
        variant: str, seed: int, loss_nats: float | None, keys: dict[str, Any] | None = None, **changes: Any
    ) -> Entry:
        identity = make_identity(tiny_config(f"variant={variant}"), facts) | (keys or {})
        del identity["seed"]  # stands beside it
        record = {
            "val_loss_nats": None if loss_nats is None else loss_nats + 1,
            "test_loss_nats": loss_nats,
            "tokens": 384,
            "n_params": 80_208,
            "flops_per_token": 1000,
            "tokens_per_s": 500.0,
            **changes,
        }
        complete = loss_nats is not None
        name = " ".join([variant, str(seed), *(f"{k}={v}" for k, v in sorted((keys or {}).items()))])
        status = "complete" if complete else "diverged"
        return Entry(name, identity, seed, status, record if complete else None, arm=variant)

    return make
