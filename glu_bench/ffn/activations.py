"""The table of functions that variants are made of; they keep shape and dtype.

A new function is one entry here; a new variant made of these is one file under
configs/variant/. What follows the `*` are a function's constants, which that file gives under
the same names and may train: then they come as tensors that broadcast.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from glu_bench.errors import ConfigError, suggest

Activation = Callable[..., Tensor]
Number = float | Tensor


@dataclass(frozen=True, kw_only=True)
class Function:
    """An entry of the table, as a variant's author needs to know it."""

    name: str
    meaning: str  # in a line
    constants: dict[str, float | None]  # by name; None: there is no default, the variant gives it
    reduces: bool  # reads the whole width, not each number alone


def identity(x: Tensor) -> Tensor:
    """x itself: the gate of the bilinear unit."""
    return x


def gelu(x: Tensor) -> Tensor:
    """x times the standard normal CDF, by erf, not by tanh. Source: arXiv 1606.08415."""
    return F.gelu(x, approximate="none")


def gelu_tanh(x: Tensor) -> Tensor:
    """0.5 x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))). Source: arXiv 1606.08415."""
    return F.gelu(x, approximate="tanh")


def swish(x: Tensor, *, beta: Number) -> Tensor:
    """x times the logistic function of beta x. Source: arXiv 1710.05941."""
    return x * torch.sigmoid(beta * x)


def softplus(x: Tensor) -> Tensor:
    """ln(1 + e^x)."""
    # above 40, where torch returns x itself, e^-40 is below the last bit of an fp64 x
    return F.softplus(x, threshold=40.0)


def elu(x: Tensor, *, alpha: Number) -> Tensor:
    """x above 0, alpha (e^x - 1) below. Source: arXiv 1511.07289."""
    return torch.where(x > 0, x, alpha * torch.expm1(x.clamp(max=0)))


def leaky_relu(x: Tensor, *, slope: Number) -> Tensor:
    """x above 0, slope x below."""
    return torch.where(x > 0, x, slope * x)


def leaky_relu2(x: Tensor, *, slope: Number) -> Tensor:
    """The square of leaky_relu."""
    return leaky_relu(x, slope=slope).square()


def relu2(x: Tensor) -> Tensor:
    """max(0, x)^2. Source: arXiv 2109.08668."""
    return F.relu(x).square()


def threshold(x: Tensor, *, t: Number) -> Tensor:
    """x above t, 0 elsewhere. Source: FATReLU, arXiv 2402.13516."""
    return torch.where(x > t, x, torch.zeros_like(x))


def polyrelu(x: Tensor, *, a0: Number, a1: Number, a2: Number, a3: Number) -> Tensor:
    """a0 + a1 r + a2 r^2 + a3 r^3 with r = max(0, x). Source: PolyCom, arXiv 2411.03884."""
    r = F.relu(x)
    return a0 + r * (a1 + r * (a2 + r * a3))


def polynorm(x: Tensor, *, w1: Number, w2: Number, w3: Number, b: Number, eps: Number) -> Tensor:
    """w1 N(x) + w2 N(x^2) + w3 N(x^3) + b, N(v) = v / sqrt(mean v^2 + eps). Source: arXiv 2411.03884."""
    wide = x.to(torch.promote_types(x.dtype, torch.float32))

    def normed(v: Tensor) -> Tensor:
        return v * torch.rsqrt(v.square().mean(-1, keepdim=True) + eps)

    return (w1 * normed(wide) + w2 * normed(wide.square()) + w3 * normed(wide**3) + b).to(x.dtype)


def xielu(x: Tensor, *, p: Number, n: Number, beta: Number, eps: Number) -> Tensor:
    """a_p x^2 + beta x above 0, a_n (e^min(x, eps) - 1 - x) + beta x below.

    a_p = softplus(p), a_n = beta + softplus(n). Source: arXiv 2411.13010.
    """
    a_p, a_n = _softplus_of(p, x), beta + _softplus_of(n, x)
    below = a_n * (torch.expm1(x.clamp(max=eps)) - x)
    return torch.where(x > 0, a_p * x.square(), below) + beta * x


def xiprelu(x: Tensor, *, p: Number, n: Number, beta: Number) -> Tensor:
    """a_p x^2 + beta x above 0, a_n x^2 + beta x below; a_p = softplus(p), a_n = softplus(n).

    Source: arXiv 2411.13010 and its authors' code.
    """
    a_p, a_n = _softplus_of(p, x), _softplus_of(n, x)
    return torch.where(x > 0, a_p, a_n) * x.square() + beta * x


def solu(x: Tensor) -> Tensor:
    """x times softmax(x) over the width. Source: Elhage et al. 2022, Softmax Linear Units."""
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    return (wide * torch.softmax(wide, dim=-1)).to(x.dtype)


def bounded(x: Tensor, *, beta: Number) -> Tensor:
    """beta tanh(x / beta): x near 0, never beyond plus and minus beta."""
    return beta * torch.tanh(x / beta)


def bounded_silu(x: Tensor, *, beta: Number) -> Tensor:
    """beta tanh(x / beta) times the logistic function of x."""
    return bounded(x, beta=beta) * torch.sigmoid(x)


