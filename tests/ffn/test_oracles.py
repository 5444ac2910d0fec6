"""The oracles against facts that need no other implementation: identities, known values, integrals, tails."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import pytest

from tests.ffn import oracles as o

POINTS = (-1e4, -700.0, -40.0, -9.5, -3.0, -1.3, -0.4, -1e-3, 0.0, 0.02, 0.4, 1.3, 3.0, 9.5, 40.0, 700.0, 1e4)
PAIRS = tuple(itertools.product(POINTS, POINTS))
INF = math.inf
# large enough to stand for ∞ and small enough to be multiplied by a point
HUGE = 1e12


def same(left: float, right: float, *, rel: float = 1e-12) -> bool:
    return math.isclose(left, right, rel_tol=rel, abs_tol=1e-300)


def normal_mean(f: Callable[[float], float]) -> float:
    """E[f(z)] for z of N(0, 1), by the trapezium rule, with a node at 0, where the family has its kinks."""
    step = 1e-3
    density = math.fsum(f(step * i) * math.exp(-((step * i) ** 2) / 2) for i in range(-12_000, 12_001))
    return step * density / math.sqrt(2 * math.pi)


def test_every_oracle_is_listed_under_its_name_and_cites_a_source() -> None:
    listed = o.UNGATED | o.GATED | o.REDUCING
    assert len(listed) == len(o.UNGATED) + len(o.GATED) + len(o.REDUCING)
    cited = {name: f for name, f in vars(o).items() if "Source: " in (getattr(f, "__doc__", None) or "")}
    assert listed == cited


# --- Identities

UNGATED_IDENTITIES: dict[str, tuple[Callable[[float], float], Callable[[float], float]]] = {
    "swish_beta(1) = swish": (o.swish_beta, o.swish),
    "swish_beta(1.702) = quick_gelu": (lambda h: o.swish_beta(h, beta=1.702), o.quick_gelu),
    "swish_beta(0) = h/2": (lambda h: o.swish_beta(h, beta=0.0), lambda h: h / 2),
    "swish_beta(∞) = relu": (lambda h: o.swish_beta(h, beta=HUGE), o.relu),
    "reglu(h, h) = relu2": (lambda h: o.reglu(h, h), o.relu2),
    "bilinear(h, h) = h²": (lambda h: o.bilinear(h, h), lambda h: h * h),
    "leaky_relu2(slope 0) = relu2": (lambda h: o.leaky_relu2(h, slope=0.0), o.relu2),
    "leaky_relu2(slope 1) = h²": (lambda h: o.leaky_relu2(h, slope=1.0), lambda h: h * h),
    "leaky_relu(slope 0) = relu": (lambda h: o.leaky_relu(h, slope=0.0), o.relu),
    "polyrelu(0, 1, 0, 0) = relu": (lambda h: o.polyrelu(h, a=(0.0, 1.0, 0.0, 0.0)), o.relu),
    "polyrelu(0, 0, 1, 0) = relu2": (lambda h: o.polyrelu(h, a=(0.0, 0.0, 1.0, 0.0)), o.relu2),
    "xielu(1, 0, β=0) = relu2": (lambda h: o.xielu(h, a_p=1.0, a_n=0.0, beta=0.0), o.relu2),
    "xiprelu(1, 0, β=0) = relu2": (lambda h: o.xiprelu(h, a_p=1.0, a_n=0.0, beta=0.0), o.relu2),
    "xgelu(0) = gelu": (o.xgelu, o.gelu),
    "xsilu(0) = swish": (o.xsilu, o.swish),
    "relu(h) - relu(-h) = h": (lambda h: o.relu(h) - o.relu(-h), lambda h: h),
    "gelu(h) - gelu(-h) = h": (lambda h: o.gelu(h) - o.gelu(-h), lambda h: h),
    "gelu_tanh(h) - gelu_tanh(-h) = h": (lambda h: o.gelu_tanh(h) - o.gelu_tanh(-h), lambda h: h),
    "swish(h) - swish(-h) = h": (lambda h: o.swish(h) - o.swish(-h), lambda h: h),
    "hardswish(h) - hardswish(-h) = h": (lambda h: o.hardswish(h) - o.hardswish(-h), lambda h: h),
    "softplus(h) - softplus(-h) = h": (lambda h: o.softplus(h) - o.softplus(-h), lambda h: h),
    "xatlu(h) - xatlu(-h) = h": (lambda h: o.xatlu(h) - o.xatlu(-h), lambda h: h),
    "sigmoid(h) + sigmoid(-h) = 1": (lambda h: o.sigmoid(h) + o.sigmoid(-h), lambda h: 1.0),
    "(1 + tanh(h/2))/2 + sigmoid(-h) = 1": (lambda h: (1 + o.tanh(h / 2)) / 2 + o.sigmoid(-h), lambda h: 1.0),
    "elu(h) = relu(h) + e^min(h, 0) - 1": (o.elu, lambda h: o.relu(h) + math.expm1(min(h, 0.0))),
}


@pytest.mark.parametrize("name", UNGATED_IDENTITIES)
def test_ungated_identities(name: str) -> None:
    left, right = UNGATED_IDENTITIES[name]
    for h in POINTS:
        assert same(left(h), right(h)), h


GATED_IDENTITIES: dict[str, tuple[Callable[[float, float], float], Callable[[float, float], float]]] = {
    "swiglu_oai(α=1, L=∞, offset=0) = swiglu": (
        lambda g, u: o.swiglu_oai(g, u, alpha=1.0, limit=INF, offset=0.0),
        o.swiglu,
    ),
    "swiglu_oai(L=∞, offset=0) = quick_geglu": (
        lambda g, u: o.swiglu_oai(g, u, limit=INF, offset=0.0),
        o.quick_geglu,
    ),
    "swiglu_clamp(L=∞) = swiglu": (lambda g, u: o.swiglu_clamp(g, u, limit=INF), o.swiglu),
    "swiglu_step(L=∞) = swiglu": (lambda g, u: o.swiglu_step(g, u, limit=INF), o.swiglu),
    "situ_glu(β=∞) = swiglu": (lambda g, u: o.situ_glu(g, u, beta1=HUGE, beta2=HUGE), o.swiglu),
    "swiglu_mult(1) = swiglu": (o.swiglu_mult, o.swiglu),
    "swiglu_mult(3) = 3·swiglu": (lambda g, u: o.swiglu_mult(g, u, m=3.0), lambda g, u: 3 * o.swiglu(g, u)),
    "glu(g, tanh(u)) = gtu": (lambda g, u: o.glu(g, o.tanh(u)), o.gtu),
    "reglu(g, relu(u)) = drelu": (lambda g, u: o.reglu(g, o.relu(u)), o.drelu),
    "swiglu(g, swish(u)) = double_swiglu": (lambda g, u: o.swiglu(g, o.swish(u)), o.double_swiglu),
    "fatreglu(t=0) = reglu": (lambda g, u: o.fatreglu(g, u, threshold=0.0), o.reglu),
    "xswiglu(0) = glu": (o.xswiglu, o.glu),
    "xswiglu(0), order 2 = swiglu": (lambda g, u: o.xswiglu(g, u, order=2), o.swiglu),
    "xgeglu(0), order 2 = geglu": (lambda g, u: o.xgeglu(g, u, order=2), o.geglu),
    "g·xgeglu(0) = geglu": (lambda g, u: g * o.xgeglu(g, u), o.geglu),
    "xatglu(g, g) = xatlu": (lambda g, u: o.xatglu(g, g), lambda g, u: o.xatlu(g)),
    "xatglu, order 2 = xatlu(g)·u": (lambda g, u: o.xatglu(g, u, order=2), lambda g, u: o.xatlu(g) * u),
}


@pytest.mark.parametrize("name", GATED_IDENTITIES)
def test_gated_identities(name: str) -> None:
    left, right = GATED_IDENTITIES[name]
    for g, u in PAIRS:
        assert same(left(g, u), right(g, u)), (g, u)


@pytest.mark.parametrize(
    ("gated", "gate"),
    [
        ("glu", "sigmoid"),
        ("reglu", "relu"),
        ("geglu", "gelu"),
        ("swiglu", "swish"),
        ("geglu_tanh", "gelu_tanh"),
        ("quick_geglu", "quick_gelu"),
        ("swiglu_beta", "swish_beta"),
        ("miglu", "mish"),
        ("softplus_glu", "softplus"),
        ("elu_glu", "elu"),
        ("tanh_glu", "tanh"),
        ("leaky_reglu", "leaky_relu"),
        ("hard_swiglu", "hardswish"),
        ("reglu2", "relu2"),
    ],
)
def test_a_gated_form_is_the_activation_of_its_gate_times_the_value(gated: str, gate: str) -> None:
    for g, u in PAIRS:
        assert same(o.GATED[gated](g, u), o.UNGATED[gate](g) * u), (g, u)


@pytest.mark.parametrize("gate", [o.xatglu, o.xgeglu, o.xswiglu])
def test_an_expanded_gate_runs_from_minus_a_to_one_plus_a_around_a_half(gate: Callable[..., float]) -> None:
    a = 0.3
    for g in POINTS:
        assert gate(g, 1.0, a=a) + gate(-g, 1.0, a=a) == pytest.approx(1, abs=1e-12)
        assert -a <= gate(g, 1.0, a=a) <= 1 + a
    # the arctan is 1/(πg) short of its end
    assert gate(1e12, 1.0, a=a) == pytest.approx(1 + a, abs=1e-11)
    assert gate(-1e12, 1.0, a=a) == pytest.approx(-a, abs=1e-11)


@pytest.mark.parametrize("oracle", [o.xatlu, o.xgelu, o.xsilu])
def test_an_expanded_activation_has_slope_one_half_at_zero_whatever_a(oracle: Callable[..., float]) -> None:
    for a in (0.0, 0.3, 2.0):
        assert oracle(1e-7, a=a) / 1e-7 == pytest.approx(0.5, abs=1e-6)
    # h·G(h) - h·g(h) = h·a·(2g(h) - 1): positive on both sides for positive a
    assert oracle(2.0, a=0.3) > oracle(2.0)
    assert oracle(-2.0, a=0.3) > oracle(-2.0)


# --- Formulas as printed, where plain arithmetic still holds

PRINTED: dict[str, Callable[[float], float]] = {
    "gelu": lambda h: 0.5 * h * (1 + math.erf(h / 2**0.5)),
    "swish": lambda h: h / (1 + math.exp(-h)),
    "gelu_tanh": lambda h: 0.5 * h * (1 + math.tanh(math.sqrt(2 / math.pi) * (h + 0.044715 * h**3))),
    "quick_gelu": lambda h: h / (1 + math.exp(-1.702 * h)),
    "mish": lambda h: h * math.tanh(math.log(1 + math.exp(h))),
    "softplus": lambda h: math.log(1 + math.exp(h)),
    "elu": lambda h: h if h > 0 else math.exp(h) - 1,
    "sigmoid": lambda h: 1 / (1 + math.exp(-h)),
    "tanh": lambda h: (math.exp(h) - math.exp(-h)) / (math.exp(h) + math.exp(-h)),
    "xatlu": lambda h: h * (math.atan(h) + math.pi / 2) / math.pi,
    "polyrelu": lambda h: (h + h**2 + h**3) / 3 if h > 0 else 0.0,
}


@pytest.mark.parametrize("name", PRINTED)
def test_stable_forms_equal_the_printed_ones(name: str) -> None:
    for i in range(-60, 61):
        h = i / 10
        assert o.UNGATED[name](h) == pytest.approx(PRINTED[name](h), rel=1e-9, abs=1e-12), h


# --- Known values

KNOWN: dict[str, tuple[float, float]] = {
    "gelu(1) = Φ(1)": (o.gelu(1.0), 0.8413447460685429),
    "gelu(-10) = -10·Φ(-10)": (o.gelu(-10.0), -7.619853024160526e-23),
    "leaky_relu(-1)": (o.leaky_relu(-1.0), -0.01),
    "leaky_relu2(-2)": (o.leaky_relu2(-2.0), 1.0),
    "leaky_relu2(3)": (o.leaky_relu2(3.0), 9.0),
    "hardswish(3)": (o.hardswish(3.0), 3.0),
    "hardswish(-3)": (o.hardswish(-3.0), 0.0),
    "hardswish(1)": (o.hardswish(1.0), 2 / 3),
    "hardswish(-1)": (o.hardswish(-1.0), -1 / 3),
    "hardswish(1e4)": (o.hardswish(1e4), 1e4),
    "selu(1)": (o.selu(1.0), 1.0507009873554805),
    "selu(-1e4) = -λα": (o.selu(-1e4), -1.7580993408473766),
    "polyrelu(2) = (2 + 4 + 8)/3": (o.polyrelu(2.0), 14 / 3),
    "polyrelu(-2)": (o.polyrelu(-2.0), 0.0),
    "xielu(1) = 0.8 + 0.5": (o.xielu(1.0), 1.3),
    "xielu(-1) = 0.8/e - 0.5": (o.xielu(-1.0), 0.8 / math.e - 0.5),
    "xielu(0), the step of ε": (o.xielu(0.0), 0.8 * math.expm1(-1e-6)),
    "xiprelu(1)": (o.xiprelu(1.0), 1.3),
    "xiprelu(-1)": (o.xiprelu(-1.0), 0.3),
    "fatreglu at its threshold": (o.fatreglu(0.03, 5.0), 0.0),
    "fatreglu below": (o.fatreglu(0.029, 5.0), 0.0),
    "fatreglu above: no shift": (o.fatreglu(0.031, 5.0), 0.155),
    "gtu saturated": (o.gtu(1e4, -1e4), -1.0),
    "bilinear": (o.bilinear(-3.0, 7.0), -21.0),
    "drelu of two negatives": (o.drelu(-3.0, -7.0), 0.0),
    "swiglu_oai clamps the gate above": (o.swiglu_oai(1e4, 0.0), 7 / (1 + math.exp(-1.702 * 7))),
    "swiglu_oai clamps the value, then adds 1": (o.swiglu_oai(7.0, 1e4) / o.swiglu_oai(7.0, 0.0), 8.0),
    "swiglu_oai clamps the value below": (o.swiglu_oai(7.0, -1e4) / o.swiglu_oai(7.0, 0.0), -6.0),
    "swiglu_oai leaves the gate alone below": (o.swiglu_oai(-20.0, 0.0), -20 / (1 + math.exp(34.04))),
    "swiglu_clamp at both limits": (o.swiglu_clamp(1e4, 1e4), 100 / (1 + math.exp(-10))),
    "swiglu_clamp of a value from below": (o.swiglu_clamp(1e4, -1e4), -100 / (1 + math.exp(-10))),
    "swiglu_clamp leaves the gate alone below": (o.swiglu_clamp(-20.0, 1.0), -20 / (1 + math.exp(20))),
    "swiglu_step at both limits": (o.swiglu_step(1e4, 1e4), 49.0),
    "swiglu_step of a value from below": (o.swiglu_step(1e4, -1e4), -49.0),
    "swiglu_step clamps after the SiLU": (o.swiglu_step(7.0, 1.0), 7 / (1 + math.exp(-7))),
    "situ_glu saturated": (o.situ_glu(1e4, -1e4), -100.0),
    "situ_glu at its betas": (o.situ_glu(4.0, 25.0), 100 * math.tanh(1) ** 2 / (1 + math.exp(-4))),
    "xatglu(1, 1) = 1/4 + 1/2": (o.xatglu(1.0, 1.0), 0.75),
    "xgeglu(1, 2) = 2·Φ(1)": (o.xgeglu(1.0, 2.0), 2 * 0.8413447460685429),
}


@pytest.mark.parametrize("name", KNOWN)
def test_known_values(name: str) -> None:
    value, expected = KNOWN[name]
    assert value == pytest.approx(expected, rel=1e-13, abs=0)


def test_the_minimum_of_swish_solves_its_equation() -> None:
    # slope σ(h)·(1 + h·σ(-h)) = 0 at h = -(1 + w), where the value is -w and w·e^w = 1/e (Lambert)
    low, high = -2.0, -1.0
    for _ in range(60):
        third = (high - low) / 3
        left, right = low + third, high - third
        low, high = (low, right) if o.swish(left) < o.swish(right) else (left, high)
    w = -o.swish(low)
    assert w == pytest.approx(0.27846, abs=1e-5)
    assert w * math.exp(w) == pytest.approx(1 / math.e, abs=1e-12)
    assert low == pytest.approx(-(1 + w), abs=1e-6)


@pytest.mark.parametrize("oracle", [o.xielu, o.xiprelu])
def test_slopes_approach_beta_on_both_sides_of_zero(oracle: Callable[..., float]) -> None:
    for beta in (0.5, 0.9):
        for h in (1e-4, -1e-4):  # outside (ε, 0]
            slope = (oracle(h + 1e-7, beta=beta) - oracle(h - 1e-7, beta=beta)) / 2e-7
            assert slope == pytest.approx(beta, abs=2e-4)
            assert slope != pytest.approx(beta, abs=2e-5)


def test_sigmoid_is_the_slope_of_softplus() -> None:
    for i in range(-40, 41):
        h = i / 4
        slope = (o.softplus(h + 1e-5) - o.softplus(h - 1e-5)) / 2e-5
        assert o.sigmoid(h) == pytest.approx(slope, abs=1e-9)


# --- Integrals under N(0, 1)


@pytest.mark.parametrize(
    ("name", "second_moment", "tolerance"),
    [
        ("relu", 1 / 2, 1e-6),
        ("relu2", 3 / 2, 1e-6),
        # by Stein's lemma on z²·Φ(z)²
        ("gelu", 1 / 3 + 1 / (2 * math.pi * math.sqrt(3)), 1e-12),
        ("gelu", 0.425, 5e-4),
        ("swish", 0.356, 5e-4),
        ("sigmoid", 0.293, 5e-4),
        ("selu", 1.0, 1e-6),
    ],
)
def test_second_moments_under_the_normal(name: str, second_moment: float, tolerance: float) -> None:
    activation = o.UNGATED[name]
    assert normal_mean(lambda z: activation(z) ** 2) == pytest.approx(second_moment, abs=tolerance)


def test_the_mean_of_selu_under_the_normal_is_zero() -> None:
    assert normal_mean(o.selu) == pytest.approx(0, abs=1e-6)


# --- Tails


def test_every_oracle_is_finite_from_minus_1e4_to_1e4() -> None:
    for name, activation in o.UNGATED.items():
        assert all(math.isfinite(activation(h)) for h in POINTS), name
    for name, hidden in o.GATED.items():
        assert all(math.isfinite(hidden(g, u)) for g, u in PAIRS), name
    for width in (list(POINTS), [1e4] * 4, [-1e4] * 4, [0.0] * 4, [1e4]):
        assert all(map(math.isfinite, o.polynorm(width)))
        assert all(map(math.isfinite, o.solu(width)))
        assert all(map(math.isfinite, o.reglu2_norm(width, width[::-1])))


def test_left_tails_keep_their_digits() -> None:
    for h in (-6.0, -12.0, -30.0):
        density = math.exp(-h * h / 2) / math.sqrt(2 * math.pi)
        # Mills: the tail of Φ lies between φ/|h|·(1 - 1/h²) and φ/|h|
        assert density * (1 - 1 / h**2) < -o.gelu(h) < density
    for h in (-40.0, -300.0, -600.0):
        assert same(o.sigmoid(h), math.exp(h))
        assert same(o.softplus(h), math.exp(h))
        assert same(o.swish(h), h * math.exp(h))
        assert same(o.mish(h), h * math.exp(h))
        assert same(o.xsilu(h), h * math.exp(h))
    assert same(o.quick_gelu(-300.0), -300 * math.exp(-1.702 * 300))
    assert same(o.gelu_tanh(-12.0), -12 * math.exp(-2 * math.sqrt(2 / math.pi) * (12 + 0.044715 * 12**3)))
    # arctan(h)/π + 1/2 = (1 - 1/(3h²) + …)/(π|h|)
    assert same(o.xatlu(-1e4), -(1 - 1e-8 / 3) / math.pi, rel=1e-15)
    assert o.gelu(-1e4) == o.swish(-1e4) == o.mish(-1e4) == 0
    assert same(o.elu(-1e-9), -1e-9 + 5e-19, rel=1e-15)


# --- Reducing oracles


def test_polynorm_of_two() -> None:
    h = [1.0, -2.0]
    # mean squares of (1, -8), (1, 4), (1, -2)
    thirds = [math.sqrt(65 / 2), math.sqrt(17 / 2), math.sqrt(5 / 2)]
    expected = [sum(x**p / s for p, s in zip((3, 2, 1), thirds, strict=True)) / 3 for x in h]
    assert o.polynorm(h) == pytest.approx(expected, rel=1e-6)
    assert o.polynorm(h, w=(1.0, 0.0, 0.0), eps=0.0) == pytest.approx([1 / thirds[0], -8 / thirds[0]])
    assert o.polynorm(h, w=(0.0, 0.0, 0.0), b=0.25) == [0.25, 0.25]


def test_polynorm_forgets_the_scale_but_for_eps() -> None:
    h = [0.3, -1.2, 2.5, 0.9]
    assert o.polynorm([1e3 * x for x in h]) == pytest.approx(o.polynorm(h), rel=1e-5)
    # ε stands beside the mean square, 1e-6 here, inside the root
    assert o.polynorm([1e-3] * 3, w=(0.0, 0.0, 1.0)) == pytest.approx([math.sqrt(0.5)] * 3)


def test_solu_of_two() -> None:
    # softmax(0, ln 3) = (1/4, 3/4): the product is (0, 3/4·ln 3), and its mean stands half way
    half = 0.375 * math.log(3)
    unit = half / math.sqrt(half**2 + 1e-5)
    assert o.solu([0.0, math.log(3)]) == pytest.approx([-unit, unit], rel=1e-12)
    assert o.solu([1e4, 0.0]) == pytest.approx([1, -1], rel=1e-6)


def test_solu_is_centred_and_of_unit_variance_but_for_eps() -> None:
    h = [0.3, -1.2, 2.5, 0.9, -4.0]
    hidden = o.solu(h)
    assert math.fsum(hidden) == pytest.approx(0, abs=1e-12)
    assert math.fsum(x * x for x in o.solu(h, eps=0.0)) == pytest.approx(5)
    assert o.solu(h[::-1]) == pytest.approx(hidden[::-1], rel=1e-12)


def test_reglu2_norm_of_two() -> None:
    # hidden (4·3, 0): mean square 72
    assert o.reglu2_norm([2.0, -1.0], [3.0, 5.0]) == pytest.approx([12 / math.sqrt(72), 0.0], rel=1e-6)
    # ε beside a mean square of 1e-5, inside the root
    tiny = 1e-5**0.5
    assert o.reglu2_norm([1.0, 1.0], [tiny, -tiny]) == pytest.approx([math.sqrt(0.5), -math.sqrt(0.5)])
    assert o.reglu2_norm([0.0, -1.0], [3.0, 5.0]) == [0.0, 0.0]
