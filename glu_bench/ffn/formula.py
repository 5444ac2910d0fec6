"""A variant's formula: from the projections of x to the hidden vector."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from glu_bench import config, schema
from glu_bench.ffn.activations import Activation, find_activation


@dataclass(frozen=True)
class Formula:
    """hidden = gate(g) * value(u) if gated, else activation(h)."""

    spec: schema.Variant
    on_gate: Activation
    on_up: Activation

    @property
    def name(self) -> str:
        """The variant's name."""
        return self.spec.name

    @property
    def gated(self) -> bool:
        """Whether there are two input projections."""
        return self.spec.gated

    def hidden(self, gate: Tensor, up: Tensor | None = None) -> Tensor:
        """The hidden vector; an ungated variant takes its one projection as the only argument.

        Shapes: gate, up and the result are equal, (..., F).
        Raises: TypeError if `up` is missing for a gated variant or given for an ungated one.
        """
        if not self.gated:
            if up is not None:
                raise TypeError(f"{self.name} is not gated: call hidden(up)")
            return self.on_up(gate)
        if up is None:
            raise TypeError(f"{self.name} is gated: call hidden(gate, up)")
        return self.on_gate(gate) * self.on_up(up)


def make_formula(spec: schema.Variant) -> Formula:
    """The formula that a variant's file describes.

    Raises: ConfigError if a function is unknown or the fields contradict one another.
    """
    schema.check_variant(spec)
    if spec.gated:
        assert spec.gate is not None  # check_variant saw to it
        return Formula(spec, find_activation(spec.gate), find_activation(spec.value))
    assert spec.activation is not None
    activation = find_activation(spec.activation)
    return Formula(spec, activation, activation)


def load_variant(name: str, config_dir: Path | None = None) -> Formula:
    """The formula of a variant by name.

    Raises: ConfigError if there is no such variant.
    """
    return make_formula(config.read_variant(name, config_dir))


def list_variants(config_dir: Path | None = None) -> list[str]:
    """Names of all variants, a person's own included, sorted."""
    return config.list_group("variant", config_dir)
