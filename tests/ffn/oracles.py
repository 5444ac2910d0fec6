"""Every variant written out from its formula, in plain Python floats: the outside witness of the package.

Nothing of the package is imported here, nor torch. Learned parameters stand at their initial values; they
and the constants are keywords, so that one oracle can be turned into another (an identity). All are good from
-1e4 to 1e4, tails included: no overflow, and no subtraction that eats the digits of a small result.

g = x·W_gate, u = x·W_up (gated), h = x·W_up (ungated), one entry of the width F each; the reducing oracles
take a token's whole width as a list. σ is the logistic function, Φ the normal distribution function.
"""

from __future__ import annotations

import math
from collections.abc import Callable

# --- What the formulas are made of


def logistic(x: float) -> float:
    """σ(x), with the exponential of a negative number only."""
    e = math.exp(-abs(x))
    return 1 / (1 + e) if x >= 0 else e / (1 + e)


def normal_cdf(x: float) -> float:
    """Φ(x); erfc keeps the digits of the left tail, where 1 + erf has none."""
    return 0.5 * math.erfc(-x / math.sqrt(2))


def arctan_gate(x: float) -> float:
    """arctan(x)/π + 1/2, as an angle over π: the sum loses the digits of its left tail."""
    return math.atan2(1, -x) / math.pi


def clip(x: float, low: float, high: float) -> float:
    return min(max(x, low), high)


def mean(values: list[float]) -> float:
    return math.fsum(values) / len(values)


def rms_normalised(values: list[float], *, eps: float) -> list[float]:
    """v / √(mean v² + eps), no gain."""
    scale = math.sqrt(mean([v * v for v in values]) + eps)
    return [v / scale for v in values]


# --- Ungated: hidden = activation(h)


def relu(h: float) -> float:
    """max(0, h).

    Source: Vaswani 2017, arXiv 1706.03762.
    """
    return h if h > 0 else 0.0


def gelu(h: float) -> float:
    """h·Φ(h), exact.

    Source: Hendrycks and Gimpel 2016, arXiv 1606.08415.
    """
    return h * normal_cdf(h)


def swish(h: float) -> float:
    """h·σ(h), the SiLU.

    Source: Ramachandran 2017, arXiv 1710.05941; Elfwing 2017, arXiv 1702.03118.
    """
    return h * logistic(h)


def gelu_tanh(h: float) -> float:
    """h·(1 + tanh z)/2 with z = √(2/π)·(h + 0.044715·h³), written as h·σ(2z), which keeps the left tail.

    Source: Hendrycks and Gimpel 2016, arXiv 1606.08415.
    """
    return h * logistic(2 * math.sqrt(2 / math.pi) * (h + 0.044715 * h**3))


def quick_gelu(h: float) -> float:
    """h·σ(1.702·h).

    Source: Hendrycks and Gimpel 2016, arXiv 1606.08415.
    """
    return h * logistic(1.702 * h)


def swish_beta(h: float, *, beta: float = 1.0) -> float:
    """h·σ(β·h), β learned, one a layer.

    Source: Ramachandran 2017, arXiv 1710.05941.
    """
    return h * logistic(beta * h)


def softplus(h: float) -> float:
    """log(1 + e^h).

    Source: Dugas 2001; in feed-forward layers Narang 2021, arXiv 2102.11972.
    """
    return max(h, 0.0) + math.log1p(math.exp(-abs(h)))


def mish(h: float) -> float:
    """h·tanh(softplus(h)).

    Source: Misra 2019, arXiv 1908.08681.
    """
    return h * math.tanh(softplus(h))


def elu(h: float) -> float:
    """h where positive, e^h - 1 elsewhere.

    Source: Clevert 2015, arXiv 1511.07289.
    """
    return h if h > 0 else math.expm1(h)


def selu(h: float) -> float:
    """λ·h where positive, λ·α·(e^h - 1) elsewhere; α and λ make mean 0 and variance 1 a fixed point.

    Source: Klambauer 2017, arXiv 1706.02515.
    """
    alpha, scale = 1.6732632423543772848170429916717, 1.0507009873554804934193349852946
    return scale * (h if h > 0 else alpha * math.expm1(h))


def sigmoid(h: float) -> float:
    """σ(h).

    Source: Narang 2021, arXiv 2102.11972.
    """
    return logistic(h)


def tanh(h: float) -> float:
    """tanh(h).

    Source: Narang 2021, arXiv 2102.11972.
    """
    return math.tanh(h)


def leaky_relu(h: float, *, slope: float = 0.01) -> float:
    """h where positive, slope·h elsewhere.

    Source: Maas 2013.
    """
    return h if h > 0 else slope * h