def expanded_arctan(x: Tensor, *, a: Number) -> Tensor:
    """arctan(x)/pi + 1/2, its range widened from (0, 1) to (-a, 1 + a). Source: arXiv 2405.20768."""
    return _expand(torch.arctan(x) / math.pi + 0.5, a)


def expanded_normal_cdf(x: Tensor, *, a: Number) -> Tensor:
    """The standard normal CDF, its range widened to (-a, 1 + a). Source: arXiv 2405.20768."""
    return _expand(0.5 * torch.special.erfc(x * -(0.5**0.5)), a)


def expanded_sigmoid(x: Tensor, *, a: Number) -> Tensor:
    """The logistic function, its range widened to (-a, 1 + a). Source: arXiv 2405.20768."""
    return _expand(torch.sigmoid(x), a)


def xatlu(x: Tensor, *, a: Number) -> Tensor:
    """x times expanded_arctan(x)."""
    return x * expanded_arctan(x, a=a)


def xgelu(x: Tensor, *, a: Number) -> Tensor:
    """x times expanded_normal_cdf(x)."""
    return x * expanded_normal_cdf(x, a=a)


def xsilu(x: Tensor, *, a: Number) -> Tensor:
    """x times expanded_sigmoid(x)."""
    return x * expanded_sigmoid(x, a=a)


ACTIVATIONS: dict[str, Activation] = {
    "identity": identity,
    "relu": F.relu,
    "gelu": gelu,
    "gelu_tanh": gelu_tanh,
    "silu": F.silu,
    "swish": swish,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "mish": F.mish,
    "softplus": softplus,
    "elu": elu,
    "selu": F.selu,
    "leaky_relu": leaky_relu,
    "hardswish": F.hardswish,
    "relu2": relu2,
    "leaky_relu2": leaky_relu2,
    "threshold": threshold,
    "polyrelu": polyrelu,
    "polynorm": polynorm,
    "xielu": xielu,
    "xiprelu": xiprelu,
    "solu": solu,
    "bounded": bounded,
    "bounded_silu": bounded_silu,
    "expanded_arctan": expanded_arctan,
    "expanded_normal_cdf": expanded_normal_cdf,
    "expanded_sigmoid": expanded_sigmoid,
    "xatlu": xatlu,
    "xgelu": xgelu,
    "xsilu": xsilu,
}

# what torch's own functions are, whose documentation is written for another page
TORCH_MEANINGS = {
    "relu": "max(0, x).",
    "silu": "x times the logistic function of x.",
    "sigmoid": "The logistic function, 1 / (1 + e^-x).",
    "tanh": "The hyperbolic tangent of x.",
    "mish": "x tanh(ln(1 + e^x)). Source: arXiv 1908.08681.",
    "selu": "1.0507 x above 0, 1.7581 (e^x - 1) below. Source: arXiv 1706.02515.",
    "hardswish": "x min(max(x + 3, 0), 6) / 6. Source: arXiv 1905.02244.",
}

# these read the whole width; all others each number alone
REDUCING = {"polynorm", "solu"}


def find_activation(name: str) -> Activation:
    """The function of that name.

    Raises: ConfigError with the nearest known name.
    """
    if name not in ACTIVATIONS:
        known = ", ".join(sorted(ACTIVATIONS))
        raise ConfigError(
            f"no activation named '{name}'; known: {known}{suggest(name, ACTIVATIONS)}"
            "; a function of your own comes with --plugin FILE"
        )
    return ACTIVATIONS[name]


def list_constants(name: str) -> dict[str, bool]:
    """The constants a function takes, and whether each must be given.

    Raises: ConfigError for an unknown function.
    """
    return {p.name: p.default is inspect.Parameter.empty for p in _list_parameters(find_activation(name))}


def list_functions() -> list[Function]:
    """All functions that a variant may be made of, those of loaded plugins too, in the table's order."""
    found = []
    for name, function in ACTIVATIONS.items():
        meaning = TORCH_MEANINGS.get(name) or (inspect.getdoc(function) or "").partition("\n")[0]
        constants = {p.name: _read_default(p) for p in _list_parameters(function)}
        found.append(Function(name=name, meaning=meaning, constants=constants, reduces=name in REDUCING))
    return found


def _read_default(parameter: inspect.Parameter) -> float | None:
    default = parameter.default
    return float(default) if isinstance(default, int | float) and math.isfinite(default) else None


def _list_parameters(function: Activation) -> list[inspect.Parameter]:
    """Those after x that are constants of the formula."""
    try:
        parameters = list(inspect.signature(function).parameters.values())[1:]
    except ValueError:  # a builtin of torch, which takes x alone
        return []
    if (function.__module__ or "").partition(".")[0] == "torch":
        return []  # inplace and the like are no constants
    return parameters


def _softplus_of(number: Number, x: Tensor) -> Tensor:
    tensor = number if isinstance(number, Tensor) else torch.full((), number, dtype=x.dtype, device=x.device)
    return F.softplus(tensor)


def _expand(gate: Tensor, a: Number) -> Tensor:
    return gate * (1 + 2 * a) - a
