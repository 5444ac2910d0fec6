"""glu-bench export: a run as a Hugging Face folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from glu_bench.cli.options import AsJson, OneRun, OutputDir, Quiet
from glu_bench.files import OUTPUTS


def export(
    run: OneRun,
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The folder to write.")],
    *,
    check: Annotated[
        bool,
        typer.Option(
            "--check",
            help="Load DIR with transformers and compare; an export already there is not rewritten.",
        ),
    ] = False,
    files: Annotated[
        list[str] | None,
        typer.Option("--files", help="Text for --check instead of the run's test split; may be repeated."),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Replace the files of an export in DIR; others there stay.")
    ] = False,
    output_dir: OutputDir = OUTPUTS,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Write a run as a Hugging Face folder.

    LlamaForCausalLM or ArceeForCausalLM of transformers loads it.

    Example: glu-bench export swiglu-nano exported --check
    """
    import dataclasses

    from glu_bench.errors import ConfigError
    from glu_bench.interop.export import export_run, is_export
    from glu_bench.interop.export_check import check_export
    from glu_bench.interop.hf_folder import require_transformers
    from glu_bench.interop.stock import find_stock
    from glu_bench.runs.folder import find_run
    from glu_bench.show.console import make_stderr, make_stdout, plain, print_json

    if files and not check:
        raise ConfigError("--files: the text is for --check alone")
    if check:
        require_transformers()  # before anything is written
    found = find_run(run, output_dir)
    stock = find_stock(found.config().variant)
    stdout, stderr = make_stdout(), make_stderr()
    status = found.status()
    if status != "complete" and not quiet:
        stderr.print(plain(f"{found.run_id} is {status}: its last checkpoint is taken"))
    written = None if check and not force and is_export(folder) else export_run(found, folder, force=force)
    agreement = check_export(found, folder, files=files or ()) if check else None
    if as_json:
        print_json(
            {
                "run_id": found.run_id,
                "folder": str(folder),
                "written": written is not None,
                "architecture": stock.architecture,
                "hidden_act": stock.hidden_act,
                "n_params": written.n_params if written else None,
                "files": written.files if written else [],
                "check": dataclasses.asdict(agreement) if agreement else None,
            }
        )
        return
    if written:
        line = f"{stock.architecture}, hidden_act {stock.hidden_act}, {written.n_params:,} parameters"
        stdout.print(plain(f"wrote {folder}: {line}, fp32"), soft_wrap=True)
    if agreement:
        stdout.print(
            plain(
                f"checked with transformers {agreement.transformers}: logits of {agreement.n_tokens:,} "
                f"tokens differ by {agreement.max_difference:.2g} at most (limit {agreement.limit:g}), "
                f"ids of {agreement.n_texts} texts are equal"
            ),
            soft_wrap=True,
        )
