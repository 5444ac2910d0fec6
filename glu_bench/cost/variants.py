"""A whole training step of each variant beside swiglu's: none is to be dearer than its arithmetic.

Groups are raced one after another, each with swiglu in it, so that memory and the length of a
round stay bounded while every ratio is between times of one round.
"""

from __future__ import annotations

import gc
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from glu_bench.allocator import keep_freed_memory
from glu_bench.cache import keep_compiled_graphs
from glu_bench.cost.race import describe_process, make_groups, paired_ratio, race, spread
from glu_bench.cost.step import STEPS_A_ROUND, load_preset, make_our_step
from glu_bench.cost.step_parity import VOCAB_SIZE
from glu_bench.ffn.formula import find_variants, make_formula
from glu_bench.lm.counts import count_model
from glu_bench.schema import Config

REFERENCE = "swiglu"
GROUP_SIZE = 6  # variants beside swiglu
LIMIT = 1.1  # times swiglu's, which a pointwise variant may take


@dataclass(frozen=True, kw_only=True)
class VariantRow:
    """One variant's training step against swiglu's, medians over rounds."""

    name: str  # preset and variant
    preset: str
    variant: str
    pointwise: bool  # False where a hidden number depends on the whole width
    d_ff: int
    match_residual: float
    ours: float  # the variant's step
    ours_spread: float  # (slowest - fastest) / median, over rounds
    peer: float  # swiglu's in the same rounds
    ratio: float  # ours / peer, median over rounds
    tokens_per_s: float
    unit: str = "ms/step"


@dataclass(frozen=True, kw_only=True)
class VariantBenchmark:
    """What `bench_variants` measured."""

    rows: tuple[VariantRow, ...]
    environment: dict[str, str | int | bool]

    def list_beyond(self) -> list[VariantRow]:
        """The pointwise variants whose step takes more than LIMIT times swiglu's."""
        return [row for row in self.rows if row.pointwise and row.ratio > LIMIT]


def bench_variants(
    presets: Sequence[str],
    words: Sequence[str],
    *,
    batch_size: int = 16,
    rounds: int = 7,
    steps_a_round: int = STEPS_A_ROUND,
    config_dir: Path | None = None,
) -> VariantBenchmark:
    """Our compiled training step of each variant at matched parameters, raced against swiglu's.

    Presets as in `bench_step`, words as in `find_variants`.
    Raises: ConfigError for an unknown preset or variant.
    """
    names = find_variants(words, config_dir)
    # all composed before the first is timed: what is refused is refused at once
    configs = {
        preset: {
            name: load_preset(preset, f"variant={name}", config_dir=config_dir)
            for name in dict.fromkeys([REFERENCE, *names])
        }
        for preset in presets
    }
    memory_kept = keep_freed_memory()
    keep_compiled_graphs()
    rows = [
        row
        for preset in presets
        for row in _race_preset(preset, configs[preset], names, batch_size, rounds, steps_a_round)
    ]
    return VariantBenchmark(rows=tuple(rows), environment=describe_process(memory_kept))


def _race_preset(
    preset: str,
    configs: dict[str, Config],
    names: Sequence[str],
    batch_size: int,
    rounds: int,
    steps_a_round: int,
) -> list[VariantRow]:
    rows: list[VariantRow] = []
    reference = make_our_step(configs[REFERENCE], batch_size)
    for group in make_groups(names, REFERENCE, GROUP_SIZE):
        steps = {REFERENCE: reference}
        for name in group[1:]:
            steps[name] = make_our_step(configs[name], batch_size)
        seconds = race(steps, rounds, steps_a_round)
        steps.clear()
        gc.collect()  # models of this group, before those of the next are made
        rows += [
            _make_row(preset, name, configs[name], batch_size, seconds[name], seconds[REFERENCE])
            for name in group
            if name in names and (name != REFERENCE or not rows)
        ]
    return rows


def _make_row(
    preset: str, name: str, config: Config, batch_size: int, times: list[float], reference: list[float]
) -> VariantRow:
    counts = count_model(config, VOCAB_SIZE)
    elapsed_s = statistics.median(times)
    return VariantRow(
        name=f"{preset} / {name}",
        preset=preset,
        variant=name,
        pointwise=not make_formula(config.variant).reduces,
        d_ff=counts.d_ff,
        match_residual=counts.match_residual,
        ours=1e3 * elapsed_s,
        ours_spread=spread(times),
        peer=1e3 * statistics.median(reference),
        ratio=paired_ratio(reference, times),
        tokens_per_s=batch_size * config.model.seq_len / elapsed_s,
    )
