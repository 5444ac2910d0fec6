"""The family of variants as tables: all of them, one of them, and Markdown for the README."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.table import Table

from glu_bench.schema import Model, Variant
from glu_bench.show.console import plain
from glu_bench.show.numbers import si
from glu_bench.show.tables import make_table, render_rows

if TYPE_CHECKING:  # a list of the family needs no torch
    from glu_bench.ffn.activations import Function
    from glu_bench.ffn.formula import Formula
    from glu_bench.ffn.matching import Receipt
    from glu_bench.ffn.properties import Properties
    from glu_bench.lm.counts import Counts

FAMILIES = ("core", "smooth", "squared", "sparse", "gated", "expanded")
SMOOTHNESS = {
    "jump": "no, it jumps",
    "kink": "no, its slope jumps",
    "C1": "once: its slope is continuous, its curvature jumps",
    "smooth": "yes",
}


@dataclass(frozen=True, kw_only=True)
class Size:
    """What a variant comes to at one preset."""

    model: Model
    receipt: Receipt
    counts: Counts


def sort_family(variants: Iterable[Variant]) -> list[Variant]:
    """By family, the built-in ones first; ungated before gated."""

    def rank(variant: Variant) -> tuple[int, str, bool, str]:
        known = variant.family in FAMILIES
        at = FAMILIES.index(variant.family) if known else len(FAMILIES)
        return at, variant.family, variant.gated, variant.name

    return sorted(variants, key=rank)


def render_family(variants: Sequence[Variant]) -> Table:
    """All variants by family; long formulas and sources are wrapped, not cut."""
    table = make_table(f"{len(variants)} variants", ("variant", "hidden", "source"), left=3)
    for column in table.columns[1:]:
        column.no_wrap = False
    family = None
    for variant in variants:
        if variant.family != family:
            if family is not None:
                table.add_section()
            family = variant.family
            table.add_row(plain(family, style="bold"), "", "")
        table.add_row(plain(f"  {variant.name}"), plain(variant.formula), plain(variant.source))
    return table


def render_variant(formula: Formula, properties: Properties) -> Table:
    """One variant: its formula, constants, learned arguments, and what can be computed of it."""
    spec = formula.spec
    rows = [("hidden", spec.formula), ("family", spec.family), ("source", spec.source)]
    if spec.used_by:
        rows.append(("used by", spec.used_by))
    rows += list(_describe_algebra(spec))
    for each in formula.learned:
        where = "a hidden unit" if each.per_unit else "a layer"
        rows.append(("learned", f"{each.argument}, one {where}, {each.init:.6g} at first"))
    of = "gate" if formula.gated else "activation"
    if properties.smoothness is not None:
        low, high = (
            "none" if bound is None else f"{bound:.4f}"
            for bound in (properties.lower_bound, properties.upper_bound)
        )
        rows.append((f"{of}'s bounds", f"lower {low}, upper {high}"))
        rows.append((f"{of} monotone", "yes" if properties.monotone else "no"))
        rows.append((f"{of} smooth", SMOOTHNESS[properties.smoothness]))
    rows.append(("for N(0, 1) in", f"E[hidden^2] {properties.second_moment:.4f}"))
    rows.append(("", f"zero {properties.zero_share:.2%} of the time"))
    return render_rows(spec.name, ("", ""), rows, left=2)


def render_sizes(sizes: Iterable[Size]) -> Table:
    """Widths, parameters and FLOPs at each preset; FLOPs are forward and backward of the whole model."""
    rows = [
        (
            size.model.preset,
            f"{size.model.d_model}x{size.model.n_layers}",
            size.receipt.d_ff,
            f"{size.counts.n_ffn_params:,}",
            f"{size.receipt.residual:+.3%}",
            f"{size.counts.n_params:,}",
            si(size.counts.flops_per_token),
        )
        for size in sizes
    ]
    columns = ("preset", "D x layers", "F", "FFN parameters", "residual", "parameters", "FLOPs/token")
    return render_rows("match=params, byte tokens", columns, rows)


def render_functions(functions: Sequence[Function]) -> Table:
    """The functions a variant's file may name, each with its constants and what it is."""
    table = make_table(f"{len(functions)} functions", ("function", "constants", "what it is"), left=3)
    for column in table.columns[1:]:
        column.no_wrap = False
    for each in functions:
        constants = (n if value is None else f"{n}={value:g}" for n, value in each.constants.items())
        table.add_row(plain(each.name), plain(", ".join(constants)), plain(each.meaning))
    return table


def write_markdown(variants: Iterable[Variant]) -> str:
    """The table of the README, from the files alone."""
    lines = ["| family | variant | hidden | source | used by |", "|---|---|---|---|---|"]
    for variant in variants:
        cells = (variant.family, f"`{variant.name}`", f"`{variant.formula}`", variant.source, variant.used_by)
        lines.append("| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def _describe_algebra(spec: Variant) -> Iterator[tuple[str, str]]:
    for place in ("activation", "gate", "value"):
        function = getattr(spec, place)
        if function is not None and (place != "value" or spec.gated):
            args = "".join(f", {name} {value:.6g}" for name, value in getattr(spec, f"{place}_args").items())
            yield place, f"{function}{args}"
    if spec.gate_clamp is not None:
        yield "clamp", f"gate at most {spec.gate_clamp:g}"
    if spec.gate_out_clamp is not None:
        yield "clamp", f"gate's result at most {spec.gate_out_clamp:g}"
    if spec.up_clamp is not None:
        yield "clamp", f"up between -{spec.up_clamp:g} and {spec.up_clamp:g}"
    if spec.offset:
        yield "offset", f"{spec.offset:g} added to the up projection"
    if spec.mult != 1.0:
        yield "factor", f"{spec.mult:g}"
    if spec.norm:
        yield "norm", f"{spec.norm}, eps {spec.norm_eps:g}"
