"""A key of the configuration: its help text, its range, and the check of a value against it."""

from __future__ import annotations

import math
from dataclasses import field
from typing import Any

from glu_bench.errors import ConfigError, suggest

GREATEST = 2**63 - 1  # of whole numbers: more is no tensor's size and no JSON reader's number


def key(
    text: str,
    *,
    low: float | None = None,
    above: float | None = None,
    high: float | None = None,
    below: float | None = None,
    choices: tuple[str, ...] = (),
    before: Any = None,
    **kwargs: Any,
) -> Any:
    """A field with its help text and its range: low <= value <= high, above < value < below.

    `before` is the value that all runs had before the key joined.
    """
    metadata = {"help": text, "low": low, "above": above, "high": high, "below": below, "choices": choices}
    return field(metadata=metadata | {"before": before}, **kwargs)


def check_range(dotted: str, value: Any, metadata: Any) -> None:
    """Check a value against the range or the choices of its field.

    Raises: ConfigError naming the key, the value and what would work.
    """
    if not metadata or value is None:
        return
    choices: tuple[str, ...] = metadata["choices"]
    if choices and value not in choices:
        hint = suggest(str(value), choices)
        raise ConfigError(f"{dotted}={value}: one of {', '.join(choices)}{hint}")
    if isinstance(value, bool) or not isinstance(value, int | float):
        return
    low, above, high, below = metadata["low"], metadata["above"], metadata["high"], metadata["below"]
    if high is None and isinstance(value, int):
        high = GREATEST
    inside = (
        not (isinstance(value, float) and not math.isfinite(value))
        and (low is None or value >= low)
        and (above is None or value > above)
        and (high is None or value <= high)
        and (below is None or value < below)
    )
    if not inside:
        limits = [
            f"{sign} {limit:g}"
            for sign, limit in ((">=", low), (">", above), ("<=", high), ("<", below))
            if limit is not None
        ]
        raise ConfigError(f"{dotted}={value}: must be a finite number {' and '.join(limits)}".rstrip())