def hardswish(h: float) -> float:
    """h·min(max(h + 3, 0), 6)/6.

    Source: MobileNetV3, Howard 2019, arXiv 1905.02244.
    """
    return h * clip(h + 3, 0.0, 6.0) / 6


def relu2(h: float) -> float:
    """max(0, h)².

    Source: Primer, So 2021, arXiv 2109.08668.
    """
    return relu(h) ** 2


def leaky_relu2(h: float, *, slope: float = 0.5) -> float:
    """The leaky ReLU squared: h² where positive, slope²·h² elsewhere.

    Source: github.com/openai/parameter-golf.
    """
    return leaky_relu(h, slope=slope) ** 2


def polyrelu(h: float, *, a: tuple[float, float, float, float] = (0.0, 1 / 3, 1 / 3, 1 / 3)) -> float:
    """a₀ + a₁r + a₂r² + a₃r³ with r = max(0, h); all four learned, one set a layer.

    Source: PolyCom, Zhuo 2024, arXiv 2411.03884; initial values from github.com/BryceZhuo/PolyCom.
    """
    r = relu(h)
    return a[0] + a[1] * r + a[2] * r**2 + a[3] * r**3


def xielu(h: float, *, a_p: float = 0.8, a_n: float = 0.8, beta: float = 0.5, eps: float = -1e-6) -> float:
    """a_p·h² + β·h where positive, a_n·(e^min(h, ε) - 1 - h) + β·h elsewhere.

    a_p = softplus(p) and a_n = β + softplus(n) are learned, one each a layer; β and ε are constants.
    The ε leaves a step of a_n·ε at 0.
    Source: Huang and Schlag 2024, arXiv 2411.13010; github.com/Anonymous5823/xielu.
    """
    if h > 0:
        return a_p * h * h + beta * h
    return a_n * (math.expm1(min(h, eps)) - h) + beta * h


def xiprelu(h: float, *, a_p: float = 0.8, a_n: float = 0.8, beta: float = 0.5) -> float:
    """a_p·h² + β·h where positive, a_n·h² + β·h elsewhere; here a_n = softplus(n), with no β added.

    Source: Huang and Schlag 2024, arXiv 2411.13010; github.com/Anonymous5823/xielu.
    """
    return (a_p if h > 0 else a_n) * h * h + beta * h


def expanded(gate: float, a: float) -> float:
    """A gate of range (0, 1) stretched to (-a, 1 + a)."""
    return gate * (1 + 2 * a) - a


def xatlu(h: float, *, a: float = 0.0) -> float:
    """h times the expanded arctan gate; a learned, one a layer.

    Source: Huang 2024, arXiv 2405.20768; github.com/AllenHaoHuang/x-activation.
    """
    return h * expanded(arctan_gate(h), a)


def xgelu(h: float, *, a: float = 0.0) -> float:
    """h times the expanded Φ; a learned, one a layer.

    Source: Huang 2024, arXiv 2405.20768; github.com/AllenHaoHuang/x-activation.
    """
    return h * expanded(normal_cdf(h), a)


def xsilu(h: float, *, a: float = 0.0) -> float:
    """h times the expanded σ; a learned, one a layer.

    Source: Huang 2024, arXiv 2405.20768; github.com/AllenHaoHuang/x-activation.
    """
    return h * expanded(logistic(h), a)


# --- Gated: hidden = gate(g)·value(u)


def glu(g: float, u: float) -> float:
    """σ(g)·u.

    Source: Dauphin 2017, arXiv 1612.08083.
    """
    return logistic(g) * u


def bilinear(g: float, u: float) -> float:
    """g·u.

    Source: Dauphin 2017, arXiv 1612.08083.
    """
    return g * u


def reglu(g: float, u: float) -> float:
    """max(0, g)·u.

    Source: Shazeer 2020, arXiv 2002.05202.
    """
    return relu(g) * u


def geglu(g: float, u: float) -> float:
    """GELU(g)·u, exact.

    Source: Shazeer 2020, arXiv 2002.05202.
    """
    return gelu(g) * u


def swiglu(g: float, u: float) -> float:
    """SiLU(g)·u.

    Source: Shazeer 2020, arXiv 2002.05202.
    """
    return swish(g) * u


def geglu_tanh(g: float, u: float) -> float:
    """The tanh form of GELU(g)·u.

    Source: T5 v1.1, after Raffel 2019, arXiv 1910.10683; Gemma, arXiv 2403.08295.
    """
    return gelu_tanh(g) * u


def quick_geglu(g: float, u: float) -> float:
    """g·σ(1.702·g)·u.

    Source: Hendrycks and Gimpel 2016, arXiv 1606.08415; gated as in Shazeer 2020, arXiv 2002.05202.
    """
    return quick_gelu(g) * u


def swiglu_beta(g: float, u: float, *, beta: float = 1.0) -> float:
    """g·σ(β·g)·u, β learned, one a layer.

    Source: Shazeer 2020, arXiv 2002.05202.
    """
    return swish_beta(g, beta=beta) * u


