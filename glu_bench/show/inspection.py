"""What the gates do, as tables: the blocks of one run, checkpoints of one run, arms side by side."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from rich.table import Table

from glu_bench.evaluate.inspection import Inspection, flatten_layer
from glu_bench.show.numbers import si
from glu_bench.show.tables import render_rows

# heading, key, and whether it is a share
_UNITS = (
    ("dead", "dead_share", True),
    ("always on", "always_on_share", True),
    ("zero", "zero_share", True),
    ("sat. low", "saturation_low", True),
    ("sat. high", "saturation_high", True),
    ("no slope", "zero_slope_share", True),
)
_HIDDEN = (
    ("rms", "hidden_rms", False),
    ("varying", "hidden_varying_share", True),
    ("gate varying", "gate_varying_share", True),
    ("eff. rank", "effective_rank", False),
    ("part. ratio", "participation_ratio", False),
    ("kurtosis", "hidden_kurtosis", False),
    ("max", "hidden_max", False),
)
_MATRICES = (
    ("gate", "gate_weight_norm", False),
    ("up", "up_weight_norm", False),
    ("down", "down_weight_norm", False),
    ("cosine", "gate_up_cosine", False),
    ("d gate", "gate_gradient_norm", False),
    ("d up", "up_gradient_norm", False),
    ("d down", "down_gradient_norm", False),
    ("zero d", "zero_gradient_share", True),
)
_ARMS = (
    ("dead", "dead_share", True),
    ("always on", "always_on_share", True),
    ("zero", "zero_share", True),
    ("saturated", "saturation", True),
    ("varying", "hidden_varying_share", True),
    ("eff. rank", "effective_rank", False),
    ("max", "hidden_max", False),
)
_ARMS_TRAINING = (
    ("gradient", "gradient_norm", False),
    ("spread", "gradient_norm_spread", False),
    ("zero d", "zero_gradient_share", True),
    ("cosine", "gate_up_cosine", False),
    ("kurtosis", "hidden_kurtosis", False),
    ("gap", "train_held_out_gap_nats", False),
    ("spikes", "n_loss_spikes", False),
)


def render_run(inspection: Inspection) -> Iterator[Table]:
    """The blocks of one checkpoint: units, then matrices and their gradients, the network last."""
    rows = [flatten_layer(layer) for layer in inspection.layers]
    about = (
        f"{inspection.run_id}, step {inspection.step:,}, F={inspection.d_ff}, "
        f"{inspection.tokens:,} tokens of {inspection.split}"
    )
    tables = (
        (about, _UNITS),
        ("the hidden state", _HIDDEN),
        ("norms of matrices and of their gradients (d)", _MATRICES),
    )
    for title, columns in tables:
        cells = [(str(row["layer"]), *_cells(row, columns)) for row in rows]
        cells.append(("all", *_cells(inspection.summary, columns)))
        yield render_rows(title, ("block", *(name for name, _, _ in columns)), cells)
    learned = [(row["layer"], name, _say(value)) for row in rows for name, value in row["learned"].items()]
    if learned:
        yield render_rows("learned besides the matrices", ("block", "argument", "value"), learned, left=2)


def render_side_by_side(inspections: Sequence[Inspection], first: str = "run") -> Iterator[Table]:
    """Network-level numbers, a row each; `first` is run or step."""
    title = inspections[0].run_id if first == "step" else ""
    for columns in (_ARMS, _ARMS_TRAINING):
        rows = [
            (each.run_id if first == "run" else f"{each.step:,}", *_cells(each.summary, columns))
            for each in inspections
        ]
        yield render_rows(title, (first, *(name for name, _, _ in columns)), rows)


def list_warnings(inspection: Inspection) -> list[str]:
    """Where there are NaN or infinities, a line each."""
    lines = [
        f"{name}: {count:,} weights are not finite" for name, count in inspection.nonfinite_weights.items()
    ]
    for layer in inspection.layers:
        for what, count in (
            ("hidden numbers", layer.units.nonfinite_hidden),
            ("gate numbers", layer.units.nonfinite_gate),
            ("gradients", layer.gradients.nonfinite_gradients),
        ):
            if count:
                lines.append(f"block {layer.layer}: {count:,} {what} are not finite")
    return lines


def _cells(row: dict[str, Any], columns: Sequence[tuple[str, str, bool]]) -> list[str]:
    return [_say(row[key], share) for _, key, share in columns]


def _say(value: Any, share: bool = False) -> str:
    if isinstance(value, dict):
        return f"{si(value['mean'])} ({si(value['min'])} to {si(value['max'])})"
    if value is None:
        return "-"
    return f"{value:.1%}" if share else si(value)
