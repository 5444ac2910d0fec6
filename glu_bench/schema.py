"""Types, units and ranges of every key of the configuration; the values live in configs/.

Each class is one group of configs/ and its fields are that group's keys, one to one. Fields
have no defaults, so no value is written in two places; the one exception is `Variant`, where
a default is the neutral element of the formula (a factor 1, a summand 0) that a variant's
file need not repeat.
"""

from __future__ import annotations

import dataclasses
import functools
import types
import typing
from dataclasses import dataclass
from typing import Any

from glu_bench.keys import key

NUMERICS_VERSION = 1  # raised by hand whenever a change of the code alters results
BUDGET_KEYS = ("train.tokens", "train.steps", "train.epochs")  # one of them is set
ARGUMENT_KEYS = ("variant.activation_args", "variant.gate_args", "variant.value_args")


@dataclass(kw_only=True)
class Variant:
    """A feed-forward activation, as an algebra over functions of ffn/activations.py.

    gated:    hidden = norm(min(gate(min(g, gate_clamp)), gate_out_clamp)
                            * (value(clip(u, -up_clamp, up_clamp)) + offset) * mult)
    ungated:  hidden = norm(activation(h))
    """

    name: str = key("the file's name")
    family: str = key("where the table lists it")
    formula: str = key("hidden, in plain text")
    source: str = key("who published it, with the arXiv id")
    used_by: str = key("models that use it", default="")
    gated: bool = key("two input projections, gate and up, instead of one")
    activation: str | None = key("function of an ungated variant", default=None)
    activation_args: dict[str, float] = key(  # noqa: RUF009
        "constants of that function, by name", default_factory=dict
    )
    gate: str | None = key("function on the gate of a gated variant", default=None)
    gate_args: dict[str, float] = key(  # noqa: RUF009
        "constants of that function, by name", default_factory=dict
    )
    value: str = key("function on the up projection of a gated variant", default="identity")
    value_args: dict[str, float] = key(  # noqa: RUF009
        "constants of that function, by name", default_factory=dict
    )
    gate_clamp: float | None = key("the gate is held at most here before its function", above=0, default=None)
    gate_out_clamp: float | None = key("and its function's result at most here", above=0, default=None)
    up_clamp: float | None = key("the up projection is held to plus and minus this", above=0, default=None)
    offset: float = key("added to value(u)", low=-1e6, high=1e6, default=0.0)
    mult: float = key("factor on the product", low=-1e6, high=1e6, default=1.0)
    learned: list[str] = key(  # noqa: RUF009
        "arguments that are trained, one number a layer, from the value given: gate.beta, say",
        default_factory=list,
    )
    learned_per_unit: list[str] = key(  # noqa: RUF009
        "arguments that are trained, one number a hidden unit: mult, say", default_factory=list
    )
    norm: str | None = key(
        "on the hidden vector, over its width: rms (one learned gain a unit), layer (gain and bias)",
        choices=("rms", "layer"),
        default=None,
    )
    norm_eps: float = key("added to the mean square, or the variance, in that norm", above=0, default=1e-5)


@dataclass(kw_only=True)
class Model:
    """The decoder around the feed-forward block."""

    preset: str = key("label of the size, part of the run's id")
    d_model: int = key("residual width D", low=2, high=2**17)
    n_layers: int = key("blocks", low=1, high=2**12)
    n_heads: int = key("attention heads H; D/H must be an even whole number", low=1)
    seq_len: int = key("context length T in tokens", low=2, high=2**18)
    ffn_bias: bool = key("biases in the feed-forward block, the same for every arm")
    tied_embeddings: bool = key("one matrix for token embedding and head")
    dropout: float = key("on the output of attention and feed-forward while training", low=0, below=1)
    rope_theta: float = key("base of the rotary embedding", above=0)
    norm_eps: float = key("added to the mean square in RMSNorm", above=0)


@dataclass(kw_only=True)
class Match:
    """How the feed-forward width F of an arm is chosen."""

    mode: str = key(
        "params: FFN parameters of the ungated baseline; width: expansion*D for all; none: d_ff",
        choices=("params", "width", "none"),
    )
    expansion: float = key("width of the ungated baseline over D", above=0, high=1024)
    multiple_of: int = key("F is rounded to a multiple of this", low=1, high=2**20)
    d_ff: int | None = key("F itself, for mode none", low=1, high=2**27)


