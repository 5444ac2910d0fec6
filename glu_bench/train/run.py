"""One run from configuration to result, as a stream of events.

    for event in train_run(config, output_dir, stop): …

It writes the run folder and yields what happened; it draws nothing and prints nothing.
The same call goes on where an earlier one stopped, to the same bits, or returns the finished
record. Several ranks make the same calls together; rank 0 writes, and it alone yields Finished.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from glu_bench import schema
from glu_bench.data.order import make_order
from glu_bench.data.prepared import OnProgress, prepare_tokens
from glu_bench.device import (
    explain_unrepeatable,
    keep_fp32_exact,
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
from glu_bench.faults import name_run
from glu_bench.ffn.formula import make_formula
from glu_bench.ffn.matching import check_receipt, match_width
from glu_bench.files import dump_json, hold_lock, remove_strays, write_json
from glu_bench.ranks import ALONE, Ranks
from glu_bench.runs.checkpoint import list_checkpoints
from glu_bench.runs.environment import read_environment
from glu_bench.runs.folder import (
    Run,
    keep_tokenizer,
    list_identity_facts,
    make_run_id,
    open_run,
    restart_run,
)
from glu_bench.train.events import Event, Finished
from glu_bench.train.loop import Job, Trainer
from glu_bench.train.profile import Profiler, explain_complete
from glu_bench.train.reports import write_run
from glu_bench.train.stop import StopRequest, explain_stop


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
    facts = read_environment(train.device, train.compile == "true") | list_identity_facts(config, tokens)
    facts |= {"vocab_size": tokens.tokenizer.vocab_size, "splits": tokens.manifest["splits"]}
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
    with explain_unrepeatable(), ranks.explain_lost_rank():
        ranks.connect(train.device)
        ranks.check_same(_list_shared(config, facts))
        run = Run(output_dir / "runs" / facts["run_id"])
        job = Job(
            config=config,
            run=run,
            tokens=tokens,
            order=order,
            receipt=receipt,
            remarks=remarks,
            resume_inexact=resume_inexact,
            ranks=ranks,
            profiler=Profiler(run.path if profile else None, config, order),
        )
        if not ranks.writes:
            if not ranks.share("folder"):  # rank 0 has entered the folder, and the run is not complete
                yield from Trainer(job).train(stop)
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
            # without a checkpoint nothing is left of who entered the folder first
            if run.environment() != facts and not list_checkpoints(run.checkpoints):
                write_json(run.path / "environment.json", facts)
            write_run(run.path)
            with (
                _note_failure(run),
                explain_stop(stop),
                explain_unrepeatable(),
                ranks.explain_lost_rank(),
                job.profiler,
            ):
                yield from Trainer(job).train(stop)


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
