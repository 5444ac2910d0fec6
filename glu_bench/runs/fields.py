"""What may stand in the fields of a run's records, which may be anybody's.

Who can write a record can write its checksum too. What is read here is computed with, formatted
and shown elsewhere, so a field of another kind is refused before any of that.
"""

from __future__ import annotations

import reprlib
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from glu_bench.errors import DataError
from glu_bench.runs.record import is_number


@dataclass(frozen=True)
class Kind:
    """What a field may hold, in words and as a test."""

    words: str
    holds: Callable[[Any], bool]


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _or_none(kind: Kind) -> Kind:
    return Kind(f"{kind.words} or null", lambda value: value is None or kind.holds(value))


def list_of(kind: Kind) -> Kind:
    """A list of these."""
    return Kind(
        f"a list, each {kind.words}",
        lambda value: isinstance(value, list) and all(map(kind.holds, value)),
    )


def _dict_of(kind: Kind) -> Kind:
    return Kind(
        f"an object, each {kind.words}",
        lambda value: isinstance(value, dict) and all(map(kind.holds, value.values())),
    )


def _object(fields: Mapping[str, Kind]) -> Kind:
    return Kind(
        f"an object with {', '.join(fields)}",
        lambda value: (
            isinstance(value, dict)
            and all(name in value and kind.holds(value[name]) for name, kind in fields.items())
        ),
    )


TEXT = Kind("text", _is_text)
COUNT = Kind("a whole number", _is_count)
POSITIVE = Kind("a whole number from 1 on", lambda value: _is_count(value) and value > 0)
NUMBER = Kind("a number", is_number)
FLAG = Kind("true or false", lambda value: isinstance(value, bool))

RESULT: dict[str, Kind] = {
    **dict.fromkeys(("run_id", "status", "variant", "model", "data"), TEXT),
    **dict.fromkeys(("blocks_sha256", "parameters_sha256"), TEXT),
    **dict.fromkeys(("n_params", "n_ffn_params", "d_ff", "flops_per_token", "tokens", "steps"), POSITIVE),
    **dict.fromkeys(("seed", "peak_bytes", "window", "stride", "n_test_tokens"), COUNT),
    **dict.fromkeys(("forward_flops_per_token", "ffn_saved_bytes_per_token"), _or_none(COUNT)),
    **dict.fromkeys(("best_val_step", "n_test_bytes"), _or_none(COUNT)),
    **dict.fromkeys(("match_residual", "elapsed_s"), NUMBER),
    **dict.fromkeys(("val_loss_nats", "val_bits_per_byte"), _or_none(NUMBER)),
    **dict.fromkeys(("test_loss_nats", "test_bits_per_byte"), _or_none(NUMBER)),
    **dict.fromkeys(("train_loss_nats", "best_val_loss_nats", "mfu"), _or_none(NUMBER)),
    "tokens_per_s": _or_none(Kind("a number > 0", lambda value: is_number(value) and value > 1e-100)),
    # exp of a loss, which other numbers need not be small enough for
    "test_perplexity": _or_none(
        Kind("a number >= 0", lambda value: type(value) in (int, float) and 0 <= value <= 1.797e308)
    ),
    **dict.fromkeys(("unstable", "exact"), FLAG),
    "hidden_rms_at_init": list_of(NUMBER),
}
# what a comparison computes with and shows of every finished run
COMPARED = (
    *("seed", "val_loss_nats", "val_bits_per_byte", "test_loss_nats", "test_bits_per_byte"),
    *("n_params", "match_residual", "flops_per_token", "tokens", "tokens_per_s", "peak_bytes"),
)
# and what stands in the table of one run
SHOWN = (
    *("run_id", "test_perplexity", "test_loss_nats", "test_bits_per_byte", "val_loss_nats"),
    *("train_loss_nats", "n_params", "n_ffn_params", "d_ff", "match_residual", "flops_per_token"),
    *("tokens", "steps", "elapsed_s", "tokens_per_s", "peak_bytes", "parameters_sha256"),
    *("unstable", "exact"),
)
ENVIRONMENT: dict[str, Kind] = {
    **dict.fromkeys(("run_id", "data_fingerprint", "tokenizer_fingerprint"), TEXT),
    **dict.fromkeys(("python", "platform", "device"), TEXT),
    **dict.fromkeys(("cpu", "gpu", "cuda", "git_commit", "cpu_capability"), _or_none(TEXT)),
    **dict.fromkeys(("n_threads", "n_cores", "n_ranks"), _or_none(COUNT)),
    "vocab_size": COUNT,
    "versions": _dict_of(_or_none(TEXT)),
    "splits": _dict_of(_dict_of(COUNT)),
    "plugins": list_of(_object({"name": TEXT, "sha256": TEXT, "functions": list_of(TEXT)})),
}
FAILURE: dict[str, Kind] = {
    "status": Kind("failed or diverged", lambda value: value in ("failed", "diverged")),
    "reason": TEXT,
    "step": COUNT,
}
STATE: dict[str, Kind] = {
    **dict.fromkeys(("step", "tokens", "timed_tokens", "peak_bytes"), COUNT),
    **dict.fromkeys(("elapsed_s", "timed_elapsed_s"), NUMBER),
    **dict.fromkeys(("first_loss_nats", "best_val_loss_nats"), _or_none(NUMBER)),
    "recent_losses_nats": list_of(NUMBER),
    "best_val_step": _or_none(COUNT),
    "exact": FLAG,
}
# of a sweep's tuning.json
TUNING = {
    "runs": _dict_of(_object({"keys": list_of(TEXT), "edges": _dict_of(TEXT)})),
    "tuned": _dict_of(list_of(TEXT)),
    "seeds": list_of(COUNT),
}
POINT = _object(
    {
        "values": _dict_of(TEXT),
        "losses_nats": list_of(NUMBER),
        "n_planned": COUNT,
        "mean_loss_nats": _or_none(NUMBER),
    }
)
CHOICE = _object({"arm": TEXT, "chosen": _dict_of(TEXT), "edges": _dict_of(TEXT), "curve": list_of(POINT)})


def check_fields(
    path: Path, record: Mapping[str, Any], kinds: Mapping[str, Kind], needed: Collection[str] = ()
) -> None:
    """Refuse a record whose known fields are of another kind; unknown ones are let be.

    Raises: DataError naming the field, or the one of `needed` that is missing.
    """
    for name in needed:
        if name not in record:
            raise DataError(f"{path}: has no {name}")
    for name, value in record.items():
        kind = kinds.get(name)
        if kind is not None and not kind.holds(value):
            raise DataError(f"{path}: {name} is {reprlib.repr(value)}, {kind.words} was expected")
