"""One run from configuration to result, as a stream of events.

    for event in train_run(config, output_dir, stop): …

The loop writes the run folder and yields what happened; it draws nothing and prints nothing.
The same call goes on where an earlier one stopped, to the same bits, or returns the finished
record. Several ranks make the same calls together; rank 0 writes, and it alone yields Finished.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import torch

from glu_bench import schema
from glu_bench.data.order import BatchOrder, make_order
from glu_bench.data.prepared import OnProgress, TokenSet, prepare_tokens
from glu_bench.device import (
    explain_unrepeatable,
    keep_fp32_exact,
    make_autocast,
    repeat_bits,
    resolve_train,
)
from glu_bench.errors import (
    ConfigError,
    DataError,
    DivergedError,
    GluBenchError,
    InterruptedRunError,
    explain_memory,
)
from glu_bench.evaluate.loss import HeldOutLoss
from glu_bench.evaluate.perplexity import evaluate_stream
from glu_bench.faults import name_run, reach
from glu_bench.ffn.formula import make_formula
from glu_bench.ffn.matching import Receipt, check_receipt, match_width
from glu_bench.ffn.plugins import find_plugins
from glu_bench.files import dump_json, hold_lock, remove_strays, write_json
from glu_bench.lm.counts import count_model
from glu_bench.lm.decoder import make_decoder
from glu_bench.lm.hidden import measure_hidden_rms
from glu_bench.lm.init import init_weights, make_generator
from glu_bench.ranks import ALONE, Ranks
from glu_bench.runs.checkpoint import Checkpoint, load_checkpoint, load_latest, save_checkpoint
from glu_bench.runs.environment import read_environment
from glu_bench.runs.folder import Run, keep_tokenizer, make_run_id, open_run, restart_run
from glu_bench.runs.record import append_row, drop_rows_after, keep_rows, write_record
from glu_bench.train.diagnostics import make_diagnostics
from glu_bench.train.events import Evaluating, Event, Finished, Logged, Started
from glu_bench.train.feed import Feed, make_feed
from glu_bench.train.optimizer import make_optimizer
from glu_bench.train.profile import Profiler, explain_complete
from glu_bench.train.progress import Progress, pack_state, pack_tensors, restore_progress
from glu_bench.train.reports import write_run, write_step
from glu_bench.train.result import collect_weights, make_result, write_blocks
from glu_bench.train.schedule import learning_rate
from glu_bench.train.shards import Shards, make_shards
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
    profile: bool = False,
    deterministic: bool = False,
    on_prepare: OnProgress | None = None,
    ranks: Ranks = ALONE,
) -> Iterator[Event]:
    """Train, or go on, or return what is finished; `profile` as in train/profile.py.

    `deterministic` holds torch to algorithms that give the same bits each time, in all of this process.
    Raises: DivergedError, InterruptedRunError (saved, resumable), LostRankError, and whatever else of
    errors.py keeps the run from going on.
    """
    if profile and ranks.size > 1:
        raise ConfigError("--profile: watches one process alone; leave out parallel")
    make_formula(config.variant)  # an unknown function is said before texts are read
    receipt = match_width(config.variant, config.model.d_model, config.match, config.model.ffn_bias)
    check_receipt(receipt, allow_unmatched)
    train, remarks = resolve_train(ranks.place(config.train))
    config = dataclasses.replace(config, train=train)
    keep_fp32_exact()
    if deterministic:
        repeat_bits()
    if train.threads is not None:
        torch.set_num_threads(train.threads)
    tokens = ranks.after_first(lambda: prepare_tokens(config, on_prepare))
    vocab_size = tokens.tokenizer.vocab_size
    facts = read_environment(train.device, train.compile == "true") | {
        "data_fingerprint": tokens.data_fingerprint,
        "tokenizer_fingerprint": tokens.tokenizer.fingerprint,
        "plugins": find_plugins(config.variant),
        "vocab_size": vocab_size,
        "splits": tokens.manifest["splits"],
    }
    if any(tokens.manifest["overlap_bytes"].values()):
        facts["overlap_bytes"] = tokens.manifest["overlap_bytes"]
    remarks += tokens.describe_overlap()
    if ranks.size > 1:
        facts |= {"parallel": ranks.mode, "n_ranks": ranks.size}
    facts["run_id"] = make_run_id(config, facts)
    name_run(facts["run_id"])
    order = make_order(tokens.stream("train"), config.model.seq_len, train.batch_size, config.seed)
    for split in ("val", "test"):
        tokens.stream(split)  # an empty one is refused before anything is written
    with explain_unrepeatable(), ranks.explain_loss():
        ranks.connect(train.device)
        ranks.check_same(_list_shared(config, facts))
        run = Run(output_dir / "runs" / facts["run_id"])
        if not ranks.writes:
            if not ranks.share("folder"):  # rank 0 has entered the folder, and the run is not complete
                idle = Profiler(None, config, order)
                yield from _train(
                    config, run, tokens, order, receipt, stop, resume_inexact, remarks, ranks, idle
                )
            return
        open_run(output_dir, config, facts)
        if config.tokenizer.kind != "byte":
            keep_tokenizer(run, tokens.folder / "tokenizer.json")
        with hold_lock(run.path):
            remove_strays(run.path)
            if restart:
                restart_run(run)
            status = run.outcome()
            _refuse_diverged(run, status)
            if ranks.share("folder", int(status == "complete")):
                shown = explain_complete() if profile else None
                yield Finished(run=run, record=run.result(), reused=True, profile=shown)
                return
            (run.path / "failure.json").unlink(missing_ok=True)
            write_run(run.path)
            watch = Profiler(run.path if profile else None, config, order)
            with _note_failure(run), explain_unrepeatable(), ranks.explain_loss(), watch:
                yield from _train(
                    config, run, tokens, order, receipt, stop, resume_inexact, remarks, ranks, watch
                )


def _list_shared(config: schema.Config, facts: dict[str, Any]) -> dict[str, tuple[str, type[GluBenchError]]]:
    """What all ranks must see alike, as text, and the error if they do not."""
    own = ("train.device", "train.threads")
    keys = {dotted: value for dotted, value in schema.flatten_config(config).items() if dotted not in own}
    return {
        "text": (facts["data_fingerprint"], DataError),
        "tokenizer": (facts["tokenizer_fingerprint"], DataError),
        "configuration": (dump_json(keys), ConfigError),
    }


def _refuse_diverged(run: Run, status: str | None) -> None:
    failure = run.failure()
    if status == "diverged" and failure is not None:
        raise DivergedError(
            f"{run.run_id}: diverged at step {failure['step']} ({failure['reason']}); --restart"
        )


@contextlib.contextmanager
def _note_failure(run: Run) -> Iterator[None]:
    """Write failure.json if the run breaks; a stop, a divergence and a refused command do not break it."""
    try:
        yield
    except (InterruptedRunError, DivergedError, ConfigError):
        raise
    except Exception as error:
        line = str(error).splitlines()[0] if str(error) else type(error).__name__
        reason = str(explain_memory(error) or f"{type(error).__name__}: {line}")
        with contextlib.suppress(OSError, GluBenchError):  # the disk may be full: that is the error to tell
            write_json(run.path / "failure.json", {"status": "failed", "reason": reason})
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
    ranks: Ranks,
    profiler: Profiler,
) -> Iterator[Event]:
    reach("run.begin")
    train, device = config.train, torch.device(config.train.device)
    n_steps = count_steps(config, order)
    model = make_decoder(config, tokens.tokenizer.vocab_size, train.fast)
    init_weights(model, config.seed, config.init)
    if ranks.mode != "fsdp":
        model.to(device)
    first = torch.from_numpy(order.batch(0)[:, :-1]).to(next(model.parameters()).device)
    hidden_rms = measure_hidden_rms(model, first)  # before the weights of a checkpoint come
    shards = make_shards(model, train, ranks, bool(config.parallel.activation_checkpointing))
    optimizer = make_optimizer(model, config.optim)
    torch.manual_seed(make_generator(config.seed, ranks.name("dropout")).initial_seed())
    checkpoint, broken = _load_latest(run, ranks)
    remarks = remarks + [f"set aside: {reason}" for reason in broken]
    progress = Progress()
    if checkpoint is not None:
        progress = restore_progress(checkpoint, model, optimizer, resume_inexact, ranks)
    if ranks.writes:
        drop_rows_after(run.metrics_path, progress.step)
    counts = count_model(config, tokens.tokenizer.vocab_size)
    diagnostics, skipped = make_diagnostics(config, tokens.stream("val"), model.d_ff, ranks)
    remarks = remarks + skipped
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
                shards.eval_nats,
                tokens.stream(split),
                seq_len=config.model.seq_len,
                batch_size=train.batch_size // train.grad_accum,
                stride=None if max_tokens else config.evaluation.stride,
                max_tokens=max_tokens,
                device=device,
                ranks=ranks,
            )
        model.train()
        return found

    def save() -> None:
        reach("ckpt.begin")
        weights, state = collect_weights(model, ranks), pack_tensors(model, optimizer, ranks)
        # an update can overflow although loss and gradient were finite
        broken = [name for name, tensor in weights.items() if not tensor.isfinite().all()]
        if ranks.share(f"finite {progress.step}", len(broken)):
            reason = f"{broken[0] if broken else 'a tensor'} holds numbers that are not finite"
            _diverge(run, ranks, progress.step, reason, "no checkpoint was written of this step")
        if ranks.writes:
            keep_rows(run.metrics_path)  # those of the steps that a resume will not repeat
            save_checkpoint(
                run.checkpoints,
                run.run_id,
                progress.step,
                weights,
                state,
                pack_state(progress, ranks),
                train.keep_checkpoints,
            )
        # who is asked to stop must not be ended before the checkpoint is whole
        ranks.share(f"saved {progress.step}")

    feed = make_feed(order, ranks.slice_rows(train.batch_size), device)
    n_since_start = 0
    while progress.step < n_steps:
        profiler.begin_step(progress.step)
        profiled = profiler.active
        began = time.monotonic()
        rate = learning_rate(progress.step, n_steps, config.optim)
        optimizer.set_rate(rate)
        number = progress.step + 1
        last = number == n_steps
        evaluated = number % train.eval_every == 0 or last
        logged = evaluated or number % train.log_every == 0 or number == 1
        write_step(ranks.rank, number)
        loss_nats = _backward(shards, feed, progress.step, config, profiler)
        gradients = diagnostics.read_gradients(model) if logged else {}
        with profiler.region("clip"):
            grad_norm = shards.clip(config.optim.clip_norm)
        if reach("step.after_backward"):
            loss_nats = math.nan
        losses_nats = [part for (part,) in ranks.gather(loss_nats)]
        loss_nats = sum(losses_nats)
        # where the stream overflows, a norm divides by infinity: logits and gradients are all zero
        dead = grad_norm == 0 < loss_nats
        if dead or not (math.isfinite(loss_nats) and math.isfinite(grad_norm)):
            _diverge(
                run, ranks, number, _say_divergence(losses_nats, grad_norm), "the weights were not updated"
            )
        with profiler.region("optimiser"):
            optimizer.step()
            optimizer.zero_grad()
        elapsed_s = time.monotonic() - began
        n_since_start += 1
        n_tokens = train.batch_size * config.model.seq_len
        timed = n_since_start > WARMUP_STEPS and not profiled
        progress.count_step(loss_nats, n_tokens, elapsed_s, timed)
        profiler.end_step(model, last)
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
        if evaluated:
            val_loss_nats = held_out("val", train.eval_tokens).loss_nats
            if reach("eval.after_val"):
                val_loss_nats = math.nan
            progress.count_evaluation(val_loss_nats)
            row["val_loss_nats"] = val_loss_nats if math.isfinite(val_loss_nats) else None
        if logged:
            row |= diagnostics.read_units(model) if evaluated or number == 1 else {}
            row |= gradients
            if ranks.writes:
                append_row(run.metrics_path, row)
            yield Logged(row=row)
        stop.nothing_to_save = False  # from here on a signal waits for the end of the step
        asked = ranks.agree_stop(stop.number)
        if asked is not None and not last:
            save()
            raise InterruptedRunError(
                f"{run.run_id}: stopped and saved at step {progress.step}; the same command goes on", asked
            )
        if progress.step % train.checkpoint_every == 0 or last:
            save()
    stop.nothing_to_save = True
    asked = ranks.agree_stop(stop.number)  # during the last checkpoint, say
    if asked is not None:
        raise InterruptedRunError(
            f"{run.run_id}: stopped after the last step, before its evaluation; the same command goes on",
            asked,
        )

    found: dict[str, HeldOutLoss] = {}
    for split in ("val", "test"):
        yield Evaluating(split=split)
        found[split] = held_out(split)
        loss_nats = found[split].loss_nats
        if not math.isfinite(loss_nats):
            _diverge(run, ranks, n_steps, f"{split} loss is {loss_nats}", "there is no result of it")
    weights = collect_weights(model, ranks)
    if not ranks.writes:
        ranks.share("record")
        return
    write_blocks(run.path / "blocks.safetensors", found)
    record = make_result(config, run, progress, counts, found, weights, n_steps, hidden_rms, ranks)
    write_record(run.path / "result.json", record)
    ranks.share("record")
    yield Finished(run=run, record=record, reused=False, profile=profiler.found)


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


def _load_latest(run: Run, ranks: Ranks) -> tuple[Checkpoint | None, list[str]]:
    """The checkpoint to go on from, the same on all ranks, and why newer ones do not verify."""
    if ranks.writes:
        checkpoint, broken = load_latest(run.checkpoints, run.run_id)
        ranks.share("resumed", 0 if checkpoint is None else checkpoint.step)
        return checkpoint, broken
    step = ranks.share("resumed")
    return (load_checkpoint(run.checkpoints / f"step-{step:08d}", run.run_id) if step else None), []


def _diverge(run: Run, ranks: Ranks, step: int, reason: str, left: str) -> NoReturn:
    """End a run whose numbers are none, with failure.json; all ranks call it together."""
    if ranks.writes:
        write_json(run.path / "failure.json", {"status": "diverged", "step": step, "reason": reason})
    raise DivergedError(f"{run.run_id}: diverged at step {step}, {reason}; {left}")


def _say_divergence(losses_nats: list[float], grad_norm: float) -> str:
    for rank, loss_nats in enumerate(losses_nats):
        if not math.isfinite(loss_nats):
            return f"loss is {loss_nats}" + (f" on rank {rank}" if len(losses_nats) > 1 else "")
    if not math.isfinite(sum(losses_nats)):
        return f"loss is {sum(losses_nats)}"
    return f"gradient norm is {grad_norm}"


def _backward(shards: Shards, feed: Feed, step: int, config: schema.Config, profiler: Profiler) -> float:
    """This rank's part of the mean loss over one step's batch, in nats; the parameters get its gradients.

    Each micro-batch adds its sum over the whole batch's token count, so accumulation weighs
    tokens, not micro-batches, and so do ranks.
    """
    train = config.train
    n_targets = train.batch_size * config.model.seq_len
    with profiler.region("data"):
        own = feed.take(step)
    total = torch.zeros((), device=own.device)
    for number, micro in enumerate(own.chunk(train.grad_accum), start=1):
        with shards.accumulating(last=number == train.grad_accum):
            with profiler.region("forward"), make_autocast(train.device, train.precision):
                loss = shards.nats(micro[:, :-1], micro[:, 1:]).sum() / n_targets
            with profiler.region("backward"):
                shards.backward(loss)
        total += loss.detach()
    with profiler.region("data"):
        feed.prepare(step + 1)
    return total.item()
