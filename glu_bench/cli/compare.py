"""glu-bench compare: the table and the verdict."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from glu_bench.cli.options import AllowMixed, Arms, AsJson, Baseline, FinishedRuns, OutputDir, Quiet
from glu_bench.files import OUTPUTS
from glu_bench.words import split_keys

if TYPE_CHECKING:
    from glu_bench.show.columns import Column
    from glu_bench.study.compare import Comparison

FORMATS = ("table", "markdown", "csv", "json", "latex")


def compare(
    runs: FinishedRuns = None,
    *,
    baseline: Baseline = None,
    arms: Arms = "variant",
    split: Annotated[str, typer.Option("--split", help="test or val.")] = "test",
    from_csv: Annotated[
        Path | None,
        typer.Option(
            "--from-csv",
            help="Anybody's results instead: columns arm,seed,loss or arm,mean,sd,n.",
            dir_okay=False,
        ),
    ] = None,
    allow_mixed: AllowMixed = False,
    columns: Annotated[
        str | None,
        typer.Option(
            "--columns", help="Keys of the JSON, such as arm,mean_loss_nats,letters,speedup.wall; or all."
        ),
    ] = None,
    form: Annotated[str, typer.Option("--format", help=f"{', '.join(FORMATS[:-1])} or latex.")] = "table",
    blocks: Annotated[
        bool,
        typer.Option(
            "--blocks", help="Also where each arm wins: by token frequency, context, stretch of text."
        ),
    ] = False,
    methods: Annotated[
        bool, typer.Option("--methods", help="Print the paragraph for a paper instead.")
    ] = False,
    bibtex: Annotated[
        bool, typer.Option("--bibtex", help="Print BibTeX of what is compared instead, or after --methods.")
    ] = False,
    figure: Annotated[
        Path | None,
        typer.Option("--figure", help="Draw the learning curves into a file: .svg, .png or .pdf."),
    ] = None,
    output_dir: OutputDir = OUTPUTS,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Set arms side by side: losses, tests, cost, the verdict.

    One table a setting.

    Example: glu-bench compare --baseline gelu

    Example: glu-bench compare --from-csv results.csv --format latex
    """
    from glu_bench.errors import ConfigError, suggest
    from glu_bench.show.columns import choose_columns
    from glu_bench.show.figure import check_figure

    if split not in ("val", "test"):
        raise ConfigError(f"--split {split}: val or test")
    if form not in FORMATS:
        raise ConfigError(f"--format {form}: one of {', '.join(FORMATS)}{suggest(form, FORMATS)}")
    if blocks and (form not in ("table", "json") or methods or bibtex):
        raise ConfigError("--blocks: goes with the table or JSON alone")
    if as_json and form not in ("table", "json"):
        raise ConfigError(f"--json and --format {form}: one of the two")
    chosen = None if columns is None else choose_columns(columns)
    if figure is not None:
        check_figure(figure)
    tables = _find_tables(runs or [], baseline, arms, split, from_csv, allow_mixed, output_dir)
    drawn = [] if figure is None else _draw(figure, tables)
    if as_json:
        form = "json"
    if form == "json":
        _print_json(tables, methods, bibtex, blocks)
    elif methods or bibtex:
        _print_paper(tables, form, methods, bibtex)
    else:
        left_out = _print_tables(tables, form, chosen, is_all=columns == "all")
        if blocks:
            _print_blocks(tables)
        if not quiet:
            _print_notes(tables, left_out)
    if drawn and not quiet:
        from glu_bench.show.console import make_stderr, plain

        for path in drawn:
            make_stderr().print(plain(f"drawn: {path}"))


def _find_tables(
    runs: list[str],
    baseline: str | None,
    arms: str,
    split: str,
    from_csv: Path | None,
    allow_mixed: bool,
    output_dir: Path,
) -> list[Comparison]:
    from glu_bench.errors import ConfigError
    from glu_bench.study.arms import find_runs
    from glu_bench.study.compare import compare_runs
    from glu_bench.study.results_csv import compare_csv

    if from_csv is not None:
        if runs:
            raise ConfigError(f"--from-csv {from_csv} and {runs[0]}: a file or runs, not both")
        return [compare_csv(from_csv, baseline)]
    found, named = find_runs(runs, output_dir)
    return compare_runs(
        found,
        baseline=baseline,
        split=split,
        arm_keys=split_keys(arms),
        allow_mixed=allow_mixed,
        refuse_mixed=named,
    )


