"""One measurement of a benchmark, as its table and its JSON have it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Row:
    """What was measured beside its peer, ratio being ours / peer; None for both where there is none."""

    name: str
    ours: float
    peer: float | None = None
    ratio: float | None = None
    unit: str
