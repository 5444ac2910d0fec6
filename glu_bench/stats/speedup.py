"""How much baseline training would reach an arm's loss, over what the arm took."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Speedup:
    """A ratio above 1 says that the arm gets there with less."""

    compute: float | None  # baseline tokens that reach the arm's loss / the arm's tokens
    compute_ci95: tuple[float, float] | None
    wall: float | None  # times the arm's tokens/s over the baseline's
    wall_ci95: tuple[float, float] | None
