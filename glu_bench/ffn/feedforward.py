"""The feed-forward block: one class for every variant, by composition.

    hidden_BTF = formula(in_proj(x_BTD))        y_BTD = down(hidden_BTF)

For a gated variant `in_proj` is one matrix multiply that yields gate and up side by side,
gate first, as Hugging Face and vLLM order them (torch.nn.functional.glu has value first).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from glu_bench import schema
from glu_bench.errors import ConfigError
from glu_bench.ffn.formula import Formula, load_variant
from glu_bench.ffn.lean import lean_feedforward
from glu_bench.ffn.matching import check_receipt, match_width


class HiddenProjection(nn.Module):
    """x to hidden: the gated linear unit itself, with no projection behind it.

    Shapes: (..., d_in) to (..., d_ff).
    """

    def __init__(self, formula: Formula, d_in: int, d_ff: int, bias: bool = False) -> None:
        super().__init__()
        self.formula = formula
        self.in_proj = nn.Linear(d_in, formula.n_projections * d_ff, bias=bias)
        self.learned = nn.ParameterDict(
            {
                each.parameter: nn.Parameter(torch.full((d_ff,) if each.per_unit else (), each.init))
                for each in formula.learned
            }
        )

    def forward(self, x_BTD: Tensor) -> Tensor:
        """The hidden vector of each token."""
        parts = self.in_proj(x_BTD).chunk(self.formula.n_projections, dim=-1)
        return self.formula.evaluate(*parts, *self.list_learned())

    def list_learned(self) -> tuple[Tensor, ...]:
        """The learned arguments, in the formula's order."""
        return tuple(self.learned[each.parameter] for each in self.formula.learned)


class FeedForward(nn.Module):
    """x to y through a hidden vector of width d_ff.

    Shapes: (..., d_in) to (..., d_out); d_out is d_in unless given.
    `fast` takes the step of ffn/lean.py, which runs no hook of the parts; else part by part.
    """

    def __init__(
        self,
        formula: Formula,
        d_in: int,
        d_ff: int,
        d_out: int | None = None,
        bias: bool = False,
        fast: bool = True,
    ) -> None:
        super().__init__()
        self.fast = fast
        self.hidden = HiddenProjection(formula, d_in, d_ff, bias)
        self.down = nn.Linear(d_ff, d_in if d_out is None else d_out, bias=bias)

    def forward(self, x_BTD: Tensor) -> Tensor:
        """The block's output, to be added to the residual stream."""
        if self.fast:
            into, down = self.hidden.in_proj, self.down
            return lean_feedforward(
                x_BTD,
                into.weight,
                into.bias,
                down.weight,
                down.bias,
                self.hidden.formula,
                self.hidden.list_learned(),
            )
        y_BTD: Tensor = self.down(self.hidden(x_BTD))
        return y_BTD


def make_feedforward(
    name: str, *, d_model: int, d_ff: int | None = None, match: str = "params", bias: bool = False
) -> FeedForward:
    """A feed-forward block of the named variant, freshly initialised by torch.

    Without `d_ff` the width follows `match`: "params" (the parameters of the ungated block at
    4*d_model) or "width" (4*d_model).
    Raises: ConfigError for an unknown name or if no width within 0.5 % exists.
    """
    formula = load_variant(name)
    if d_ff is None:
        if match not in ("params", "width"):
            raise ConfigError(f"match={match}: 'params' or 'width'; or give d_ff")
        rule = schema.Match(mode=match, expansion=4.0, multiple_of=1, d_ff=None)
        receipt = match_width(formula.spec, d_model, rule, bias)
        check_receipt(receipt)
        d_ff = receipt.d_ff
    return FeedForward(formula, d_model, d_ff, bias=bias)
