"""Moments and shares of zeros against closed forms, SciPy's quadrature and draws."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable

import pytest
import torch
from scipy import integrate, special, stats

from glu_bench.ffn.formula import list_variants, load_variant, make_formula
from glu_bench.ffn.moments import second_moment, zero_share
from tests.ffn.oracles import GATED, UNGATED

D_FF = 192  # matters to variants that read the whole width


def normal_mean(function: Callable[[float], float], *kinks: float) -> float:
    """E[function(x)] for x from N(0, 1), cut at its kinks."""
    edges = [-12.0, *sorted({-1.0, 0.0, 1.0, *kinks}), 12.0]
    pieces = [
        integrate.quad(lambda x: function(x) * stats.norm.pdf(x), low, high, epsabs=1e-13, epsrel=1e-12)[0]
        for low, high in itertools.pairwise(edges)
    ]
    return math.fsum(pieces)


def half(power: int) -> float:
    """E[max(0, x)^power]: half the moment of even order, (power - 1)!!."""
    return special.factorial2(power - 1) / 2


# by hand: E[max(0,x)^2] = 1/2, E[max(0,x)^4] = 3/2, E[x^2] = 1, E[x^4] = 3; factors are independent
CLOSED = {
    "relu": 0.5,
    "bilinear": 1.0,
    "reglu": 0.5,
    "drelu": 0.25,
    "relu2": 1.5,
    "reglu2": 1.5,
    "leaky_relu": 0.5 * (1 + 0.01**2),
    "leaky_reglu": 0.5 * (1 + 0.01**2),
    "leaky_relu2": 1.5 * (1 + 0.5**4),
    # E[(0.8 x^2 + 0.5 x)^2] = 0.64 * 3 + 0.25, the odd part 0
    "xiprelu": 0.64 * 3 + 0.25,
    # E[(x + x^2 + x^3)^2]/9 over x > 0: moments 2, 4, 6 by half, 3 and 5 as sqrt(2/pi) * 2!!/2, 4!!/2
    "polyrelu": (0.5 + 3 * 1.5 + 7.5 + 2 * (2 / math.sqrt(2 * math.pi)) + 2 * (8 / math.sqrt(2 * math.pi)))
    / 9,
    # E[Phi(x)^2] = 1/3: Phi(x) is uniform
    "xgeglu": 1 / 3,
    "reglu2_norm": 1.0,  # that is what the norm is for
    # E[e^2x; x < 0] - 2 E[e^x; x < 0] + 1/2 with E[e^ax; x < 0] = e^(a^2/2) Phi(-a)
    "elu": 1.0 + math.exp(2) * stats.norm.cdf(-2) - 2 * math.exp(0.5) * stats.norm.cdf(-1),
    # the constants of SELU make 1 a fixed point of the second moment
    "selu": 1.0,
}


@pytest.mark.parametrize("name", CLOSED)
def test_second_moment_is_the_closed_form(name: str) -> None:
    tolerance = 1e-3 if name == "reglu2_norm" else 1e-6
    assert second_moment(load_variant(name), D_FF) == pytest.approx(CLOSED[name], rel=tolerance)


@pytest.mark.parametrize("name", UNGATED)
def test_second_moment_is_that_of_quadrature(name: str) -> None:
    expected = normal_mean(lambda x: UNGATED[name](x) ** 2, -3.0, 3.0)
    assert second_moment(load_variant(name), D_FF) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(("name", "digits"), [("gelu", 0.425), ("swish", 0.356), ("sigmoid", 0.293)])
def test_second_moment_has_the_digits_that_are_quoted(name: str, digits: float) -> None:
    assert second_moment(load_variant(name), D_FF) == pytest.approx(digits, abs=5e-4)


# gate and value of each, by oracles of one argument: E[gate^2 value^2] = E[gate^2] E[value^2]
PRODUCTS: dict[str, tuple[str, Callable[[float], float]]] = {
    "glu": ("sigmoid", lambda u: u),
    "swiglu": ("swish", lambda u: u),
    "geglu": ("gelu", lambda u: u),
    "gtu": ("sigmoid", math.tanh),
    "double_swiglu": ("swish", UNGATED["swish"]),
    "swiglu_mult": ("swish", lambda u: u),
    "softplus_glu": ("softplus", lambda u: u),
}


@pytest.mark.parametrize("name", PRODUCTS)
def test_second_moment_of_a_gated_unit_is_a_product(name: str) -> None:
    gate, value = PRODUCTS[name]
    expected = normal_mean(lambda g: UNGATED[gate](g) ** 2) * normal_mean(lambda u: value(u) ** 2)
    assert second_moment(load_variant(name), D_FF) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("name", ["swiglu_oai", "situ_glu"])
def test_second_moment_is_that_of_quadrature_in_two_dimensions(name: str) -> None:
    def integrand(u: float, g: float) -> float:
        return GATED[name](g, u) ** 2 * math.exp(-0.5 * (g * g + u * u)) / (2 * math.pi)

    expected, _ = integrate.dblquad(integrand, -6.9, 6.9, -6.9, 6.9, epsabs=1e-8, epsrel=1e-7)
    assert second_moment(load_variant(name), D_FF) == pytest.approx(expected, rel=1e-5)


def test_clamps_offset_and_factor_count() -> None:
    """Clamps low enough to bite, which at 7 and 10 they do once in a billion numbers."""
    spec = dataclasses.replace(
        load_variant("swiglu").spec, gate_clamp=0.5, gate_out_clamp=0.2, up_clamp=0.75, offset=0.3, mult=1.5
    )
    gate = normal_mean(
        lambda g: min(UNGATED["swish"](min(g, 0.5)), 0.2) ** 2, 0.342, 0.5
    )  # silu(0.342) = 0.2
    value = normal_mean(lambda u: (max(-0.75, min(u, 0.75)) + 0.3) ** 2, -0.75, 0.75)
    assert second_moment(make_formula(spec), D_FF) == pytest.approx(1.5**2 * gate * value, rel=1e-4)


@pytest.mark.parametrize("name", list_variants())
def test_second_moment_and_zeros_are_those_of_draws(name: str) -> None:
    """A million draws, each variant; polynomials of degree six have heavy tails."""
    formula = load_variant(name)
    generator = torch.Generator().manual_seed(1)
    drawn = [
        torch.randn(5000, D_FF, dtype=torch.float64, generator=generator)
        for _ in range(formula.n_projections)
    ]
    hidden = formula.hidden(*drawn)
    assert second_moment(formula, D_FF) == pytest.approx(hidden.square().mean().item(), rel=0.03)
    assert zero_share(formula, D_FF) == pytest.approx((hidden == 0).double().mean().item(), abs=2e-3)


ZEROS = {
    "relu": 0.5,
    "relu2": 0.5,
    "reglu": 0.5,
    "reglu2": 0.5,
    "polyrelu": 0.5,
    "reglu2_norm": 0.5,
    "drelu": 0.75,  # 1 - 1/4
    "fatreglu": stats.norm.cdf(0.03),
    "hardswish": stats.norm.cdf(-3),
    "hard_swiglu": stats.norm.cdf(-3),
}


@pytest.mark.parametrize("name", list_variants())
def test_share_of_zeros_is_that_of_the_normal_distribution(name: str) -> None:
    formula = load_variant(name)
    # a threshold cuts a cell of the grid, 5e-4 wide; where the width is read, a million are drawn
    tolerance = 2e-3 if formula.reduces else 3e-4
    assert zero_share(formula, D_FF) == pytest.approx(ZEROS.get(name, 0.0), abs=tolerance)


def test_a_function_that_reads_the_width_depends_on_it() -> None:
    solu = load_variant("solu")
    assert second_moment(solu, 48) != pytest.approx(second_moment(solu, 1024), rel=0.05)
    assert second_moment(solu, 48) == second_moment(solu, 48)


def test_drawing_for_a_moment_leaves_the_generator_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    second_moment(load_variant("solu"), D_FF)
    zero_share(load_variant("polynorm"), D_FF)
    assert torch.equal(torch.rand(3), expected)
