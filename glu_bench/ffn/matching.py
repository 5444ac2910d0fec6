"""Parameters of a feed-forward block, and the width that makes arms equal.

Ungated: 2 matrices of D*F. Gated: 3. So the ungated baseline at F = 4D has 8 D^2, and a gated
arm meets it at F = 8D/3: exact where D is a multiple of 3. Source: Shazeer 2020, section 2.
"""

from __future__ import annotations

from dataclasses import dataclass

from glu_bench.errors import ConfigError
from glu_bench.ffn.learned import list_learned
from glu_bench.schema import Match, Variant

MAX_RESIDUAL = 0.005  # a larger share of parameters apart is not a matched comparison


@dataclass(frozen=True, kw_only=True)
class Receipt:
    """What matching came to, for one arm."""

    mode: str
    d_ff: int
    n_ffn_params: int  # of one block
    n_baseline_params: int  # of one ungated block at expansion*D
    residual: float  # n_ffn_params / n_baseline_params - 1
    flops_per_token: int  # matrix multiplies of one block's forward pass: 2 a weight


def count_ffn_params(variant: Variant, d_model: int, d_ff: int, bias: bool) -> int:
    """Parameters of one feed-forward block: matrices, biases and learned arguments."""
    n_in = 2 if variant.gated else 1
    biases = n_in * d_ff + d_model if bias else 0
    learned = sum(each.count(d_ff) for each in list_learned(variant))
    return _count_matrices(variant, d_model, d_ff) + biases + learned


def match_width(variant: Variant, d_model: int, match: Match, bias: bool) -> Receipt:
    """The width F of an arm and how near it comes to the baseline.

    The baseline is the ungated block of width expansion*D with the same `bias`.
    Raises: ConfigError if that has no unit.
    """
    d_baseline = round(match.expansion * d_model)
    if d_baseline < 1:
        raise ConfigError(f"match.expansion={match.expansion:g}: no hidden unit at model.d_model={d_model}")
    n_baseline = 2 * d_model * d_baseline + (d_baseline + d_model if bias else 0)
    if match.mode == "params":
        return match_count(variant, d_model, n_baseline, match.multiple_of, bias)
    d_ff = match.d_ff if match.mode == "none" else d_baseline
    assert d_ff is not None  # check_config saw to it
    return _make_receipt(match.mode, variant, d_model, d_ff, n_baseline, bias)


def match_count(variant: Variant, d_model: int, n_params: int, multiple_of: int, bias: bool) -> Receipt:
    """The width, a multiple of `multiple_of`, whose block comes nearest to `n_params` parameters."""
    # the count is affine in F, so two values give the real solution; then the nearer multiple
    n_at_0 = count_ffn_params(variant, d_model, 0, bias)
    slope = count_ffn_params(variant, d_model, 1, bias) - n_at_0
    below = max(1, int((n_params - n_at_0) / slope / multiple_of)) * multiple_of
    d_ff = min(
        (below, below + multiple_of),
        key=lambda f: abs(count_ffn_params(variant, d_model, f, bias) - n_params),
    )
    return _make_receipt("params", variant, d_model, d_ff, n_params, bias)


def check_receipt(receipt: Receipt, allow_unmatched: bool = False) -> None:
    """Refuse an arm that `match=params` could not match.

    Raises: ConfigError if the residual is above 0.5 % and that was not allowed.
    """
    if receipt.mode == "params" and abs(receipt.residual) > MAX_RESIDUAL and not allow_unmatched:
        raise ConfigError(
            f"match=params: the nearest width F={receipt.d_ff} is {receipt.residual:+.2%} off the baseline's "
            f"parameters, above {MAX_RESIDUAL:.1%}; lower match.multiple_of, choose d_model divisible by 3, "
            "or --allow-unmatched"
        )


def _make_receipt(
    mode: str, variant: Variant, d_model: int, d_ff: int, n_baseline: int, bias: bool
) -> Receipt:
    n_params = count_ffn_params(variant, d_model, d_ff, bias)
    return Receipt(
        mode=mode,
        d_ff=d_ff,
        n_ffn_params=n_params,
        n_baseline_params=n_baseline,
        residual=n_params / n_baseline - 1,
        flops_per_token=2 * _count_matrices(variant, d_model, d_ff),
    )


def _count_matrices(variant: Variant, d_model: int, d_ff: int) -> int:
    n_in = 2 if variant.gated else 1
    return (n_in + 1) * d_model * d_ff
