"""Rules that a configuration keeps: the range of every key, and what spans several keys."""

from __future__ import annotations

import dataclasses
import math
import re

from glu_bench.errors import ConfigError, suggest
from glu_bench.keys import check_range
from glu_bench.schema import Config, Data, Match, Model, Optim, Tokenizer, Train, Variant

DEVICE = re.compile(r"auto|cpu|mps|cuda(:\d{1,3})?")  # what train.device may be

# Keys of Optim that not every optimiser reads, and who does; null for the others.
OPTIM_READERS = {
    "beta1": ("adamw", "muon"),
    "beta2": ("adamw", "muon"),
    "momentum": ("muon",),
    "lr_ratio": ("muon",),
    "beta2_power": ("adafactor",),
    "min_scale": ("adafactor",),
    "max_update": ("adafactor",),
}

# Fields of a gated variant alone, with the values that say nothing.
_GATED_ALONE = {"gate_clamp": None, "gate_out_clamp": None, "up_clamp": None, "offset": 0.0, "mult": 1.0}


def check_config(config: Config) -> None:
    """Check every range and every rule that spans keys.

    Raises: ConfigError naming the key, the value and what would work.
    """
    _check_ranges(config)
    check_variant(config.variant)
    _check_heads(config.model)
    _check_budget(config.train)
    _check_match(config.match)
    _check_text(config.data, config.tokenizer)
    _check_stride(config)
    check_optim(config.optim)
    check_parallel(config)
    _check_schedule(config.optim)
    _check_device(config.train)
    _check_labels(config)


def _check_ranges(config: Config) -> None:
    for group in dataclasses.fields(config):
        value = getattr(config, group.name)
        if dataclasses.is_dataclass(value):
            for entry in dataclasses.fields(value):
                check_range(f"{group.name}.{entry.name}", getattr(value, entry.name), entry.metadata)
        else:
            check_range(group.name, value, group.metadata)


def _check_heads(model: Model) -> None:
    if model.d_model % model.n_heads or (model.d_model // model.n_heads) % 2:
        heads = [
            h for h in range(1, model.d_model + 1) if model.d_model % h == 0 and model.d_model // h % 2 == 0
        ]
        raise ConfigError(
            f"model.n_heads={model.n_heads}: model.d_model={model.d_model} must split into even heads"
            + (f"; heads that work: {', '.join(map(str, heads))}" if heads else "; choose an even d_model")
        )


def _check_budget(train: Train) -> None:
    given = [name for name in ("tokens", "steps", "epochs") if getattr(train, name) is not None]
    if len(given) != 1:
        raise ConfigError(
            "the budget is one of train.tokens, train.steps, train.epochs; given: "
            + (", ".join(f"train.{name}" for name in given) or "none")
        )
    if train.batch_size % train.grad_accum:
        raise ConfigError(
            f"train.grad_accum={train.grad_accum}: must divide train.batch_size={train.batch_size}"
        )


def _check_match(match: Match) -> None:
    if match.mode == "none" and match.d_ff is None:
        raise ConfigError("match=none needs the width itself: match.d_ff=512, say")
    if match.mode != "none" and match.d_ff is not None:
        raise ConfigError(f"match.d_ff={match.d_ff}: only match=none takes an explicit width")


def _check_text(data: Data, tokenizer: Tokenizer) -> None:
    if data.source == "files" and not data.files:
        raise ConfigError("data=text needs files: data.files=notes.txt, or 'data.files=[a.txt,b.txt]'")
    if data.source == "hub" and not data.path:
        raise ConfigError(
            "data=hub needs the dataset: data.path=owner/name, and often data.name, data.column"
        )
    if data.rows == "lines" and not (data.val_split and data.test_split):
        raise ConfigError(
            "data.rows=lines needs data.val_split and data.test_split: lines cannot be held out"
        )
    if tokenizer.kind == "bpe" and tokenizer.vocab_size is None:
        raise ConfigError("tokenizer=bpe needs tokenizer.vocab_size, 2048 say")
    if tokenizer.kind in ("file", "hub") and not tokenizer.path:
        raise ConfigError(f"tokenizer={tokenizer.kind} needs tokenizer.path")


def _check_stride(config: Config) -> None:
    stride, seq_len = config.evaluation.stride, config.model.seq_len
    if stride is not None and stride > seq_len:
        raise ConfigError(f"evaluation.stride={stride}: at most model.seq_len={seq_len}")


def _check_schedule(optim: Optim) -> None:
    if optim.schedule == "wsd" and optim.warmup_share + optim.decay_share > 1:
        raise ConfigError("optim.warmup_share + optim.decay_share must be at most 1 for optim.schedule=wsd")


def _check_device(train: Train) -> None:
    if not DEVICE.fullmatch(train.device):
        raise ConfigError(f"train.device={train.device}: one of auto, cpu, cuda, cuda:N, mps")


def _check_labels(config: Config) -> None:
    for dotted, label in (
        ("variant.name", config.variant.name),
        ("model.preset", config.model.preset),
        ("data.corpus", config.data.corpus),
    ):
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.]{0,63}", label):
            raise ConfigError(
                f"{dotted}={label!r}: letters, digits, '_' and '.', at most 64, as it names a folder"
            )