@dataclass(kw_only=True)
class Data:
    """The text."""

    corpus: str = key("label of the text, part of the run's id")
    source: str = key("where documents come from", choices=("stdlib", "files", "hub"))
    files: list[str] = key(  # noqa: RUF009  (key is dataclasses.field with a range)
        "files, folders or globs, for source files"
    )
    path: str | None = key("id of a dataset on the Hub, for source hub")
    name: str | None = key("configuration of that dataset")
    revision: str | None = key("commit, branch or tag of it; a commit fixes the text")
    column: str = key("column that holds the text, for rows (JSON lines, CSV, Parquet, the Hub)")
    rows: str = key("documents: a row is one; lines: rows follow one another", choices=("documents", "lines"))
    train_split: str = key("the dataset's split to train on")
    val_split: str | None = key("its split for validation; null holds documents out of train by hash")
    test_split: str | None = key("its split for the final test; null as for val_split")
    streaming: bool = key("read the Hub as a stream, keeping nothing but the tokens")
    max_tokens: int | None = key("stop at so many training tokens (held-out ones in proportion)", low=1)
    val_share: float = key("share of documents held out for validation", above=0, below=0.5)
    test_share: float = key("share of documents held out for the final test", above=0, below=0.5)


@dataclass(kw_only=True)
class Tokenizer:
    """Text to token ids."""

    kind: str = key(
        "byte: ids are the UTF-8 bytes; bpe: trained on the train split; file, hub: a tokenizer.json",
        choices=("byte", "bpe", "file", "hub"),
    )
    vocab_size: int | None = key("ids of a bpe, the end token among them", low=257, high=2**20)
    train_bytes: int = key("a bpe is trained on so many bytes of the train split at most", low=1)
    path: str | None = key("a tokenizer.json, or a repository of the Hub")
    revision: str | None = key("commit, branch or tag of that repository")
    vocab_multiple: int = key(
        "rows of embedding and head are rounded up to a multiple of this", low=1, high=2**20
    )
    end_token: str | None = key("the token that ends a document; null tries the usual names")


@dataclass(kw_only=True)
class Optim:
    """Optimiser and learning-rate schedule."""

    name: str = key("optimiser", choices=("adamw", "muon", "adafactor"))
    lr: float = key(
        "peak learning rate; adafactor: relative to each tensor's root mean square", above=0, high=1e9
    )
    beta1: float | None = key("decay of the first moment (adamw, muon)", low=0, below=1)
    beta2: float | None = key("decay of the second moment (adamw, muon)", low=0, below=1)
    eps: float = key("added to the root of the second moment; adafactor: its least value", above=0)
    weight_decay: float = key("decoupled, on matrices only", low=0)
    momentum: float | None = key(
        "decay of the running gradient of the hidden matrices (muon)", low=0, below=1
    )
    lr_ratio: float | None = key("rate of what AdamW updates over lr (muon)", above=0)
    beta2_power: float | None = key(
        "decay of the second moment at step t is 1 - t^-this (adafactor)", above=0
    )
    min_scale: float | None = key("least root mean square that scales a tensor's rate (adafactor)", above=0)
    max_update: float | None = key(
        "greatest root mean square of an update before the rate (adafactor)", low=1
    )
    clip_norm: float = key("greatest global gradient norm", above=0)
    schedule: str = key("shape after the warm-up", choices=("cosine", "linear", "wsd", "constant"))
    warmup_share: float = key("share of the steps spent rising to lr", low=0, below=1)
    decay_share: float = key("share of the steps spent falling, for schedule wsd", above=0, high=1)
    floor_share: float = key("final learning rate over lr", low=0, high=1)


