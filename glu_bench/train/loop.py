"""One run from configuration to result, as a stream of events.

    for event in train_run(config, output_dir, stop): …

The loop writes the run folder and yields what happened; it draws nothing and prints nothing.
The same call goes on where an earlier one stopped, to the same bits, or returns the finished
record.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from glu_bench import schema
from glu_bench.data.order import BatchOrder, make_order
from glu_bench.data.prepared import OnProgress, TokenSet, prepare_tokens
from glu_bench.device import make_autocast, resolve_train
from glu_bench.errors import DivergedError, InterruptedRunError
from glu_bench.evaluate.perplexity import HeldOutLoss, Nats, evaluate_stream
from glu_bench.ffn.formula import make_formula
from glu_bench.ffn.matching import Receipt, check_receipt, match_width
from glu_bench.ffn.plugins import find_plugins
from glu_bench.files import hold_lock, write_json
from glu_bench.lm.compiled import compile_decoder
from glu_bench.lm.counts import count_model
from glu_bench.lm.decoder import Decoder, make_decoder
from glu_bench.lm.hidden import measure_hidden_rms
from glu_bench.lm.init import init_weights, make_generator
from glu_bench.runs.checkpoint import load_latest, save_checkpoint
from glu_bench.runs.environment import read_environment
from glu_bench.runs.folder import Run, keep_tokenizer, make_run_id, open_run, restart_run
from glu_bench.runs.record import append_row, drop_rows_after, write_record
from glu_bench.train.events import Evaluating, Event, Finished, Logged, Started
from glu_bench.train.optimizer import make_optimizer
from glu_bench.train.progress import Progress, pack_state, pack_tensors, restore_progress
from glu_bench.train.result import collect_weights, make_result, write_blocks
from glu_bench.train.schedule import learning_rate
from glu_bench.train.stop import StopRequest

WARMUP_STEPS = 3  # not counted in tokens/s: compilation, first allocations


def train_run(
    config: schema.Config,
    output_dir: Path,
    stop: StopRequest,
    *,
    allow_unmatched: bool = False,
    resume_inexact: bool = False,
    restart: bool = False,
    on_prepare: OnProgress | None = None,
) -> Iterator[Event]:
    """Train, or go on, or return what is finished.

    Raises: DivergedError, InterruptedRunError (saved, resumable), and whatever else of errors.py
    keeps the run from going on.
    """
    make_formula(config.variant)  # an unknown function is said before texts are read
    receipt = match_width(config.variant, config.model.d_model, config.match, config.model.ffn_bias)
    check_receipt(receipt, allow_unmatched)
    train, remarks = resolve_train(config.train)
    config = dataclasses.replace(config, train=train)
    if train.threads is not None:
        torch.set_num_threads(train.threads)
    tokens = prepare_tokens(config, on_prepare)
    vocab_size = tokens.tokenizer.vocab_size
    facts = read_environment(train.device) | {
        "data_fingerprint": tokens.data_fingerprint,
        "tokenizer_fingerprint": tokens.tokenizer.fingerprint,
        "plugins": find_plugins(config.variant),
        "vocab_size": vocab_size,
        "splits": tokens.manifest["splits"],
    }
    facts["run_id"] = make_run_id(config, facts)
    order = make_order(tokens.stream("train"), config.model.seq_len, train.batch_size, config.seed)
    for split in ("val", "test"):
        tokens.stream(split)  # an empty one is refused before anything is written
    run = open_run(output_dir, config, facts)
    if config.tokenizer.kind != "byte":
        keep_tokenizer(run, tokens.folder / "tokenizer.json")
    with hold_lock(run.path):
        if restart:
            restart_run(run)
        status = run.outcome()
        if status == "complete":
            yield Finished(run=run, record=run.result(), reused=True)
            return
        failure = run.failure()
        if status == "diverged" and failure is not None:
            raise DivergedError(
                f"{run.run_id}: diverged at step {failure['step']} ({failure['reason']}); --restart"
            )
        (run.path / "failure.json").unlink(missing_ok=True)
        try:
            yield from _train(config, run, tokens, order, receipt, stop, resume_inexact, remarks)
        except InterruptedRunError as error:
            raise InterruptedRunError(f"{error}; the same command goes on", error.exit_code - 128) from None
        except DivergedError:
            raise
        except Exception as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            write_json(
                run.path / "failure.json", {"status": "failed", "reason": f"{type(error).__name__}: {reason}"}
            )
            raise


def _train(
    config: schema.Config,
    run: Run,
    tokens: TokenSet,
    order: BatchOrder,
    receipt: Receipt,
    stop: StopRequest,
    resume_inexact: bool,
    remarks: list[str],
) -> Iterator[Event]:
    train, device = config.train, torch.device(config.train.device)
    n_steps = count_steps(config, order)
    model = make_decoder(config, tokens.tokenizer.vocab_size)
    init_weights(model, config.seed, config.init)
    model.to(device)
    first = torch.from_numpy(order.batch(0)[:, :-1]).to(device)
    hidden_rms = measure_hidden_rms(model, first)  # before the weights of a checkpoint come
    optimizer = make_optimizer(model, config.optim)
    torch.manual_seed(make_generator(config.seed, "dropout").initial_seed())
    checkpoint, broken = load_latest(run.checkpoints, run.run_id)
    remarks = remarks + [f"set aside: {reason}" for reason in broken]
    progress = Progress()
    if checkpoint is not None:
        progress = restore_progress(checkpoint, model, optimizer, resume_inexact)
    drop_rows_after(run.metrics_path, progress.step)
    nats = compile_decoder(model) if train.compile == "true" else model.nats
    counts = count_model(config, tokens.tokenizer.vocab_size)
    yield Started(
        run=run,
        config=config,
        counts=counts,
        receipt=receipt,
        n_steps=n_steps,
        resumed_step=progress.step,
        remarks=remarks,
    )

    def held_out(split: str, max_tokens: int | None = None) -> HeldOutLoss:
        model.eval()
        with make_autocast(train.device, train.precision):
            found = evaluate_stream(
                nats,
                tokens.stream(split),
                seq_len=config.model.seq_len,
                batch_size=train.batch_size // train.grad_accum,
                stride=None if max_tokens else config.evaluation.stride,
                max_tokens=max_tokens,
                device=device,
            )
        model.train()
        return found

    def save() -> None:
        save_checkpoint(
            run.checkpoints,
            run.run_id,
            progress.step,
            collect_weights(model),
            pack_tensors(model, optimizer),
            pack_state(progress),
            train.keep_checkpoints,
        )

    n_since_start = 0
    while progress.step < n_steps:
        began = time.monotonic()
        rate = learning_rate(progress.step, n_steps, config.optim)
        optimizer.set_rate(rate)
        loss_nats, grad_norm = _backward(nats, order, progress.step, config, model)
        if not (math.isfinite(loss_nats) and math.isfinite(grad_norm)):
            what = "loss" if not math.isfinite(loss_nats) else "gradient norm"
            reason = f"{what} is {loss_nats if what == 'loss' else grad_norm}"
            step = progress.step + 1
            write_json(run.path / "failure.json", {"status": "diverged", "step": step, "reason": reason})
            raise DivergedError(
                f"{run.run_id}: diverged at step {step}, {reason}; the weights were not updated"
            )
        optimizer.step()
        optimizer.zero_grad()
        elapsed_s = time.monotonic() - began
        n_since_start += 1
        n_tokens = train.batch_size * config.model.seq_len
        progress.count_step(loss_nats, n_tokens, elapsed_s, timed=n_since_start > WARMUP_STEPS)
        last = progress.step == n_steps
        row: dict[str, Any] = {
            "step": progress.step,
            "n_steps": n_steps,
            "tokens": progress.tokens,
            "loss_nats": loss_nats,
            "grad_norm": grad_norm,
            "lr": rate,
            "tokens_per_s": progress.tokens_per_s,
            "elapsed_s": progress.elapsed_s,
        }
        if progress.step == 1:
            row["hidden_rms_at_init"] = hidden_rms
        evaluated = progress.step % train.eval_every == 0 or last
        if evaluated:
            row["val_loss_nats"] = held_out("val", train.eval_tokens).loss_nats
            progress.count_evaluation(row["val_loss_nats"])
        if evaluated or progress.step % train.log_every == 0 or progress.step == 1:
            append_row(run.metrics_path, row)
            yield Logged(row=row)
        stop.nothing_to_save = False  # from here on a signal waits for the end of the step
        if stop.number is not None and not last:
            save()
            raise InterruptedRunError(f"{run.run_id}: stopped and saved at step {progress.step}", stop.number)
        if progress.step % train.checkpoint_every == 0 or last:
            save()
    stop.nothing_to_save = True
    if stop.number is not None:
        raise InterruptedRunError(
            f"{run.run_id}: stopped after the last step, before its evaluation", stop.number
        )

    found: dict[str, HeldOutLoss] = {}
    for split in ("val", "test"):
        yield Evaluating(split=split)
        found[split] = held_out(split)
    write_blocks(run.path / "blocks.safetensors", found)
    record = make_result(config, run, progress, counts, found, model, n_steps, hidden_rms)
    write_record(run.path / "result.json", record)
    yield Finished(run=run, record=record, reused=False)


def count_steps(config: schema.Config, order: BatchOrder) -> int:
    """Optimiser steps of the budget, at least 1; tokens and epochs are rounded to whole steps."""
    train = config.train
    if train.steps is not None:
        return train.steps
    per_step = train.batch_size * config.model.seq_len
    if train.tokens is not None:
        return max(1, round(train.tokens / per_step))
    assert train.epochs is not None  # check_config saw to it
    return max(1, round(train.epochs * order.n_blocks / train.batch_size))


def _backward(
    nats: Nats, order: BatchOrder, step: int, config: schema.Config, model: Decoder
) -> tuple[float, float]:
    """Gradients of one step's batch, clipped: (mean loss in nats, gradient norm before clipping).

    Each micro-batch adds its sum over the whole batch's token count, so accumulation weighs
    tokens, not micro-batches.
    """
    train, device = config.train, torch.device(config.train.device)
    batch = torch.from_numpy(order.batch(step)).to(device)
    n_targets = batch.shape[0] * (batch.shape[1] - 1)
    total = torch.zeros((), device=device)
    for micro in batch.chunk(train.grad_accum):
        with make_autocast(train.device, train.precision):
            loss = nats(micro[:, :-1], micro[:, 1:]).sum() / n_targets
        loss.backward()  # type: ignore[no-untyped-call]
        total += loss.detach()
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), config.optim.clip_norm)
    return total.item(), norm.item()