def check_parallel(config: Config) -> None:
    """Check that the processes of a run can share its batches and its optimiser.

    Raises: ConfigError naming the key and what would work.
    """
    parallel, train = config.parallel, config.train
    if parallel.mode == "single":
        if (parallel.devices or 1) > 1:
            raise ConfigError(
                f"parallel.devices={parallel.devices}: parallel=single is one process; "
                "parallel=ddp or parallel=fsdp has several"
            )
        return
    if parallel.timeout_s is None:
        raise ConfigError(f"parallel.timeout_s=null: parallel={parallel.mode} needs seconds, 600 say")
    if parallel.mode == "fsdp" and config.optim.name != "adamw":
        raise ConfigError(
            f"parallel=fsdp with optim={config.optim.name}: it needs whole matrices, which no process has; "
            "parallel=ddp, or optim=adamw"
        )
    if parallel.devices is not None:
        check_shares(train.batch_size, train.grad_accum, parallel.devices)


def check_shares(batch_size: int, grad_accum: int, n_ranks: int) -> None:
    """Check that each process gets as many sequences of each micro-batch.

    Raises: ConfigError with the numbers of processes that would work.
    """
    per_micro = batch_size // grad_accum
    if per_micro % n_ranks:
        fitting = ", ".join(str(n) for n in range(1, per_micro + 1) if per_micro % n == 0)
        raise ConfigError(
            f"parallel.devices={n_ranks}: train.batch_size={batch_size} with "
            f"train.grad_accum={grad_accum} is {per_micro} sequences at a time, which {n_ranks} processes "
            f"cannot share; {fitting} could"
        )


def check_optim(optim: Optim) -> None:
    """Check that the keys given are those that the optimiser reads, and that none breaks its arithmetic.

    Raises: ConfigError naming the key.
    """
    for name, readers in OPTIM_READERS.items():
        value = getattr(optim, name)
        if optim.name in readers and value is None:
            raise ConfigError(f"optim.{name}=null: optim={optim.name} needs a number")
        if optim.name not in readers and value is not None:
            raise ConfigError(
                f"optim.{name}={value}: optim={optim.name} does not read it, leave it null; "
                f"optim={' and optim='.join(readers)} would"
            )
    # torch bounds the second moment by eps² in fp32, whose least normal number is 1.2e-38
    if optim.name == "adafactor" and optim.eps < 1.1e-19:
        raise ConfigError(
            f"optim.eps={optim.eps:g}: at least 1.1e-19 for optim=adafactor, which squares it; "
            "the paper's 1e-30 is optim.eps=1e-15"
        )


def check_variant(variant: Variant) -> None:
    """Check that the fields of a variant do not contradict one another.

    Raises: ConfigError naming the field.
    """
    name = variant.name
    for entry in dataclasses.fields(variant):
        check_range(f"variant.{entry.name}", getattr(variant, entry.name), entry.metadata)
    if variant.gated and variant.gate is None:
        raise ConfigError(f"variant {name}: gated: true needs a gate function (gate: silu, say)")
    if variant.gated and variant.activation is not None:
        raise ConfigError(f"variant {name}: a gated variant has gate and value, not activation")
    if not variant.gated and variant.activation is None:
        raise ConfigError(f"variant {name}: gated: false needs an activation (activation: relu, say)")
    if not variant.gated and (variant.gate is not None or variant.value != "identity"):
        raise ConfigError(f"variant {name}: an ungated variant has an activation, not gate or value")
    places = ("gate", "value") if variant.gated else ("activation",)
    for place in {"activation", "gate", "value"}.difference(places):
        if getattr(variant, f"{place}_args"):
            raise ConfigError(f"variant {name}: {place}_args without a {place} function")
    if not variant.gated:
        for field, neutral in _GATED_ALONE.items():
            if getattr(variant, field) != neutral:
                raise ConfigError(f"variant {name}: {field} is for gated variants")
    trainable = {
        f"{place}.{arg}"
        for place in places
        for arg in getattr(variant, f"{place}_args")
        if arg != "eps"  # keeps a division or a branch in range; trained, it could leave it
    }
    trainable |= {"offset", "mult"} if variant.gated else set()
    learned = [*variant.learned, *variant.learned_per_unit]
    for argument in learned:
        if argument not in trainable:
            known = ", ".join(sorted(trainable)) or "none here"
            raise ConfigError(
                f"variant {name}: learned {argument}: no such argument; what can be learned: {known}"
                + suggest(argument, trainable)
            )
        if learned.count(argument) > 1:
            raise ConfigError(f"variant {name}: {argument} is learned twice")
    for place in places:
        for arg, number in getattr(variant, f"{place}_args").items():
            if not math.isfinite(number):
                raise ConfigError(f"variant {name}: {place}_args.{arg}={number}: must be a finite number")
    for text in ("formula", "source"):
        if not getattr(variant, text).strip():
            raise ConfigError(f"variant {name}: {text} is empty; say where it comes from")
