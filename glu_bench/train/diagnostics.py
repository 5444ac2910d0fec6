"""What a run notes of its gates while it trains: numbers of each block, for metrics.jsonl.

Light: at the first step and at every held-out loss a few measures on four sequences; at every
logged step the norms of the step's own gradients before clipping. Full: all measures of the
units, on the tokens of the held-out loss. Everything runs eagerly on the model as it is, draws
no random number and leaves nothing behind, so a run's weights are the same with and without.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from glu_bench import schema
from glu_bench.data.prepared import TokenStream
from glu_bench.evaluate.gradients import collect_norms
from glu_bench.evaluate.held_out import HeldOutTokens, take_head
from glu_bench.evaluate.inspection import sum_units
from glu_bench.evaluate.units import Units, measure_units
from glu_bench.lm.decoder import Decoder
from glu_bench.ranks import Ranks

N_SEQUENCES = 4  # of the light measures
LIGHT = ("dead_share", "zero_share", "saturation", "hidden_rms")
COUNTS = ("nonfinite_hidden", "nonfinite_gate")  # noted where there are any


@dataclass(frozen=True, kw_only=True)
class Diagnostics:
    """What is noted; without tokens, nothing."""

    head: HeldOutTokens | None
    names: tuple[str, ...]  # of Units
    spectrum: bool

    def read_gradients(self, model: Decoder) -> dict[str, Any]:
        """Norms of the gradients that the model holds, by matrix, a number a block."""
        return {} if self.head is None else dict(collect_norms(model))

    def read_units(self, model: Decoder) -> dict[str, Any]:
        """The measures of the units, a list a measure with a number a block, and on how many tokens."""
        if self.head is None:
            return {}
        sums = sum_units(model, self.head.batches(), spectrum=self.spectrum)
        layers = [dataclasses.asdict(measure_units(each)) for each in sums]
        bad = [name for name in COUNTS if any(layer[name] for layer in layers)]
        lists = {f"{name}_per_layer": [layer[name] for layer in layers] for name in (*self.names, *bad)}
        return lists | {"diagnostics_tokens": self.head.n_tokens}


def make_diagnostics(
    config: schema.Config, stream: TokenStream, d_ff: int, ranks: Ranks
) -> tuple[Diagnostics, list[str]]:
    """What this rank notes of a run, and remarks for a person.

    Rank 0 alone notes; under fsdp nobody, as no rank holds whole blocks.
    """
    train, remarks = config.train, []
    kind = train.diagnostics
    if kind != "off" and ranks.mode == "fsdp":
        remarks = [f"train.diagnostics={kind}: nothing is noted under parallel=fsdp; glu-bench inspect can"]
    if kind == "off" or ranks.mode == "fsdp" or not ranks.writes:
        return Diagnostics(head=None, names=(), spectrum=False), remarks
    seq_len = config.model.seq_len
    n_tokens = N_SEQUENCES * seq_len if kind == "light" else train.eval_tokens
    head = take_head(stream, seq_len=seq_len, n_least=1, n_tokens=n_tokens, device=train.device)
    # fewer tokens than units span no covariance
    spectrum = kind == "full" and head.n_tokens > d_ff
    measures = [field.name for field in dataclasses.fields(Units) if field.type == "float | None"]
    names = LIGHT if kind == "light" else (*LIGHT, *(name for name in measures if name not in LIGHT))
    return Diagnostics(head=head, names=names, spectrum=spectrum), remarks
