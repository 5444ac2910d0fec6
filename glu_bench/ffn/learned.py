"""What a variant trains besides its matrices: arguments of its formula, gains of its norm."""

from __future__ import annotations

from dataclasses import dataclass

from glu_bench.schema import Variant


@dataclass(frozen=True, kw_only=True)
class Learned:
    """One learned argument of a formula."""

    argument: str  # gate.beta, mult, norm.gain
    init: float
    per_unit: bool  # a vector of the hidden width F; else one number a layer

    @property
    def parameter(self) -> str:
        """The name of its parameter in a module: gate_beta, mult, norm_gain."""
        return self.argument.replace(".", "_")

    def count(self, d_ff: int) -> int:
        """Numbers in one layer."""
        return d_ff if self.per_unit else 1


def list_learned(variant: Variant) -> tuple[Learned, ...]:
    """Every learned argument of a variant, in the order in which formulas take them."""
    named = [(argument, False) for argument in variant.learned]
    named += [(argument, True) for argument in variant.learned_per_unit]
    learned = [
        Learned(argument=argument, init=find_argument(variant, argument), per_unit=per_unit)
        for argument, per_unit in named
    ]
    if variant.norm is not None:
        learned.append(Learned(argument="norm.gain", init=1.0, per_unit=True))
    if variant.norm == "layer":
        learned.append(Learned(argument="norm.bias", init=0.0, per_unit=True))
    return tuple(learned)


def find_argument(variant: Variant, argument: str) -> float:
    """The value that a variant's file gives to an argument: gate.beta, or mult."""
    place, _, name = argument.rpartition(".")
    value = getattr(variant, f"{place}_args")[name] if place else getattr(variant, name)
    return float(value)
