"""The hidden units of one block over many tokens, from sums that do not grow with them.

A unit is dead if |hidden| is at most 1e-6 of the block's RMS for every token, always on if it is
more for every token. The RMS is over tokens and units; everything is summed in fp64.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import torch
from torch import Tensor

from glu_bench.evaluate.held_out import finite, widen
from glu_bench.evaluate.saturation import FLAT, Steepest, find_slopes, find_steepest
from glu_bench.evaluate.spectrum import Spectrum, measure_spectrum
from glu_bench.ffn.feedforward import FeedForward
from glu_bench.ffn.formula import Formula
from glu_bench.lm.hidden import Parts

DEAD = 1e-6  # of the RMS
MAX_BF16 = torch.finfo(torch.bfloat16).max
MAX_FP8_E4M3 = torch.finfo(torch.float8_e4m3fn).max  # 448
GATE_REACH = 8.0  # the histogram of gates covers -8 to 8; its end cells hold what lies beyond
GATE_CELLS = 64
OCTAVE_REACH = 40  # |hidden| is counted by octave from 2^-40 to 2^40, ends likewise


@dataclass(frozen=True, kw_only=True)
class UnitSums:
    """What is kept of all tokens seen so far. Shapes: (F,), gram (F, F); counts int64."""

    hidden: Tensor
    hidden_squared: Tensor
    gate: Tensor  # of the gate's values
    gate_squared: Tensor
    largest: Tensor  # |hidden|
    smallest: Tensor
    higher: Tensor  # (2,): hidden^3 and hidden^4 over all units
    counts: Tensor  # one a Count
    gate_cells: Tensor
    octaves: Tensor
    gram: Tensor | None  # hidden^T hidden
    steepest: Steepest | None  # None: the gate reads the whole width, its slopes are not looked at


class Count(IntEnum):
    """What is counted, and its place in `UnitSums.counts`; numbers of hidden or gate but for TOKENS."""

    TOKENS = 0
    ZERO = 1
    LOW = 2  # saturated below the steepest place
    HIGH = 3
    NO_SLOPE = 4
    BAD_HIDDEN = 5  # not finite
    BAD_GATE = 6


@dataclass(frozen=True, kw_only=True)
class Units:
    """What the hidden units of one block do. None: there is no such number, or it would not be finite.

    With a NaN or an infinity anywhere in hidden or gate, all that depends on it is None and the
    count stands in `nonfinite_`.
    """

    dead_share: float | None  # of units
    always_on_share: float | None
    zero_share: float | None  # of numbers: exactly 0
    saturation: float | None  # of gate numbers; see saturation.py
    saturation_low: float | None
    saturation_high: float | None
    zero_slope_share: float | None  # of gate numbers: the gate's slope is exactly 0
    hidden_rms: float | None
    hidden_variance: float | None  # over tokens, mean over units
    hidden_varying_share: float | None  # the same over the mean square: 0 for constants
    gate_variance: float | None
    gate_varying_share: float | None
    hidden_kurtosis: float | None  # over tokens and units; 3 for normal numbers
    hidden_max: float | None  # greatest |hidden|
    hidden_max_over_rms: float | None
    hidden_max_over_bf16: float | None  # over the greatest number of that format
    hidden_max_over_fp8_e4m3: float | None
    participation_ratio: float | None
    effective_rank: float | None
    effective_rank_share: float | None  # of the width
    nonfinite_hidden: int
    nonfinite_gate: int
    gate_histogram: list[int]  # 64 cells of 1/4 from -8 to 8
    hidden_octaves: list[int]  # exact zeros are in none; cell i: |hidden| in [2^(i-40), 2^(i-39))


def make_sums(ffn: FeedForward, *, spectrum: bool = True) -> UnitSums:
    """Sums over no token yet, for one block; `spectrum` takes F x F numbers."""
    d_ff, device = ffn.down.in_features, ffn.down.weight.device
    formula, like = ffn.hidden.formula, ffn.down.weight.detach()[0]
    learned = formula.name_learned(like.dtype, ffn.hidden.list_learned())
    wide = torch.device("cpu") if device.type == "mps" else device

    def zeros(*shape: int) -> Tensor:
        return torch.zeros(shape, dtype=torch.float64, device=wide)

    def counts(n: int) -> Tensor:
        return torch.zeros(n, dtype=torch.int64, device=device)

    return UnitSums(
        hidden=zeros(d_ff),
        hidden_squared=zeros(d_ff),
        gate=zeros(d_ff),
        gate_squared=zeros(d_ff),
        largest=zeros(d_ff),
        smallest=zeros(d_ff) + float("inf"),
        higher=zeros(2),
        counts=counts(len(Count)),
        gate_cells=counts(GATE_CELLS),
        octaves=counts(2 * OCTAVE_REACH),
        gram=zeros(d_ff, d_ff) if spectrum else None,
        steepest=find_steepest(formula, learned, like),
    )


def add_tokens(sums: UnitSums, formula: Formula, parts: Parts, real_BT: Tensor) -> None:
    """Count the tokens of one batch where `real_BT` is True."""
    hidden_NF, gate_NF, value_NF = (
        part[real_BT] for part in (parts.hidden, parts.gate, parts.gate_value.expand_as(parts.hidden))
    )
    if not len(hidden_NF):
        return
    wide_NF, wide_value_NF = widen(hidden_NF), widen(value_NF)
    square_NF, size_NF = wide_NF.square(), wide_NF.abs()
    sums.hidden.add_(wide_NF.sum(0))
    sums.hidden_squared.add_(square_NF.sum(0))
    sums.gate.add_(wide_value_NF.sum(0))
    sums.gate_squared.add_(wide_value_NF.square().sum(0))
    sums.largest.copy_(torch.maximum(sums.largest, size_NF.amax(0)))
    sums.smallest.copy_(torch.minimum(sums.smallest, size_NF.amin(0)))
    sums.higher.add_(torch.stack([(square_NF * wide_NF).sum(), square_NF.square().sum()]))
    if sums.gram is not None:
        sums.gram.addmm_(wide_NF.t(), wide_NF)
    low = high = no_slope = torch.zeros((), dtype=torch.int64, device=gate_NF.device)
    if sums.steepest is not None:
        slope_NF = find_slopes(formula, gate_NF, parts.learned).abs()
        flat_NF = slope_NF <= FLAT * sums.steepest.slope
        below_NF = gate_NF < sums.steepest.at
        low, high = (flat_NF & below_NF).sum(), (flat_NF & ~below_NF).sum()
        no_slope = (slope_NF == 0).sum()
    here = {
        Count.TOKENS: torch.full_like(low, len(hidden_NF)),
        Count.ZERO: (hidden_NF == 0).sum(),
        Count.LOW: low,
        Count.HIGH: high,
        Count.NO_SLOPE: no_slope,
        Count.BAD_HIDDEN: (~hidden_NF.isfinite()).sum(),
        Count.BAD_GATE: (~(gate_NF.isfinite() & value_NF.isfinite())).sum(),
    }
    sums.counts.add_(torch.stack([here[each] for each in Count]))
    cells = ((gate_NF[~gate_NF.isnan()] + GATE_REACH) * (GATE_CELLS / (2 * GATE_REACH))).floor()
    sums.gate_cells.add_(_count_cells(cells, GATE_CELLS))
    # frexp writes x as m 2^e with m in [1/2, 1): the octave of x is e - 1
    octaves = torch.frexp(size_NF[(size_NF > 0) & size_NF.isfinite()]).exponent - 1 + OCTAVE_REACH
    sums.octaves.add_(_count_cells(octaves, 2 * OCTAVE_REACH).to(sums.octaves.device))


def measure_units(sums: UnitSums) -> Units:
    """The numbers of one block, once all tokens, at least one, are counted."""
    counts = sums.counts.tolist()
    n_tokens, d_ff = counts[Count.TOKENS], len(sums.hidden)
    n = n_tokens * d_ff
    good, good_gate = counts[Count.BAD_HIDDEN] == 0, counts[Count.BAD_GATE] == 0
    sloped = good_gate and sums.steepest is not None
    m1, m2 = (sums.hidden.sum() / n).item(), (sums.hidden_squared.sum() / n).item()
    m3, m4 = (sums.higher / n).tolist()
    rms = m2**0.5
    dead = sums.largest <= DEAD * rms
    always = sums.smallest > DEAD * rms
    variance, varying = _variance(sums.hidden, sums.hidden_squared, n_tokens)
    gate_variance, gate_varying = _variance(sums.gate, sums.gate_squared, n_tokens)
    largest = sums.largest.max().item()
    fourth = m4 - 4 * m1 * m3 + 6 * m1**2 * m2 - 3 * m1**4
    spread = m2 - m1**2
    spectrum = Spectrum(participation_ratio=None, effective_rank=None)
    if good and sums.gram is not None:
        mean_F = sums.hidden / n_tokens
        spectrum = measure_spectrum(sums.gram / n_tokens - torch.outer(mean_F, mean_F))

    def if_good(value: float | Tensor) -> float | None:
        return finite(value) if good else None

    def share(of: Count) -> float | None:
        return counts[of] / n if sloped else None

    return Units(
        dead_share=if_good(dead.double().mean()),
        always_on_share=if_good(always.double().mean()),
        zero_share=counts[Count.ZERO] / n if good else None,
        saturation=counts[Count.LOW] / n + counts[Count.HIGH] / n if sloped else None,
        saturation_low=share(Count.LOW),
        saturation_high=share(Count.HIGH),
        zero_slope_share=share(Count.NO_SLOPE),
        hidden_rms=if_good(rms),
        hidden_variance=if_good(variance),
        hidden_varying_share=if_good(varying),
        gate_variance=finite(gate_variance) if good_gate else None,
        gate_varying_share=finite(gate_varying) if good_gate else None,
        hidden_kurtosis=if_good(fourth / spread**2) if spread > 0 else None,
        hidden_max=if_good(largest),
        hidden_max_over_rms=if_good(largest / rms) if rms > 0 else None,
        hidden_max_over_bf16=if_good(largest / MAX_BF16),
        hidden_max_over_fp8_e4m3=if_good(largest / MAX_FP8_E4M3),
        participation_ratio=spectrum.participation_ratio,
        effective_rank=spectrum.effective_rank,
        effective_rank_share=None if spectrum.effective_rank is None else spectrum.effective_rank / d_ff,
        nonfinite_hidden=counts[Count.BAD_HIDDEN],
        nonfinite_gate=counts[Count.BAD_GATE],
        gate_histogram=sums.gate_cells.tolist(),
        hidden_octaves=sums.octaves.tolist(),
    )


def _variance(sum_F: Tensor, squares_F: Tensor, n_tokens: int) -> tuple[float, float]:
    """Variance over tokens, mean over units; the same over the mean square (NaN for zeros alone)."""
    square_F = squares_F / n_tokens
    variance = (square_F - (sum_F / n_tokens).square()).clamp(min=0.0).mean()
    return variance.item(), (variance / square_F.mean()).item()


def _count_cells(cells: Tensor, n_cells: int) -> Tensor:
    """How many numbers lie in each cell, those beyond in the first and the last."""
    return torch.bincount(cells.clamp(0, n_cells - 1).long(), minlength=n_cells)
