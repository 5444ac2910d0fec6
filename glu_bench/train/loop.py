"""A model in training: from its last checkpoint or from nothing, step by step, to its record.

All ranks make the same calls together; rank 0 writes.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NoReturn

import torch

from glu_bench import schema
from glu_bench.data.order import BatchOrder
from glu_bench.data.prepared import TokenSet
from glu_bench.device import make_autocast
from glu_bench.errors import DivergedError, InterruptedRunError
from glu_bench.evaluate.loss import HeldOutLoss
from glu_bench.evaluate.perplexity import evaluate_stream
from glu_bench.faults import reach
from glu_bench.ffn.matching import Receipt
from glu_bench.files import write_json
from glu_bench.lm.counts import count_model
from glu_bench.lm.decoder import make_decoder
from glu_bench.lm.hidden import measure_hidden_rms
from glu_bench.lm.init import init_weights, make_generator
from glu_bench.ranks import Ranks
from glu_bench.runs.checkpoint import Checkpoint, load_checkpoint, load_latest, save_checkpoint
from glu_bench.runs.folder import Run
from glu_bench.runs.record import append_row, drop_rows_after, keep_rows, write_record
from glu_bench.train.diagnostics import make_diagnostics
from glu_bench.train.events import Evaluating, Event, Finished, Logged, Started
from glu_bench.train.feed import make_feed
from glu_bench.train.optimizer import make_optimizer
from glu_bench.train.profile import Profiler
from glu_bench.train.progress import Progress, pack_state, pack_tensors, restore_progress
from glu_bench.train.reports import write_step
from glu_bench.train.result import collect_weights, find_peak_bytes, make_result, write_blocks
from glu_bench.train.schedule import learning_rate
from glu_bench.train.shards import make_shards
from glu_bench.train.stop import StopRequest

WARMUP_STEPS = 3  # not counted in tokens/s: compilation, first allocations


@dataclass(frozen=True, kw_only=True)
class Job:
    """What is to be trained, as every rank has it."""

    config: schema.Config
    run: Run
    tokens: TokenSet
    order: BatchOrder
    receipt: Receipt
    remarks: list[str]
    resume_inexact: bool
    ranks: Ranks
    profiler: Profiler


class Trainer:
    """Model, optimiser and progress of one run; its events come from `train`."""

    def __init__(self, job: Job) -> None:
        reach("run.begin")
        config, train, ranks, tokens = job.config, job.config.train, job.ranks, job.tokens
        self.job = job
        self.device = torch.device(train.device)
        self.n_steps = count_steps(config, job.order)
        self.model = make_decoder(config, tokens.tokenizer.vocab_size, train.fast)
        init_weights(self.model, config.seed, config.init)
        if ranks.mode != "fsdp":
            self.model.to(self.device)
        first = torch.from_numpy(job.order.batch(0)[:, :-1]).to(next(self.model.parameters()).device)
        self.hidden_rms = measure_hidden_rms(self.model, first)  # before the weights of a checkpoint come
        self.shards = make_shards(self.model, train, ranks, bool(config.parallel.activation_checkpointing))
        self.optimizer = make_optimizer(self.model, config.optim)
        torch.manual_seed(make_generator(config.seed, ranks.name("dropout")).initial_seed())
        checkpoint, broken = _load_latest(job.run, ranks)
        self.progress = Progress()
        if checkpoint is not None:
            self.progress = restore_progress(
                *(checkpoint, self.model, self.optimizer, job.resume_inexact, ranks),
                train.compile == "true",
            )
        if ranks.writes:
            drop_rows_after(job.run.metrics_path, self.progress.step)
        self.counts = count_model(config, tokens.tokenizer.vocab_size)
        self.diagnostics, skipped = make_diagnostics(config, tokens.stream("val"), self.model.d_ff, ranks)
        self.remarks = [*job.remarks, *(f"set aside: {reason}" for reason in broken), *skipped]
        self.feed = make_feed(job.order, ranks.slice_rows(train.batch_size), self.device)
        self.n_since_start = 0

    def train(self, stop: StopRequest) -> Iterator[Event]:
        """Take the steps that are left, evaluate, write the record; rank 0 alone yields Finished.

        Raises: DivergedError; InterruptedRunError once what a stop leaves is saved.
        """
        job = self.job
        yield Started(
            run=job.run,
            config=job.config,
            counts=self.counts,
            receipt=job.receipt,
            n_steps=self.n_steps,
            resumed_step=self.progress.step,
            remarks=self.remarks,
        )
        while self.progress.step < self.n_steps:
            if (row := self._take_step()) is not None:
                yield Logged(row=row)
            self._save_if_due(stop)
        stop.nothing_to_save = True
        asked = job.ranks.agree_stop(stop.number)  # during the last checkpoint, say
        if asked is not None:
            raise InterruptedRunError(
                f"{job.run.run_id}: stopped after the last step, before its evaluation; "
                "the same command goes on",
                asked,
            )
        found: dict[str, HeldOutLoss] = {}
        for split in ("val", "test"):
            yield Evaluating(split=split)
            found[split] = self._evaluate(split)
            loss_nats = found[split].loss_nats
            if not math.isfinite(loss_nats):
                self._diverge(self.n_steps, f"{split} loss is {loss_nats}", "there is no result of it")
        record = self._write_result(found)
        if job.ranks.writes:
            yield Finished(run=job.run, record=record, reused=False, profile=job.profiler.found)

    def _take_step(self) -> dict[str, Any] | None:
        """One update of the weights; its row of the log, if it has one."""
        config, progress, profiler = self.job.config, self.progress, self.job.profiler
        train = config.train
        profiler.begin_step(progress.step)
        profiled = profiler.active
        began = time.monotonic()
        rate = learning_rate(progress.step, self.n_steps, config.optim)
        self.optimizer.set_rate(rate)
        number = progress.step + 1
        last = number == self.n_steps
        evaluated = number % train.eval_every == 0 or last
        logged = evaluated or number % train.log_every == 0 or number == 1
        write_step(self.job.ranks.rank, number)
        loss_nats = self._backward()
        gradients = self.diagnostics.read_gradients(self.model) if logged else {}
        with profiler.region("clip"):
            grad_norm = self.shards.clip(config.optim.clip_norm)
        loss_nats = self._check_step(number, loss_nats, grad_norm)
        with profiler.region("optimiser"):
            self.optimizer.step()
            self.optimizer.zero_grad()
        elapsed_s = time.monotonic() - began
        self.n_since_start += 1
        n_tokens = train.batch_size * config.model.seq_len
        timed = self.n_since_start > WARMUP_STEPS and not profiled
        progress.count_step(loss_nats, n_tokens, elapsed_s, timed)
        profiler.end_step(self.model, last)
        if not logged:
            return None
        row: dict[str, Any] = {
            "step": progress.step,
            "n_steps": self.n_steps,
            "tokens": progress.tokens,
            "loss_nats": loss_nats,
            "grad_norm": grad_norm,
            "lr": rate,
            "tokens_per_s": progress.tokens_per_s,
            "elapsed_s": progress.elapsed_s,
        }
        if number == 1:
            row["hidden_rms_at_init"] = self.hidden_rms
        if evaluated:
            row["val_loss_nats"] = self._evaluate_on_the_way()
        if evaluated or number == 1:
            row |= self.diagnostics.read_units(self.model)
        row |= gradients
        if self.job.ranks.writes:
            append_row(self.job.run.metrics_path, row)
        return row

    def _backward(self) -> float:
        """This rank's part of the mean loss over one step's batch, in nats; the parameters get its gradients.

        Each micro-batch adds its sum over the whole batch's token count, so accumulation weighs
        tokens, not micro-batches, and so do ranks.
        """
        train, profiler, step = self.job.config.train, self.job.profiler, self.progress.step
        n_targets = train.batch_size * self.job.config.model.seq_len
        with profiler.region("data"):
            own = self.feed.take(step)
        total = torch.zeros((), device=own.device)
        for number, micro in enumerate(own.chunk(train.grad_accum), start=1):
            with self.shards.accumulating(last=number == train.grad_accum):
                with profiler.region("forward"), make_autocast(train.device, train.precision):
                    loss = self.shards.nats(micro[:, :-1], micro[:, 1:]).sum() / n_targets
                with profiler.region("backward"):
                    self.shards.backward(loss)
            total += loss.detach()
        with profiler.region("data"):
            self.feed.prepare(step + 1)
        return total.item()

    def _check_step(self, number: int, loss_nats: float, grad_norm: float) -> float:
        """The loss of all ranks together.

        Raises: DivergedError if it or the gradient's norm is none, or the gradient has vanished.
        """
        if reach("step.after_backward"):
            loss_nats = math.nan
        losses_nats = [part for (part,) in self.job.ranks.gather(loss_nats)]
        loss_nats = sum(losses_nats)
        # where the stream overflows, a norm divides by infinity: logits and gradients are all zero
        dead = grad_norm == 0 < loss_nats
        if dead or not (math.isfinite(loss_nats) and math.isfinite(grad_norm)):
            self._diverge(number, _say_divergence(losses_nats, grad_norm), "the weights were not updated")
        return loss_nats

    def _evaluate_on_the_way(self) -> float | None:
        """Loss of a part of the validation split, None if not finite; progress remembers the least."""
        val_loss_nats = self._evaluate("val", self.job.config.train.eval_tokens).loss_nats
        if reach("eval.after_val"):
            val_loss_nats = math.nan
        self.progress.count_evaluation(val_loss_nats)
        return val_loss_nats if math.isfinite(val_loss_nats) else None

    def _evaluate(self, split: str, max_tokens: int | None = None) -> HeldOutLoss:
        config, train = self.job.config, self.job.config.train
        self.model.eval()
        with make_autocast(train.device, train.precision):
            found = evaluate_stream(
                self.shards.eval_nats,
                self.job.tokens.stream(split),
                seq_len=config.model.seq_len,
                batch_size=train.batch_size // train.grad_accum,
                stride=None if max_tokens else config.evaluation.stride,
                max_tokens=max_tokens,
                device=self.device,
                ranks=self.job.ranks,
            )
        self.model.train()
        return found

    def _save_if_due(self, stop: StopRequest) -> None:
        """Save where the budget of steps says so, or a stop is asked for, which then ends the run.

        Raises: InterruptedRunError.
        """
        step, last = self.progress.step, self.progress.step == self.n_steps
        stop.nothing_to_save = False  # from here on a signal waits for the end of the step
        asked = self.job.ranks.agree_stop(stop.number)
        if asked is not None and not last:
            self._save()
            raise InterruptedRunError(
                f"{self.job.run.run_id}: stopped and saved at step {step}; the same command goes on", asked
            )
        if step % self.job.config.train.checkpoint_every == 0 or last:
            self._save()

    def _save(self) -> None:
        """Write a checkpoint.

        Raises: DivergedError in place of one whose weights are not finite.
        """
        reach("ckpt.begin")
        run, ranks, step = self.job.run, self.job.ranks, self.progress.step
        weights = collect_weights(self.model, ranks)
        state = pack_tensors(self.model, self.optimizer, ranks)
        # an update can overflow although loss and gradient were finite
        broken = [name for name, tensor in weights.items() if not tensor.isfinite().all()]
        if ranks.share(f"finite {step}", len(broken)):
            reason = f"{broken[0] if broken else 'a tensor'} holds numbers that are not finite"
            self._diverge(step, reason, "no checkpoint was written of this step")
        if ranks.writes:
            keep_rows(run.metrics_path)  # those of the steps that a resume will not repeat
            train = self.job.config.train
            self.progress.peak_bytes = find_peak_bytes(self.progress, train.device)
            packed = pack_state(self.progress, self.device, train.compile == "true", ranks)
            save_checkpoint(run.checkpoints, run.run_id, step, weights, state, packed, train.keep_checkpoints)
        # who is asked to stop must not be ended before the checkpoint is whole
        ranks.share(f"saved {step}")

    def _write_result(self, found: dict[str, HeldOutLoss]) -> dict[str, Any]:
        """The final record, on the rank that writes; {} on the others, which wait for it."""
        job = self.job
        weights = collect_weights(self.model, job.ranks)
        record: dict[str, Any] = {}
        if job.ranks.writes:
            write_blocks(job.run.path / "blocks.safetensors", found)
            record = make_result(
                config=job.config,
                run=job.run,
                progress=self.progress,
                counts=self.counts,
                found=found,
                weights=weights,
                n_steps=self.n_steps,
                hidden_rms=self.hidden_rms,
                ranks=job.ranks,
            )
            write_record(job.run.path / "result.json", record)
        job.ranks.share("record")
        return record

    def _diverge(self, step: int, reason: str, left: str) -> NoReturn:
        """End a run whose numbers are none, with failure.json; all ranks call it together."""
        run = self.job.run
        if self.job.ranks.writes:
            write_json(run.path / "failure.json", {"status": "diverged", "step": step, "reason": reason})
        raise DivergedError(f"{run.run_id}: diverged at step {step}, {reason}; {left}")


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


def _say_divergence(losses_nats: list[float], grad_norm: float) -> str:
    for rank, loss_nats in enumerate(losses_nats):
        if not math.isfinite(loss_nats):
            return f"loss is {loss_nats}" + (f" on rank {rank}" if len(losses_nats) > 1 else "")
    if not math.isfinite(sum(losses_nats)):
        return f"loss is {sum(losses_nats)}"
    return f"gradient norm is {grad_norm}"