def miglu(g: float, u: float) -> float:
    """Mish(g)·u.

    Source: Misra 2019, arXiv 1908.08681; gated as in Shazeer 2020, arXiv 2002.05202.
    """
    return mish(g) * u


def softplus_glu(g: float, u: float) -> float:
    """softplus(g)·u.

    Source: the gate of Shazeer 2020, arXiv 2002.05202, with another function.
    """
    return softplus(g) * u


def elu_glu(g: float, u: float) -> float:
    """ELU(g)·u.

    Source: the gate of Shazeer 2020, arXiv 2002.05202, with another function.
    """
    return elu(g) * u


def tanh_glu(g: float, u: float) -> float:
    """tanh(g)·u.

    Source: the gate of Shazeer 2020, arXiv 2002.05202, with another function.
    """
    return math.tanh(g) * u


def leaky_reglu(g: float, u: float, *, slope: float = 0.01) -> float:
    """leaky_relu(g)·u.

    Source: the gate of Shazeer 2020, arXiv 2002.05202, with another function.
    """
    return leaky_relu(g, slope=slope) * u


def hard_swiglu(g: float, u: float) -> float:
    """hardswish(g)·u.

    Source: the gate of Shazeer 2020, arXiv 2002.05202, with that of arXiv 1905.02244.
    """
    return hardswish(g) * u


def reglu2(g: float, u: float) -> float:
    """max(0, g)²·u.

    Source: BitNet b1.58 2B4T, arXiv 2504.12285.
    """
    return relu2(g) * u


def drelu(g: float, u: float) -> float:
    """max(0, g)·max(0, u).

    Source: Turbo Sparse, Song 2024, arXiv 2406.05955.
    """
    return relu(g) * relu(u)


def double_swiglu(g: float, u: float) -> float:
    """SiLU(g)·SiLU(u).

    Source: github.com/marin-community/marin, issue 5460.
    """
    return swish(g) * swish(u)


def fatreglu(g: float, u: float, *, threshold: float = 0.03) -> float:
    """g·u where g is above the threshold, 0 elsewhere and at it (the paper keeps g at it, vLLM does not).

    Source: ProSparse, Song 2024, arXiv 2402.13516; 0.03 from openbmb/MiniCPM-S-1B-sft; vLLM's FatreluAndMul.
    """
    return g * u if g > threshold else 0.0


def gtu(g: float, u: float) -> float:
    """σ(g)·tanh(u).

    Source: Dauphin 2017, arXiv 1612.08083.
    """
    return logistic(g) * math.tanh(u)


def swiglu_oai(g: float, u: float, *, alpha: float = 1.702, limit: float = 7.0, offset: float = 1.0) -> float:
    """g'·σ(α·g')·(u' + 1): g' is g clamped from above, u' is u clamped on both sides.

    Source: gpt-oss, arXiv 2508.10925; transformers' models/gpt_oss.
    """
    clamped = min(g, limit)
    return clamped * logistic(alpha * clamped) * (clip(u, -limit, limit) + offset)


def swiglu_clamp(g: float, u: float, *, limit: float = 10.0) -> float:
    """SiLU(min(g, L))·clip(u): the gate is clamped from above only, before the SiLU.

    Source: DeepSeek-V4; transformers' models/deepseek_v4.
    """
    return swish(min(g, limit)) * clip(u, -limit, limit)


def swiglu_step(g: float, u: float, *, limit: float = 7.0) -> float:
    """min(SiLU(g), L)·clip(u): the gate is clamped after the SiLU.

    Source: Step-3.5, arXiv 2602.10604; vLLM's SwigluStepAndMul.
    """
    return min(swish(g), limit) * clip(u, -limit, limit)


def situ_glu(g: float, u: float, *, beta1: float = 4.0, beta2: float = 25.0) -> float:
    """β₁·tanh(g/β₁)·σ(g) · β₂·tanh(u/β₂).

    Source: Kimi K3 technical report, equation 12; github.com/NVIDIA/TransformerEngine, pull request 3402.
    """
    return beta1 * math.tanh(g / beta1) * logistic(g) * beta2 * math.tanh(u / beta2)


def swiglu_mult(g: float, u: float, *, m: float = 1.0) -> float:
    """SiLU(g)·u·m, with a learned m for each of the F neurons.

    Source: github.com/lucidrains/x-transformers, ff_glu_mult_bias.
    """
    return swish(g) * u * m


def xatglu(g: float, u: float, *, a: float = 0.0, order: int = 1) -> float:
    """The expanded arctan gate of g, times u; order 2 multiplies by g too. The paper's is order 1.

    Source: Huang 2024, arXiv 2405.20768; github.com/AllenHaoHuang/x-activation.
    """
    return expanded(arctan_gate(g), a) * g ** (order - 1) * u


