"""What a trained run loses when its gates are replaced from the outside, block by block.

The gate is `Formula.gate_part`: of a gated variant the gate's function with its clamps, of an
ungated one its activation. What follows (up part, factor, norm, W_down) stays as it was trained.

    constant  each unit's gate value is its mean over the tokens: it no longer depends on the data.
              An ungated block has nothing but the gate, so all of it becomes one fixed vector
    shuffled  the gate values of a token are those of another: the distribution stays, the match to
              the token goes. One permutation of 4096 tokens' windows at a time, by a fixed seed
    linear    each unit's gate value is the least-squares line of its input, over the tokens: what
              the bend of the function is worth. The identity (bilinear) loses nothing

Means and lines are those of the intact model on the same tokens. Losses are in fp32, eagerly.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from glu_bench.device import keep_fp32_exact, resolve_device
from glu_bench.errors import ConfigError, DataError, suggest
from glu_bench.evaluate.held_out import N_TOKENS, HeldOutTokens, take_head, widen
from glu_bench.evaluate.run import find_stream
from glu_bench.ffn.feedforward import FeedForward
from glu_bench.lm.decoder import Decoder
from glu_bench.lm.hidden import Feed, stream_through, take_apart
from glu_bench.runs.folder import Run

KINDS = ("constant", "shuffled", "linear")
SEED = 0


@dataclass(frozen=True, kw_only=True)
class Line:
    """slope * input + offset for each unit. Shapes: (F,)."""

    slope: Tensor
    offset: Tensor


@dataclass(frozen=True, kw_only=True)
class Ablation:
    """Held-out losses with all gates as trained, and what replacing them costs."""

    run_id: str
    variant: str
    gate: str
    split: str
    tokens: int
    loss_nats: float
    lost_nats: float  # all blocks at once
    lost_nats_per_layer: list[float]  # one block at a time


def ablate_run(
    run: Run, kind: str, *, split: str = "test", n_tokens: int = N_TOKENS, device: str | None = None
) -> Ablation:
    """What the last checkpoint of a run loses on the first tokens of a split, in nats per token.

    Raises: DataError if the text is not the run's, or a loss is not finite.
    """
    check_kind(kind)
    config = run.config()
    where = torch.device(resolve_device(device or config.train.device))
    keep_fp32_exact()
    model = run.load_model().to(where)
    head = take_head(
        find_stream(run, split),
        seq_len=config.model.seq_len,
        n_least=2,  # a permutation of one token is none
        n_tokens=n_tokens,
        device=where,
    )
    lines = fit_lines(model, head, constant=kind == "constant") if kind != "shuffled" else None
    n_layers = len(model.blocks)
    intact = measure_loss(model, head, [], lines)
    each = [measure_loss(model, head, [layer], lines) for layer in range(n_layers)]
    together = measure_loss(model, head, range(n_layers), lines)
    for loss in (intact, *each, together):
        if not abs(loss) < float("inf"):
            raise DataError(f"{run.run_id}: a loss of {loss} nats, with --gate {kind}; see glu-bench inspect")
    return Ablation(
        run_id=run.run_id,
        variant=config.variant.name,
        gate=kind,
        split=split,
        tokens=head.n_tokens,
        loss_nats=intact,
        lost_nats=together - intact,
        lost_nats_per_layer=[loss - intact for loss in each],
    )


def check_kind(kind: str) -> None:
    """Refuse a word that names no replacement.

    Raises: ConfigError with the nearest that does.
    """
    if kind not in KINDS:
        raise ConfigError(f"--gate {kind}: one of {', '.join(KINDS)}{suggest(kind, KINDS)}")


def fit_lines(model: Decoder, head: HeldOutTokens, *, constant: bool) -> list[Line]:
    """Each block's least-squares lines from the gate's input to its value, over all tokens.

    `constant`: the best line without slope, which is the mean. A unit whose input never changes
    has that one too.
    """
    n_layers = len(model.blocks)
    shape = (n_layers, 4, model.d_ff)  # input, value, input^2, input * value
    sums = widen(torch.zeros(shape, dtype=torch.float32, device=head.device))
    for batch in head.batches():

        def feed(layer: int, ffn: FeedForward, x_BTD: Tensor, real_BT: Tensor = batch.real_BT) -> Tensor:
            parts = take_apart(ffn, x_BTD)
            input_NF, value_NF = widen(parts.gate[real_BT]), widen(parts.gate_value[real_BT])
            found = (input_NF, value_NF, input_NF.square(), input_NF * value_NF)
            sums[layer] += torch.stack([each.sum(0) for each in found])
            y_BTD: Tensor = ffn.down(parts.hidden)
            return y_BTD

        stream_through(model, batch.tokens_BT, feed)
    means = sums / head.n_tokens
    lines = []
    for x, y, xx, xy in means:
        spread = xx - x * x
        slope = torch.where(spread > 1e-12 * xx, (xy - x * y) / spread, torch.zeros_like(x))
        slope = torch.zeros_like(x) if constant else slope
        offset = y - slope * x
        lines.append(Line(slope=slope.float().to(head.device), offset=offset.float().to(head.device)))
    return lines


def measure_loss(
    model: Decoder, head: HeldOutTokens, layers: range | list[int], lines: list[Line] | None
) -> float:
    """Mean loss with the gates of these blocks replaced: by lines, or shuffled if there are none."""
    nats = 0.0
    for number, batch in enumerate(head.batches()):
        feed = _replacing(layers, lines, batch.real_BT, number * len(model.blocks))
        x_BTD = stream_through(model, batch.tokens_BT, feed)
        with torch.no_grad():
            nats += widen(model.nats_from(x_BTD, batch.targets_BT)[batch.real_BT]).sum().item()
    return nats / head.n_tokens


def _replacing(layers: range | list[int], lines: list[Line] | None, real_BT: Tensor, first_draw: int) -> Feed:
    def feed(layer: int, ffn: FeedForward, x_BTD: Tensor) -> Tensor:
        parts = take_apart(ffn, x_BTD)
        hidden = parts.hidden
        if layer in layers:
            if lines is None:
                gate_value = _shuffle(parts.gate_value, real_BT, first_draw + layer)
            else:
                gate_value = lines[layer].slope * parts.gate + lines[layer].offset
            hidden = ffn.hidden.formula.combine(gate_value, parts.up_value, parts.learned)
        y_BTD: Tensor = ffn.down(hidden)
        return y_BTD

    return feed


def _shuffle(value_BTF: Tensor, real_BT: Tensor, draw: int) -> Tensor:
    """The rows of all real tokens in another order, one draw for each number."""
    value_NF = value_BTF[real_BT]
    generator = torch.Generator().manual_seed(SEED + draw)
    order = torch.randperm(len(value_NF), generator=generator).to(value_BTF.device)
    shuffled_BTF = value_BTF.clone()
    shuffled_BTF[real_BT] = value_NF[order]
    return shuffled_BTF
