"""Comparisons written out by hand, for the tests of what shows them."""

from __future__ import annotations

from typing import Any

from glu_bench.stats.findings import judge_losses
from glu_bench.study.compare import Arm, Comparison, add_estimate, add_findings

HOSTILE = "=cmd|'/C calc'!A0 [/x]\x1b[31m\u202e<script>alert(1)</script> \\input{x} a|b $x$ _i_ 100% #1 ~^&"
LOSSES = {"geglu": (1.0, 1.02, 1.01), "gelu": (1.1, 1.121, 1.11), "relu": (1.3, 1.32, 1.313)}


def make_comparison(losses: dict[str, tuple[float, ...]] = LOSSES, **changes: Any) -> Comparison:
    """A table of arms by seed; the first ungated one people know is the baseline."""
    by_seed = {arm: dict(enumerate(values)) for arm, values in losses.items()}
    baseline = changes.pop("baseline", "gelu")
    found = judge_losses(by_seed, baseline)
    rows = []
    for estimate in found.estimates:
        n = len(losses[estimate.arm])
        row = Arm(
            arm=estimate.arm,
            n_finished=n,
            n_planned=n,
            n_diverged=0,
            losses=by_seed[estimate.arm],
            n_ffn_params=1_179_648,
            tokens_per_s=37_400.5,
        )
        rows.append(add_estimate(row, estimate, n))
    table = Comparison(
        setting=changes.pop("setting", "nano, match params"),
        baseline=baseline,
        split="test",
        arms=rows,
        left_out=[],
        warnings=[],
        verdict="",
    )
    return add_findings(table, found)