def _draw(figure: Path, tables: list[Comparison]) -> list[Path]:
    """A file a table; with several tables their numbers go into the names."""
    from glu_bench.show.curve_figure import write_curves
    from glu_bench.study.curves import collect_curves
    from glu_bench.study.methods import require_runs

    require_runs(tables, f"--figure {figure}")
    paths = [figure]
    if len(tables) > 1:
        paths = [figure.with_stem(f"{figure.stem}-{at}") for at in range(1, len(tables) + 1)]
    for path, table in zip(paths, tables, strict=True):
        write_curves(path, table, collect_curves(table))
    return paths


def _print_blocks(tables: list[Comparison]) -> None:
    """Where arms win, below the tables."""
    from glu_bench.show.console import make_stdout
    from glu_bench.show.slices import render_slices
    from glu_bench.study.slices import slice_arms

    for table in tables:
        for each in render_slices(slice_arms(table), table.baseline):
            make_stdout().print(each)


def _print_json(tables: list[Comparison], methods: bool, bibtex: bool, blocks: bool) -> None:
    from glu_bench.show.bibtex import write_bibtex
    from glu_bench.show.console import print_json
    from glu_bench.show.methods import list_papers, write_methods
    from glu_bench.study.methods import read_methods

    value = {"tables": [dataclasses.asdict(table) for table in tables]}
    if blocks:
        from glu_bench.study.slices import slice_arms

        for written, table in zip(value["tables"], tables, strict=True):
            written["blocks"] = [dataclasses.asdict(each) for each in slice_arms(table)]
    if methods or bibtex:
        known = [(table, read_methods(table)) for table in tables]
        if methods:
            for written, (table, facts) in zip(value["tables"], known, strict=True):
                written["methods"] = write_methods(table, facts).strip()
        if bibtex:
            print_json({**value, "bibtex": write_bibtex(*list_papers(known))})
            return
    print_json(value)


def _print_paper(tables: list[Comparison], form: str, methods: bool, bibtex: bool) -> None:
    from glu_bench.show.bibtex import write_bibtex
    from glu_bench.show.console import print_text
    from glu_bench.show.methods import list_papers, write_methods
    from glu_bench.study.methods import read_methods

    known = [(table, read_methods(table)) for table in tables]
    parts = [write_methods(table, facts, form) for table, facts in known] if methods else []
    print_text("\n".join([*parts, *([write_bibtex(*list_papers(known))] if bibtex else [])]))


def _print_tables(
    tables: list[Comparison], form: str, chosen: list[Column] | None, is_all: bool
) -> list[str]:
    """Prints all tables; the keys of default columns that did not fit the terminal.

    `is_all`: people see no column that is empty for every arm; files have all.
    """
    from glu_bench.show.columns import choose_columns, drop_empty, list_defaults
    from glu_bench.show.comparison import PIPED_WIDTH, fit_columns, print_comparison
    from glu_bench.show.console import make_stdout, print_text
    from glu_bench.show.csv_table import write_csv
    from glu_bench.show.latex_table import PREAMBLE, write_latex
    from glu_bench.show.markdown_table import write_markdown

    if form == "table":
        stdout, keys = make_stdout(), []
        for at, table in enumerate(tables):
            shown = drop_empty(chosen, table) if chosen and is_all else chosen
            if at:
                stdout.print()
            keys += print_comparison(stdout, table, shown)
        return list(dict.fromkeys(keys))
    if form == "csv":
        print_text(write_csv(tables, chosen or choose_columns("all")))
        return []
    write = write_latex if form == "latex" else write_markdown
    written = []
    for table in tables:
        shown = drop_empty(chosen, table) if chosen and is_all else chosen
        written.append(write(table, shown or fit_columns(table, list_defaults(table), PIPED_WIDTH)))
    print_text((PREAMBLE if form == "latex" else "") + "\n".join(written))
    return []


def _print_notes(tables: list[Comparison], left_out: list[str]) -> None:
    from glu_bench.show.comparison import wrap_prose
    from glu_bench.show.console import make_stderr, plain

    stderr = make_stderr()
    if left_out:
        said = f"note: no room for {', '.join(left_out)}; --columns all shows them"
        for line in wrap_prose(said, stderr.width) if stderr.is_terminal else [said]:
            stderr.print(plain(line))
    for table in tables:
        for warning in table.warnings:
            stderr.print(plain(f"note: {warning}"))
    if tables[0].left_out:
        stderr.print(plain(f"left out, no second arm in their setting: {', '.join(tables[0].left_out)}"))