@dataclass(kw_only=True)
class Train:
    """Budget, batches, numbers on the device, and how often to look."""

    tokens: int | None = key("budget in tokens", low=1, high=10**18)
    steps: int | None = key("budget in optimiser steps", low=1, high=10**12)
    epochs: float | None = key("budget in passes over the training split", above=0, high=1e9)
    batch_size: int = key("sequences a step, whatever the accumulation", low=1, high=2**24)
    grad_accum: int = key("micro-batches a step; divides batch_size", low=1, high=2**24)
    precision: str = key(
        "auto: bf16 autocast where the device has it, else fp32", choices=("auto", "bf16", "fp32")
    )
    compile: str = key("torch.compile; auto: where a compiler exists", choices=("auto", "true", "false"))
    fast: bool = key(
        "paths that are quicker or smaller and equal to rounding; false: the plain formulas", before=True
    )
    device: str = key("auto: cuda, mps, cpu in this order; or cpu, cuda, cuda:N, mps")
    threads: int | None = key("CPU threads; null leaves the choice to torch", low=1, high=2**12)
    log_every: int = key("steps between rows of metrics.jsonl", low=1)
    eval_every: int = key("steps between held-out losses", low=1)
    eval_tokens: int = key("tokens of the validation split in each of those", low=1)
    diagnostics: str = key(
        "what the gates do, into metrics.jsonl; light: a sample, and norms of gradients; full: all measures "
        "of the units at every held-out loss",
        choices=("light", "full", "off"),
        before="off",
    )
    checkpoint_every: int = key("steps between checkpoints", low=1)
    keep_checkpoints: int = key("checkpoints kept while training", low=1)


@dataclass(kw_only=True)
class Evaluation:
    """How the final held-out pass is made; part of the result."""

    stride: int | None = key("tokens between windows of seq_len; null means seq_len", low=1)


@dataclass(kw_only=True)
class Parallel:
    """Processes of one run."""

    mode: str = key(
        "single: one process; ddp: each process has all weights; fsdp: each has its share of them",
        choices=("single", "ddp", "fsdp"),
    )
    devices: int | None = key("processes, one a device; null: torchrun's, else one a GPU", low=1)
    timeout_s: float | None = key("seconds after which a process that does not answer is lost", above=0)
    activation_checkpointing: bool | None = key(
        "compute each block once more in the backward pass instead of keeping what it would need"
    )


@dataclass(kw_only=True)
class Tracker:
    """Where records go beside metrics.jsonl."""

    name: str = key("none: metrics.jsonl alone", choices=("none", "tensorboard", "wandb"))


@dataclass(kw_only=True)
class Config:
    """Everything a run may be told."""

    variant: Variant
    model: Model
    match: Match
    data: Data
    tokenizer: Tokenizer
    optim: Optim
    train: Train
    evaluation: Evaluation
    parallel: Parallel
    tracker: Tracker
    seed: int = key("fixes data order and every initial weight", low=0, high=2**63 - 1)
    init: str = key(
        "fan_in: normal with std 1/sqrt(fan in); moment: the block's output projection also over "
        "sqrt(E[hidden^2])",
        choices=("fan_in", "moment"),
    )
    numerics_version: int = key("read only: raised when the code alters results")


# Keys that cannot change a result, or only in the last bits: not part of a run's id.
NOT_IN_IDENTITY = frozenset(
    {
        "train.device",
        "train.threads",
        "train.log_every",
        "train.eval_every",
        "train.eval_tokens",
        "train.diagnostics",
        "train.checkpoint_every",
        "train.keep_checkpoints",
        "parallel",
        "tracker",
        "variant.family",
        "variant.formula",
        "variant.source",
        "variant.used_by",
        # fingerprints of the text and the tokenizer stand for all that leads to them
        "data.source",
        "data.files",
        "data.path",
        "data.name",
        "data.revision",
        "data.column",
        "data.rows",
        "data.streaming",
        "tokenizer.path",
        "tokenizer.revision",
    }
)


