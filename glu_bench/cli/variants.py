"""glu-bench variants: the family."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import typer

from glu_bench.cli.completion import complete_variant
from glu_bench.cli.options import AsJson, ConfigDir, Plugins, Quiet
from glu_bench.errors import ConfigError


def variants(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="VARIANT", help="One variant in full; without it, all.", autocompletion=complete_variant
        ),
    ] = None,
    *,
    figure: Annotated[
        Path | None,
        typer.Option("--figure", help="Draw it, or the whole family, into a file: .svg, .png or .pdf."),
    ] = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="The family as a Markdown table.")] = False,
    functions: Annotated[
        bool,
        typer.Option("--functions", help="List what a variant's file may name, with the constants it takes."),
    ] = False,
    plugin: Plugins = None,
    config_dir: ConfigDir = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """List the variants, or show one in full.

    In full: formula, constants, drawing, what is known of it, sizes.

    Example: glu-bench variants swiglu --figure swiglu.svg

    Example: glu-bench variants --functions
    """
    del quiet  # nothing is said beside the result
    if functions:
        if name is not None or figure is not None or markdown:
            raise ConfigError("--functions: goes with --plugin and --json alone")
        _show_functions(plugin or [], as_json)
        return
    from glu_bench.show.figure import check_figure

    if figure is not None:
        check_figure(figure)  # before torch is waited for
    if name is None:
        _show_family(figure, markdown, plugin or [], config_dir, as_json)
    else:
        _show_one(name, figure, plugin or [], config_dir, as_json)


def _show_functions(plugin: list[Path], as_json: bool) -> None:
    from glu_bench.ffn.activations import list_functions
    from glu_bench.ffn.plugins import load_plugins
    from glu_bench.show.console import make_stdout, print_json
    from glu_bench.show.variants import render_functions

    load_plugins(plugin)
    found = list_functions()
    if as_json:
        print_json({"functions": [dataclasses.asdict(each) for each in found]})
    else:
        make_stdout().print(render_functions(found))


def _show_family(
    figure: Path | None, markdown: bool, plugin: list[Path], config_dir: Path | None, as_json: bool
) -> None:
    from glu_bench.config import list_group, read_variant
    from glu_bench.show.console import make_stdout, print_json
    from glu_bench.show.variants import render_family, sort_family, write_markdown

    family = sort_family(read_variant(each, config_dir) for each in list_group("variant", config_dir))
    if figure is not None:
        from glu_bench.ffn.curve import sample_curve
        from glu_bench.ffn.formula import make_formula
        from glu_bench.ffn.plugins import load_plugins
        from glu_bench.show.figure import write_family_figure

        load_plugins(plugin)
        write_family_figure(
            figure, [(each, sample_curve(make_formula(each), n_points=401)) for each in family]
        )
    if as_json:
        listed = [dataclasses.asdict(variant) for variant in family]
        print_json({"variants": listed, "figure": None if figure is None else str(figure)})
    elif markdown:
        print(write_markdown(family), end="")
    else:
        make_stdout().print(render_family(family))


def _show_one(
    name: str, figure: Path | None, plugin: list[Path], config_dir: Path | None, as_json: bool
) -> None:
    from glu_bench.config import list_group, load_config
    from glu_bench.data.tokenizers import ByteTokenizer
    from glu_bench.ffn.curve import sample_curve
    from glu_bench.ffn.formula import load_variant
    from glu_bench.ffn.matching import match_width
    from glu_bench.ffn.plugins import load_plugins
    from glu_bench.ffn.properties import find_properties
    from glu_bench.lm.counts import count_model
    from glu_bench.show.console import make_stdout, print_json
    from glu_bench.show.curves import render_curve
    from glu_bench.show.figure import write_figure
    from glu_bench.show.variants import Size, render_sizes, render_variant

    load_plugins(plugin)
    formula = load_variant(name, config_dir)
    curve = sample_curve(formula)
    if figure is not None:
        write_figure(figure, formula.spec, curve)
    sizes = []
    for preset in list_group("model", config_dir):
        config = load_config([f"variant={name}", f"model={preset}"], config_dir)
        model = config.model
        receipt = match_width(formula.spec, model.d_model, config.match, model.ffn_bias)
        sizes.append(Size(model=model, receipt=receipt, counts=count_model(config, ByteTokenizer.vocab_size)))
    sizes.sort(key=lambda size: size.counts.n_ffn_params)
    properties = find_properties(formula, sizes[0].receipt.d_ff)
    if as_json:
        listed = [
            {
                "preset": size.model.preset,
                "d_model": size.model.d_model,
                "n_layers": size.model.n_layers,
                "d_ff": size.receipt.d_ff,
                "n_ffn_params": size.counts.n_ffn_params,
                "n_params": size.counts.n_params,
                "flops_per_token": size.counts.flops_per_token,
                "match_residual": size.receipt.residual,
            }
            for size in sizes
        ]
        print_json(
            {
                "variant": dataclasses.asdict(formula.spec),
                "learned": [dataclasses.asdict(each) for each in formula.learned],
                "reduces": formula.reduces,
                "properties": dataclasses.asdict(properties),
                "sizes": listed,
                "curve": dataclasses.asdict(curve),
                "figure": None if figure is None else str(figure),
            }
        )
        return
    stdout = make_stdout()
    stdout.print(render_variant(formula, properties))
    for line in render_curve(curve, stdout.width if stdout.is_terminal else 80):
        stdout.print(line)
    stdout.print(render_sizes(sizes))