def xgeglu(g: float, u: float, *, a: float = 0.0, order: int = 1) -> float:
    """The expanded Φ of g, times u; order 2 multiplies by g too. The paper's is order 1.

    Source: Huang 2024, arXiv 2405.20768; github.com/AllenHaoHuang/x-activation.
    """
    return expanded(normal_cdf(g), a) * g ** (order - 1) * u


def xswiglu(g: float, u: float, *, a: float = 0.0, order: int = 1) -> float:
    """The expanded σ of g, times u; order 2 multiplies by g too. The paper's is order 1.

    Source: Huang 2024, arXiv 2405.20768; github.com/AllenHaoHuang/x-activation.
    """
    return expanded(logistic(g), a) * g ** (order - 1) * u


# --- Reducing: a token's whole width at once


def polynorm(
    h: list[float],
    *,
    w: tuple[float, float, float] = (1 / 3, 1 / 3, 1 / 3),
    b: float = 0.0,
    eps: float = 1e-6,
) -> list[float]:
    """w₀·N(h³) + w₁·N(h²) + w₂·N(h) + b with N(v) = v/√(mean v² + ε); w and the scalar b learned.

    Source: PolyCom, Zhuo 2024, arXiv 2411.03884; initial values from github.com/BryceZhuo/PolyCom.
    """
    cubes, squares, firsts = (rms_normalised([x**power for x in h], eps=eps) for power in (3, 2, 1))
    return [w[0] * c + w[1] * s + w[2] * x + b for c, s, x in zip(cubes, squares, firsts, strict=True)]


def solu(h: list[float], *, eps: float = 1e-5) -> list[float]:
    """LayerNorm(h·softmax(h)), the LayerNorm at gain 1 and bias 0, both learned and of length F.

    Source: Elhage 2022, transformer-circuits.pub/2022/solu; eps from TransformerLens' solu_ln.
    """
    top = max(h)
    exponentials = [math.exp(x - top) for x in h]
    total = math.fsum(exponentials)
    values = [x * e / total for x, e in zip(h, exponentials, strict=True)]
    centre = mean(values)
    return rms_normalised([v - centre for v in values], eps=eps)


def reglu2_norm(g: list[float], u: list[float], *, eps: float = 1e-5) -> list[float]:
    """RMSNorm(max(0, g)²·u) at gain 1; the gain is learned and of length F.

    Source: BitNet b1.58 2B4T, arXiv 2504.12285, ffn_sub_norm; eps from transformers' models/bitnet.
    """
    return rms_normalised([reglu2(gate, up) for gate, up in zip(g, u, strict=True)], eps=eps)


UNGATED: dict[str, Callable[[float], float]] = {
    "relu": relu,
    "gelu": gelu,
    "swish": swish,
    "gelu_tanh": gelu_tanh,
    "quick_gelu": quick_gelu,
    "swish_beta": swish_beta,
    "mish": mish,
    "softplus": softplus,
    "elu": elu,
    "selu": selu,
    "sigmoid": sigmoid,
    "tanh": tanh,
    "leaky_relu": leaky_relu,
    "hardswish": hardswish,
    "relu2": relu2,
    "leaky_relu2": leaky_relu2,
    "polyrelu": polyrelu,
    "xielu": xielu,
    "xiprelu": xiprelu,
    "xatlu": xatlu,
    "xgelu": xgelu,
    "xsilu": xsilu,
}

GATED: dict[str, Callable[[float, float], float]] = {
    "glu": glu,
    "bilinear": bilinear,
    "reglu": reglu,
    "geglu": geglu,
    "swiglu": swiglu,
    "geglu_tanh": geglu_tanh,
    "quick_geglu": quick_geglu,
    "swiglu_beta": swiglu_beta,
    "miglu": miglu,
    "softplus_glu": softplus_glu,
    "elu_glu": elu_glu,
    "tanh_glu": tanh_glu,
    "leaky_reglu": leaky_reglu,
    "hard_swiglu": hard_swiglu,
    "reglu2": reglu2,
    "drelu": drelu,
    "double_swiglu": double_swiglu,
    "fatreglu": fatreglu,
    "gtu": gtu,
    "swiglu_oai": swiglu_oai,
    "swiglu_clamp": swiglu_clamp,
    "swiglu_step": swiglu_step,
    "situ_glu": situ_glu,
    "swiglu_mult": swiglu_mult,
    "xatglu": xatglu,
    "xgeglu": xgeglu,
    "xswiglu": xswiglu,
}

REDUCING: dict[str, Callable[..., list[float]]] = {
    "polynorm": polynorm,
    "solu": solu,
    "reglu2_norm": reglu2_norm,
}
