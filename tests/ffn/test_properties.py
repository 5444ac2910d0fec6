"""Bounds, monotony and smoothness of every variant, as mathematics has them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import pytest
from scipy import optimize, special

from glu_bench.ffn.formula import list_variants, load_variant, make_formula
from glu_bench.ffn.properties import Properties, find_properties
from tests.ffn.oracles import UNGATED

D_FF = 64

# x sigma(x) is least where x = -1 - W(1/e), and there it is -W(1/e) = -0.27846
SWISH_LEAST = -special.lambertw(math.exp(-1)).real


def least(function: Callable[[float], float]) -> float:
    """The least value of a function with one dip, between -3 and 0."""
    return float(optimize.minimize_scalar(function, bounds=(-3, 0), options={"xatol": 1e-9}).fun)


def silu(x: float) -> float:
    return UNGATED["swish"](x)


GELU_LEAST = least(UNGATED["gelu"])
GELU_TANH_LEAST = least(UNGATED["gelu_tanh"])
MISH_LEAST = least(UNGATED["mish"])
SITU_LEAST = least(lambda x: 4 * math.tanh(x / 4) * UNGATED["sigmoid"](x))
SELU_LEAST = -1.0507009873554805 * 1.6732632423543772
# below 0 xielu is 0.8 (e^x - 1 - x) + x/2, least where 0.8 e^x = 0.3
XIELU_LEAST = 0.8 * (0.375 - 1 - math.log(0.375)) + 0.5 * math.log(0.375)
XIPRELU_LEAST = -(0.5**2) / (4 * 0.8)  # of 0.8 x^2 + 0.5 x

# lower bound, upper bound, monotone, lowest derivative that jumps: of the gate, or the activation
EXPECTED: dict[str, tuple[float | None, float | None, bool | None, str | None]] = {
    "relu": (0, None, True, "kink"),
    "gelu": (GELU_LEAST, None, False, "smooth"),
    "swish": (SWISH_LEAST, None, False, "smooth"),
    "glu": (0, 1, True, "smooth"),
    "bilinear": (None, None, True, "smooth"),
    "reglu": (0, None, True, "kink"),
    "geglu": (GELU_LEAST, None, False, "smooth"),
    "swiglu": (SWISH_LEAST, None, False, "smooth"),
    "gelu_tanh": (GELU_TANH_LEAST, None, False, "smooth"),
    "geglu_tanh": (GELU_TANH_LEAST, None, False, "smooth"),
    "quick_gelu": (SWISH_LEAST / 1.702, None, False, "smooth"),  # swish(1.702 x) / 1.702
    "quick_geglu": (SWISH_LEAST / 1.702, None, False, "smooth"),
    "swish_beta": (SWISH_LEAST, None, False, "smooth"),
    "swiglu_beta": (SWISH_LEAST, None, False, "smooth"),
    "mish": (MISH_LEAST, None, False, "smooth"),
    "miglu": (MISH_LEAST, None, False, "smooth"),
    "softplus": (0, None, True, "smooth"),
    "softplus_glu": (0, None, True, "smooth"),
    # slope 1 on both sides of 0 as alpha = 1, curvature 1 below and 0 above
    "elu": (-1, None, True, "C1"),
    "elu_glu": (-1, None, True, "C1"),
    # slope 1.0507 above 0 and 1.0507 * 1.6733 below
    "selu": (SELU_LEAST, None, True, "kink"),
    "sigmoid": (0, 1, True, "smooth"),
    "tanh": (-1, 1, True, "smooth"),
    "tanh_glu": (-1, 1, True, "smooth"),
    "leaky_relu": (None, None, True, "kink"),
    "leaky_reglu": (None, None, True, "kink"),
    # x (x + 3) / 6 between -3 and 3: least at -1.5; its slope jumps by 1/2 at both ends
    "hardswish": (-0.375, None, False, "kink"),
    "hard_swiglu": (-0.375, None, False, "kink"),
    "relu2": (0, None, True, "C1"),
    "reglu2": (0, None, True, "C1"),
    "reglu2_norm": (0, None, True, "C1"),
    "leaky_relu2": (0, None, False, "C1"),  # x^2/4 falls below 0
    "drelu": (0, None, True, "kink"),
    "double_swiglu": (SWISH_LEAST, None, False, "smooth"),
    "fatreglu": (0, None, True, "jump"),
    "polyrelu": (0, None, True, "kink"),  # slope 1/3 above 0
    "polynorm": (None, None, None, None),
    "solu": (None, None, None, None),
    # slope beta on both sides, curvature 1.6 above and 0.8 below; the step by eps of 8e-7 aside
    "xielu": (XIELU_LEAST, None, False, "C1"),
    "xiprelu": (XIPRELU_LEAST, None, False, "smooth"),  # one parabola as long as a_p = a_n
    "gtu": (0, 1, True, "smooth"),
    "swiglu_oai": (SWISH_LEAST / 1.702, 7 * UNGATED["sigmoid"](7 * 1.702), False, "kink"),
    "swiglu_clamp": (SWISH_LEAST, silu(10), False, "kink"),
    "swiglu_step": (SWISH_LEAST, 7, False, "kink"),
    "situ_glu": (SITU_LEAST, 4, False, "smooth"),
    "swiglu_mult": (SWISH_LEAST, None, False, "smooth"),
    # x (arctan(x)/pi + 1/2) has the curvature 2/(pi (1 + x^2)^2) > 0, and slope 0 at minus infinity
    "xatlu": (-1 / math.pi, None, True, "smooth"),
    "xatglu": (0, 1, True, "smooth"),
    "xgelu": (GELU_LEAST, None, False, "smooth"),
    "xgeglu": (0, 1, True, "smooth"),
    "xsilu": (SWISH_LEAST, None, False, "smooth"),
    "xswiglu": (0, 1, True, "smooth"),
}


def properties_of(name: str) -> Properties:
    return find_properties(load_variant(name), D_FF)


@pytest.mark.parametrize("name", list_variants())
def test_properties_are_those_of_mathematics(name: str) -> None:
    lower, upper, monotone, smoothness = EXPECTED[name]
    found = properties_of(name)
    for bound, expected in ((found.lower_bound, lower), (found.upper_bound, upper)):
        assert (bound is None) == (expected is None)
        # a tenth of a thousandth between points; arctan comes near its ends but slowly
        assert bound is None or bound == pytest.approx(expected, abs=1e-6)
    assert found.monotone is monotone
    assert found.smoothness == smoothness


def test_the_table_has_every_variant() -> None:
    assert sorted(EXPECTED) == list_variants()


@pytest.mark.parametrize(
    ("name", "quoted"), [("swish", -0.27846), ("gelu", -0.16997), ("mish", -0.30884), ("xatlu", -0.31831)]
)
def test_least_values_have_the_digits_that_are_quoted(name: str, quoted: float) -> None:
    assert properties_of(name).lower_bound == pytest.approx(quoted, abs=5e-6)


def test_properties_follow_the_constants() -> None:
    spec = load_variant("xiprelu").spec
    apart = dataclasses.replace(spec, activation_args={**spec.activation_args, "n": -2.0})
    assert find_properties(make_formula(apart), D_FF).smoothness == "C1"
    steep = dataclasses.replace(load_variant("leaky_relu").spec, activation_args={"slope": -1.0})
    found = find_properties(make_formula(steep), D_FF)  # |x|
    assert (found.lower_bound, found.upper_bound, found.monotone) == (pytest.approx(0, abs=1e-4), None, False)
    falling = dataclasses.replace(
        load_variant("polyrelu").spec, activation_args={"a0": 1.0, "a1": -1.0, "a2": 0.0, "a3": 0.0}
    )
    found = find_properties(make_formula(falling), D_FF)  # 1 - max(0, x)
    assert (found.lower_bound, found.upper_bound, found.monotone) == (None, 1.0, True)


@pytest.mark.parametrize("name", ["reglu2_norm", "polynorm", "swiglu"])
def test_moments_stand_beside(name: str) -> None:
    from glu_bench.ffn.moments import second_moment, zero_share

    found = properties_of(name)
    assert found.second_moment == second_moment(load_variant(name), D_FF)
    assert found.zero_share == zero_share(load_variant(name), D_FF)
