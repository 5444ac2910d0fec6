"""A variant's formula: from the projections of x to the hidden vector."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from glu_bench import config, rules, schema
from glu_bench.errors import ConfigError, suggest
from glu_bench.ffn.activations import REDUCING, Activation, find_activation, list_constants
from glu_bench.ffn.learned import Learned, list_learned

# Shazeer's eight, the arms of the usual comparison
CORE = ("relu", "gelu", "swish", "glu", "bilinear", "reglu", "geglu", "swiglu")


@dataclass(frozen=True)
class Formula:
    """hidden = norm(gate_part(g) * up_part(u) * mult), or norm(activation(h)); see schema.Variant."""

    spec: schema.Variant
    on_gate: Activation  # of an ungated variant: its activation
    on_up: Activation
    learned: tuple[Learned, ...]

    @property
    def name(self) -> str:
        """The variant's name."""
        return self.spec.name

    @property
    def gated(self) -> bool:
        """Whether there are two input projections."""
        return self.spec.gated

    @property
    def n_projections(self) -> int:
        """Input projections: gate and up, or one."""
        return 2 if self.spec.gated else 1

    @property
    def reduces(self) -> bool:
        """Whether a hidden number depends on the whole width, not on its own place alone."""
        used = {self.spec.activation, self.spec.gate, self.spec.value}
        return self.spec.norm is not None or bool(used & REDUCING)

    def hidden(self, gate: Tensor, up: Tensor | None = None) -> Tensor:
        """The hidden vector, learned arguments at their initial values.

        An ungated variant takes its one projection as the only argument.
        Shapes: gate, up and the result are equal, (..., F).
        Raises: TypeError if `up` is missing for a gated variant or given for an ungated one.
        """
        if not self.gated:
            if up is not None:
                raise TypeError(f"{self.name} is not gated: call hidden(up)")
            return self.evaluate(gate)
        if up is None:
            raise TypeError(f"{self.name} is gated: call hidden(gate, up)")
        return self.evaluate(gate, up)

    def evaluate(self, *tensors: Tensor) -> Tensor:
        """The hidden vector from the projections and, after them, the learned arguments in order.

        Without learned arguments their initial values are taken.
        Shapes: projections and result (..., F), learned () or (F,).
        """
        gate = tensors[0]
        given = self.name_learned(gate.dtype, tensors[self.n_projections :])
        up_value = self.up_part(tensors[1], given) if self.gated else None
        return self.combine(self.gate_part(gate, given), up_value, given)

    def name_learned(self, dtype: torch.dtype, values: Sequence[Tensor]) -> dict[str, Tensor]:
        """The learned arguments, given in order, by argument, as `gate_part` and `up_part` take them."""
        # in the dtype of the projections: a wider one would carry the whole chain with it
        return {at.argument: value.to(dtype) for at, value in zip(self.learned, values, strict=False)}

    def combine(
        self, gate_value: Tensor, up_value: Tensor | None, given: Mapping[str, Tensor] | None = None
    ) -> Tensor:
        """The hidden vector from what `gate_part` and `up_part` give; ungated, there is no `up_value`."""
        given = given or {}
        if up_value is None:
            return self._norm(gate_value, given)
        product = gate_value * up_value
        if self.spec.mult != 1.0 or "mult" in given:
            product = product * given.get("mult", self.spec.mult)
        return self._norm(product, given)

    def gate_part(self, gate: Tensor, given: Mapping[str, Tensor] | None = None) -> Tensor:
        """What the gate contributes, clamps included; of an ungated variant its activation."""
        spec, given = self.spec, given or {}
        if not spec.gated:
            return self.on_gate(gate, **self._bind("activation", given))
        if spec.gate_clamp is not None:
            gate = gate.clamp(max=spec.gate_clamp)
        gate = self.on_gate(gate, **self._bind("gate", given))
        return gate if spec.gate_out_clamp is None else gate.clamp(max=spec.gate_out_clamp)

    def up_part(self, up: Tensor, given: Mapping[str, Tensor] | None = None) -> Tensor:
        """What the up projection contributes, clamp and offset included."""
        spec, given = self.spec, given or {}
        if spec.up_clamp is not None:
            up = up.clamp(-spec.up_clamp, spec.up_clamp)
        up = self.on_up(up, **self._bind("value", given))
        return up + given.get("offset", spec.offset) if spec.offset or "offset" in given else up

    def _bind(self, place: str, given: Mapping[str, Tensor]) -> dict[str, float | Tensor]:
        fixed: dict[str, float] = getattr(self.spec, f"{place}_args")
        return {name: given.get(f"{place}.{name}", value) for name, value in fixed.items()}

    def _norm(self, hidden: Tensor, given: Mapping[str, Tensor]) -> Tensor:
        kind = self.spec.norm
        if kind is None:
            return hidden
        wide = hidden.to(torch.promote_types(hidden.dtype, torch.float32))
        width = (hidden.shape[-1],)
        if kind == "rms":
            normed = F.rms_norm(wide, width, eps=self.spec.norm_eps)
        else:
            normed = F.layer_norm(wide, width, eps=self.spec.norm_eps)
        normed = normed.to(hidden.dtype)
        if "norm.gain" in given:
            normed = normed * given["norm.gain"]
        return normed + given["norm.bias"] if "norm.bias" in given else normed


def make_formula(spec: schema.Variant) -> Formula:
    """The formula that a variant's file describes.

    Raises: ConfigError if a function is unknown or the fields contradict one another.
    """
    rules.check_variant(spec)
    places = ("gate", "value") if spec.gated else ("activation",)
    functions = []
    for place in places:
        function = getattr(spec, place)
        functions.append(find_activation(function))
        _check_constants(spec, place, function)
    return Formula(spec, functions[0], functions[-1], list_learned(spec))


def load_variant(name: str, config_dir: Path | None = None) -> Formula:
    """The formula of a variant by name.

    Raises: ConfigError if there is no such variant.
    """
    return make_formula(config.read_variant(name, config_dir))


def list_variants(config_dir: Path | None = None) -> list[str]:
    """Names of all variants, a person's own included, sorted."""
    return config.list_group("variant", config_dir)


def find_variants(words: Sequence[str], config_dir: Path | None = None) -> list[str]:
    """Names of the variants that words ask for, each once: a name, a pattern such as *glu, `core`, or `all`.

    Raises: ConfigError for a name that is none, or a pattern that nothing matches.
    """
    names = list_variants(config_dir)
    found: list[str] = []
    for word in words:
        if word in ("all", "core"):
            chosen = names if word == "all" else list(CORE)
        elif set(word) & set("*?["):
            chosen = [name for name in names if fnmatch.fnmatchcase(name, word)]
        else:
            config.read_variant(word, config_dir)  # refuses what is none
            chosen = [word]
        if not chosen:
            raise ConfigError(f"{word}: matches no variant; known: {', '.join(names)}")
        found += [name for name in chosen if name not in found]
    return found


def _check_constants(spec: schema.Variant, place: str, function: str) -> None:
    given: Sequence[str] = list(getattr(spec, f"{place}_args"))
    takes = list_constants(function)
    for name in given:
        if name not in takes:
            known = ", ".join(takes) or "none"
            raise ConfigError(
                f"variant {spec.name}: {place}_args.{name}: {function} takes no such constant; "
                f"known: {known}{suggest(name, takes)}"
            )
    missing = [name for name, required in takes.items() if required and name not in given]
    if missing:
        raise ConfigError(
            f"variant {spec.name}: {function} needs {place}_args: {{{', '.join(f'{m}: …' for m in missing)}}}"
        )
