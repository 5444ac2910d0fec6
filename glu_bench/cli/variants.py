"""glu-bench variants: the family."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import typer

from glu_bench.cli.completion import complete_variant
from glu_bench.cli.options import AsJson, ConfigDir


def variants(
    name: Annotated[
        str | None,
        typer.Argument(help="One variant in full; without it, all.", autocompletion=complete_variant),
    ] = None,
    *,
    figure: Annotated[
        Path | None, typer.Option("--figure", help="Draw it into a file as well: .svg, .png or .pdf.")
    ] = None,
    config_dir: ConfigDir = None,
    as_json: AsJson = False,
) -> None:
    """List the variants, or show one: formula, source, drawing, width and parameters at each preset.

    Example: glu-bench variants swiglu --figure swiglu.svg
    """
    from glu_bench.config import list_group, load_config, read_variant
    from glu_bench.errors import ConfigError
    from glu_bench.ffn.matching import match_width
    from glu_bench.show.console import make_stdout, print_json
    from glu_bench.show.curves import render_curve
    from glu_bench.show.figure import check_figure, write_figure
    from glu_bench.show.tables import render_rows

    stdout = make_stdout()
    if name is None:
        if figure is not None:
            raise ConfigError("--figure draws one variant: glu-bench variants swiglu --figure swiglu.svg")
        family = [read_variant(each, config_dir) for each in list_group("variant", config_dir)]
        family.sort(key=lambda v: (v.family, v.gated, v.name))
        if as_json:
            print_json({"variants": [dataclasses.asdict(variant) for variant in family]})
        else:
            rows = [(v.name, v.family, "gated" if v.gated else "", v.formula, v.source) for v in family]
            columns = ("variant", "family", "", "hidden", "source")
            stdout.print(render_rows(f"{len(rows)} variants", columns, rows, left=5))
        return
    variant = read_variant(name, config_dir)
    if figure is not None:
        check_figure(figure)  # before torch is waited for
    from glu_bench.ffn.curve import sample_curve
    from glu_bench.ffn.formula import make_formula

    curve = sample_curve(make_formula(variant))
    if figure is not None:
        write_figure(figure, variant, curve)
    sizes = []
    for preset in list_group("model", config_dir):
        config = load_config([f"variant={name}", f"model={preset}"], config_dir)
        model = config.model
        receipt = match_width(variant, model.d_model, config.match, model.ffn_bias)
        sizes.append((model, receipt))
    sizes.sort(key=lambda size: size[0].n_layers * size[1].n_ffn_params)
    if as_json:
        listed = [
            {
                "preset": model.preset,
                "d_model": model.d_model,
                "n_layers": model.n_layers,
                "d_ff": receipt.d_ff,
                "n_ffn_params": model.n_layers * receipt.n_ffn_params,
                "match_residual": receipt.residual,
            }
            for model, receipt in sizes
        ]
        print_json(
            {
                "variant": dataclasses.asdict(variant),
                "sizes": listed,
                "curve": dataclasses.asdict(curve),
                "figure": None if figure is None else str(figure),
            }
        )
        return
    facts = [(key, value) for key, value in dataclasses.asdict(variant).items() if value not in (None, "")]
    stdout.print(render_rows(variant.name, ("", ""), facts[1:], left=2))
    for line in render_curve(curve, stdout.width if stdout.is_terminal else 80):
        stdout.print(line)
    widths = [
        (
            model.preset,
            f"{model.d_model}x{model.n_layers}",
            receipt.d_ff,
            f"{model.n_layers * receipt.n_ffn_params:,}",
            f"{receipt.residual:+.2%}",
        )
        for model, receipt in sizes
    ]
    columns = ("preset", "D x layers", "F", "FFN parameters", "residual")
    stdout.print(render_rows("match=params", columns, widths))
