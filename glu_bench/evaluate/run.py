"""A finished run measured again: on another split, another stride, another text."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch

from glu_bench.data.prepared import TokenSet, TokenStream, prepare_tokens, whole_stream
from glu_bench.device import keep_fp32_exact, make_autocast, resolve_train
from glu_bench.errors import ConfigError, DataError
from glu_bench.evaluate.loss import HeldOutLoss
from glu_bench.evaluate.perplexity import evaluate_stream
from glu_bench.lm.compiled import compile_decoder
from glu_bench.runs.folder import Run


def evaluate_run(
    run: Run,
    *,
    split: str = "test",
    files: Sequence[str] = (),
    stride: int | None = None,
    device: str | None = None,
) -> HeldOutLoss:
    """Loss of a run's last checkpoint on one of its splits, or on the whole of other files.

    Precision and compilation are those the run was trained with, so its own test loss comes out
    again to the last bit on the same machine.
    Raises: DataError if the text is not the one the run was made with, or no checkpoint verifies.
    """
    config = run.config()
    if stride is not None and not 1 <= stride <= config.model.seq_len:
        raise ConfigError(f"stride {stride}: from 1 to the window of {config.model.seq_len} tokens")
    train, _ = resolve_train(dataclasses.replace(config.train, device=device or config.train.device))
    keep_fp32_exact()
    model = run.load_model().to(torch.device(train.device))
    stream = find_stream(run, split, files)
    nats = compile_decoder(model) if train.compile == "true" else model.nats
    with make_autocast(train.device, train.precision):
        return evaluate_stream(
            nats,
            stream,
            seq_len=config.model.seq_len,
            batch_size=train.batch_size // train.grad_accum,
            stride=stride or config.evaluation.stride,
            device=train.device,
        )


def find_stream(run: Run, split: str, files: Sequence[str] = ()) -> TokenStream:
    """One of a run's splits, or the whole of other files, in the run's tokens.

    Raises: DataError if the text is not the one the run was made with, or cannot be used.
    """
    config = run.config()
    if files:
        return whole_stream(list(files), config.data.column, run.load_tokenizer())
    tokens = prepare_tokens(config)
    check_fingerprint(run, tokens)
    run.check_tokenizer(tokens.tokenizer, f"{run.run_id}: the text's tokenizer")
    return tokens.stream(split)


def check_fingerprint(run: Run, tokens: TokenSet) -> None:
    """Refuse a text that is not the one a run was trained on, whatever the tokenizer.

    Raises: DataError with both fingerprints.
    """
    recorded = run.environment().get("data_fingerprint")
    if recorded != tokens.data_fingerprint:
        raise DataError(
            f"{run.run_id}: the text's fingerprint differs, {tokens.data_fingerprint[:12]} here and "
            f"{str(recorded)[:12]} when it was trained; the files changed, or Python's version did"
        )
