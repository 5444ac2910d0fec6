"""glu-bench eval: finished runs, or a Hugging Face folder, measured again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from glu_bench.cli.completion import complete_run
from glu_bench.cli.options import OUTPUTS, AllowPlugins, AsJson, OutputDir, Quiet


def evaluate(
    runs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="RUN", help="Run ids, prefixes of them, or folders.", autocompletion=complete_run
        ),
    ] = None,
    *,
    split: Annotated[str, typer.Option("--split", help="train, val or test.")] = "test",
    files: Annotated[
        list[str] | None,
        typer.Option("--files", help="Another text: a file, folder or glob; may be repeated."),
    ] = None,
    hf: Annotated[
        Path | None,
        typer.Option(
            "--hf", metavar="DIR", help="A Llama or Arcee folder, in fp32: on --files, or on each RUN's text."
        ),
    ] = None,
    stride: Annotated[
        int | None, typer.Option("--stride", min=1, help="Tokens between windows; less gives more context.")
    ] = None,
    device: Annotated[
        str | None, typer.Option("--device", help="Where to compute; the run's by default.")
    ] = None,
    allow_plugin: AllowPlugins = None,
    output_dir: OutputDir = OUTPUTS,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Perplexity and bits per byte of finished runs, or a Hugging Face folder, on a split or another text.

    Example: glu-bench eval swiglu-nano --split val

    A run and its export, side by side: glu-bench eval swiglu-nano --hf exported
    """
    from glu_bench.cache import keep_compiled_graphs
    from glu_bench.errors import ConfigError
    from glu_bench.evaluate.loss import HeldOutLoss, perplexity
    from glu_bench.evaluate.run import evaluate_run
    from glu_bench.ffn.plugins import load_plugins
    from glu_bench.interop.hf_evaluate import evaluate_folder
    from glu_bench.runs.folder import Run, find_run
    from glu_bench.show.console import make_stderr, make_stdout, plain, print_json
    from glu_bench.show.tables import render_evaluations

    if split not in ("train", "val", "test"):
        raise ConfigError(f"--split {split}: train, val or test")
    if not runs and hf is None:
        raise ConfigError("which RUN? or a folder: --hf DIR")
    load_plugins(allow_plugin or [], packages=False)
    keep_compiled_graphs()
    stderr = make_stderr()
    others = files or ()
    named: list[Run | None] = [find_run(text, output_dir) for text in runs or ()]
    measured: list[tuple[str | None, HeldOutLoss]] = []  # no run id: the folder
    for run in named or [None]:
        theirs = []
        if hf is not None:  # before the run, for it may be refused
            if not quiet:
                stderr.print(plain(f"evaluating {hf}"))
            loss = evaluate_folder(hf, run=run, split=split, files=others, stride=stride, device=device)
            theirs.append((None, loss))
        if run is not None:
            if not quiet:
                stderr.print(plain(f"evaluating {run.path.name}"))
            loss = evaluate_run(run, split=split, files=others, stride=stride, device=device)
            measured.append((run.run_id, loss))
        measured += theirs
    if not as_json:
        make_stdout().print(render_evaluations((run_id or str(hf), loss) for run_id, loss in measured))
        return
    print_json(
        {
            "runs": [
                {
                    "run_id": run_id,
                    "hf": None if run_id else str(hf),
                    "split": loss.split,
                    "loss_nats": loss.loss_nats,
                    "perplexity": perplexity(loss.loss_nats),
                    "bits_per_byte": loss.bits_per_byte,
                    "tokens": loss.n_tokens,
                    "bytes": loss.n_bytes,
                    "stride": loss.stride,
                }
                for run_id, loss in measured
            ]
        }
    )