def flatten(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested keys as dotted ones: {"optim.lr": 0.002, …}."""
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        if isinstance(value, dict):
            flat.update(flatten(value, f"{prefix}{name}."))
        else:
            flat[prefix + name] = value
    return flat


def flatten_config(config: Config) -> dict[str, Any]:
    """All keys of a configuration, dotted, in the order of the schema."""
    flat: dict[str, Any] = {}
    for dotted in list_keys():
        group, _, name = dotted.rpartition(".")
        value = getattr(getattr(config, group) if group else config, name)
        if isinstance(value, dict):
            flat.update(flatten(value, f"{dotted}."))
        else:
            flat[dotted] = list(value) if isinstance(value, list) else value
    return flat


def select_identity(config: Config) -> dict[str, Any]:
    """The dotted keys that determine a run's result; data content is added as fingerprints."""
    return {dotted: value for dotted, value in flatten_config(config).items() if _determines(dotted)}


@functools.lru_cache(maxsize=1024)
def _determines(dotted: str) -> bool:
    return dotted not in NOT_IN_IDENTITY and dotted.split(".")[0] not in NOT_IN_IDENTITY


def drop_absent(identity: dict[str, Any]) -> dict[str, Any]:
    """An identity without what says nothing: null keys, factors 1 and summands 0 of the formula, and
    what was so for all runs before it became a key.

    Two configurations differ here if and only if they differ there, and a key that joins later
    with such a value leaves the ids of earlier runs as they were.
    """
    neutral = _list_neutral()
    return {
        dotted: value
        for dotted, value in identity.items()
        if value is not None and not (dotted in neutral and neutral[dotted] == value)
    }


@functools.cache
def _list_neutral() -> dict[str, Any]:
    neutral: dict[str, Any] = {"variant.learned": [], "variant.learned_per_unit": []}
    for entry in dataclasses.fields(Variant):
        if entry.default is not dataclasses.MISSING:
            neutral[f"variant.{entry.name}"] = entry.default
    for dotted, entry in list_keys().items():
        if entry.metadata["before"] is not None:
            neutral[dotted] = entry.metadata["before"]
    return neutral


@functools.cache
def list_keys() -> dict[str, dataclasses.Field[Any]]:
    """Every dotted key with the field that describes it."""
    keys: dict[str, dataclasses.Field[Any]] = {}
    for entry in dataclasses.fields(Config):
        group = _group_class(entry)
        if group is None:
            keys[entry.name] = entry
        else:
            keys.update({f"{entry.name}.{inner.name}": inner for inner in dataclasses.fields(group)})
    return keys


@functools.cache
def key_types() -> dict[str, Any]:
    """Every dotted key with its annotated type."""
    hints: dict[str, Any] = {}
    for entry in dataclasses.fields(Config):
        group = _group_class(entry)
        if group is None:
            hints[entry.name] = typing.get_type_hints(Config)[entry.name]
        else:
            hints.update(
                {f"{entry.name}.{name}": kind for name, kind in typing.get_type_hints(group).items()}
            )
    return hints


def allowed_types(annotation: Any) -> tuple[Any, ...]:
    """The types that an annotation lets through: those of a union, else itself."""
    return typing.get_args(annotation) if isinstance(annotation, types.UnionType) else (annotation,)


def is_number_key(dotted: str, value: Any) -> bool:
    """Whether a whole number given to this key becomes a float."""
    allowed = allowed_types(key_types()[dotted])
    return isinstance(value, int) and not isinstance(value, bool) and float in allowed


def describe_key(dotted: str) -> str:
    """What a key takes, in words: `a number > 0`."""
    names: dict[Any, str] = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
    names |= {types.NoneType: "null", dict[str, float]: f"numbers by name, such as {dotted}.beta=1"}
    words = [names.get(entry, "a list") for entry in allowed_types(key_types()[dotted])]
    metadata = list_keys()[dotted].metadata
    if metadata["choices"]:
        return "one of " + ", ".join(metadata["choices"])
    limits = [
        f"{sign} {metadata[bound]:g}"
        for sign, bound in ((">=", "low"), (">", "above"), ("<=", "high"), ("<", "below"))
        if metadata[bound] is not None and metadata[bound] < 2**62
    ]
    return " or ".join(words) + ("" if not limits else " " + " and ".join(limits))


def _group_class(entry: dataclasses.Field[Any]) -> type | None:
    kind = typing.get_type_hints(Config)[entry.name]
    return kind if dataclasses.is_dataclass(kind) and isinstance(kind, type) else None
