"""What the feed-forward blocks of a run do, block by block and over the network.

Everything is computed in fp32 without autocast, by the plain operations, on the first tokens of
a split: the same numbers for any batch size, to rounding.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from glu_bench.device import keep_fp32_exact, resolve_device
from glu_bench.evaluate.gradients import Gradients, measure_gradients
from glu_bench.evaluate.held_out import CHUNK_TOKENS, N_TOKENS, Batch, take_head
from glu_bench.evaluate.history import History, read_history
from glu_bench.evaluate.run import find_stream
from glu_bench.evaluate.units import Units, UnitSums, add_tokens, make_sums, measure_units
from glu_bench.evaluate.weights import Weights, count_nonfinite, measure_weights
from glu_bench.ffn.feedforward import FeedForward
from glu_bench.lm.decoder import Decoder
from glu_bench.lm.hidden import list_ffns, stream_through, take_apart
from glu_bench.runs.folder import Run

Summary = dict[str, float | int | None]


@dataclass(frozen=True, kw_only=True)
class Layer:
    """One feed-forward block."""

    layer: int  # 0 is nearest to the embedding
    units: Units
    weights: Weights
    gradients: Gradients


@dataclass(frozen=True, kw_only=True)
class Inspection:
    """One checkpoint of one run."""

    run_id: str
    variant: str
    match: str
    seed: int
    step: int
    split: str
    tokens: int
    d_ff: int
    loss_nats: float | None  # over these tokens
    layers: list[Layer]
    summary: Summary
    history: History  # of the whole run
    nonfinite_weights: dict[str, int]  # by parameter, where there are any


def inspect_run(
    run: Run,
    *,
    step: int | None = None,
    split: str = "val",
    n_tokens: int = N_TOKENS,
    device: str | None = None,
    chunk_tokens: int = CHUNK_TOKENS,
) -> Inspection:
    """All measurements of one checkpoint, the last unless `step` names one.

    Raises: DataError if there is no such checkpoint, the text is not the run's, or its tokens are
    fewer than hidden units, whose covariance they could not span.
    """
    config = run.config()
    where = torch.device(resolve_device(device or config.train.device))
    keep_fp32_exact()
    model = run.load_model(step).to(where)
    head = take_head(
        find_stream(run, split),
        seq_len=config.model.seq_len,
        n_least=model.d_ff + 1,
        n_tokens=n_tokens,
        chunk_tokens=chunk_tokens,
        device=where,
    )
    units = [measure_units(sums) for sums in sum_units(model, head.batches())]
    gradients, loss_nats = measure_gradients(model, head.batches())
    weights = [measure_weights(ffn) for ffn in list_ffns(model)]
    layers = [
        Layer(layer=at, units=units[at], weights=weights[at], gradients=gradients[at])
        for at in range(len(units))
    ]
    record = run.result() if run.outcome() == "complete" else None
    history = read_history(run.rows(), record)
    return Inspection(
        run_id=run.run_id,
        variant=config.variant.name,
        match=config.match.mode,
        seed=config.seed,
        step=run.list_steps()[-1] if step is None else step,
        split=split,
        tokens=head.n_tokens,
        d_ff=model.d_ff,
        loss_nats=loss_nats,
        layers=layers,
        summary=summarise(layers, history),
        history=history,
        nonfinite_weights=count_nonfinite(model),
    )


def sum_units(model: Decoder, batches: Iterable[Batch], *, spectrum: bool = True) -> list[UnitSums]:
    """Sums over all tokens of some batches, of each block."""
    sums = [make_sums(ffn, spectrum=spectrum) for ffn in list_ffns(model)]
    for batch in batches:

        def feed(layer: int, ffn: FeedForward, x_BTD: Tensor, real_BT: Tensor = batch.real_BT) -> Tensor:
            parts = take_apart(ffn, x_BTD)
            add_tokens(sums[layer], ffn.hidden.formula, parts, real_BT)
            y_BTD: Tensor = ffn.down(parts.hidden)
            return y_BTD

        stream_through(model, batch.tokens_BT, feed)
    return sums


def flatten_layer(layer: Layer) -> dict[str, Any]:
    """One block's numbers by name, as `inspect --json` has them."""
    flat: dict[str, Any] = {"layer": layer.layer}
    for part in (layer.units, layer.weights, layer.gradients):
        flat |= dataclasses.asdict(part)
    return flat


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def _norm(values: Sequence[float]) -> float:
    return math.sqrt(math.fsum(value * value for value in values))


def _ratio(values: Sequence[float]) -> float:
    return max(values) / min(values) if min(values) > 0 else math.inf


# blocks are equally wide, so the mean over blocks of a share of units is the share of all units
_MEANS = (
    *("dead_share", "always_on_share", "zero_share"),
    *("saturation", "saturation_low", "saturation_high", "zero_slope_share"),
    *("hidden_variance", "hidden_varying_share", "gate_variance", "gate_varying_share"),
    *("participation_ratio", "effective_rank", "effective_rank_share"),
    *("gate_up_cosine", "gate_up_cosine_size", "zero_gradient_share"),
)
_GREATEST = (
    *("hidden_kurtosis", "hidden_max", "hidden_max_over_rms"),
    *("hidden_max_over_bf16", "hidden_max_over_fp8_e4m3"),
)
_NORMS = (
    *("gate_weight_norm", "up_weight_norm", "down_weight_norm"),
    *("gate_gradient_norm", "up_gradient_norm", "down_gradient_norm", "gradient_norm"),
)
_SUMS = ("nonfinite_hidden", "nonfinite_gate", "nonfinite_weights", "nonfinite_gradients")


def summarise(layers: Sequence[Layer], history: History) -> Summary:
    """Over the network: means of shares, the greatest of extremes, norms as of one long vector.

    `hidden_rms` is over all blocks; `gradient_norm_spread` the largest block's over the smallest's.
    None where any block has none: nothing is averaged over what is left.
    """
    flat = [flatten_layer(layer) for layer in layers]

    def over(name: str, reduce: Callable[[Sequence[float]], float]) -> float | None:
        values = [row[name] for row in flat]
        if None in values:
            return None
        reduced = reduce(values)
        return reduced if math.isfinite(reduced) else None

    summary: Summary = {name: over(name, _mean) for name in _MEANS}
    rms = over("hidden_rms", _norm)
    summary["hidden_rms"] = None if rms is None else rms / math.sqrt(len(flat))
    summary |= {name: over(name, max) for name in _GREATEST}
    summary |= {name: over(name, _norm) for name in _NORMS}
    summary["gradient_norm_spread"] = over("gradient_norm", _ratio)
    summary |= {name: sum(row[name] for row in flat) for name in _SUMS}
    summary["train_held_out_gap_nats"] = history.train_held_out_gap_nats
    summary["n_loss_spikes"] = history.n_loss_spikes
    summary["loss_spike_share"] = history.loss_spike_share
    return summary
