"""glu-bench eval: finished runs measured again."""

from __future__ import annotations

from typing import Annotated

import typer

from glu_bench.cli.completion import complete_run
from glu_bench.cli.options import OUTPUTS, AllowPlugins, AsJson, OutputDir, Quiet


def evaluate(
    runs: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN...", help="Run ids, prefixes of them, or folders.", autocompletion=complete_run
        ),
    ],
    *,
    split: Annotated[str, typer.Option("--split", help="train, val or test.")] = "test",
    files: Annotated[
        list[str] | None,
        typer.Option("--files", help="Another text: a file, folder or glob; may be repeated."),
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
    """Perplexity and bits per byte of finished runs, on a split or another text.

    Example: glu-bench eval swiglu-nano --split val
    """
    from glu_bench.errors import ConfigError
    from glu_bench.evaluate.perplexity import perplexity
    from glu_bench.evaluate.run import evaluate_run
    from glu_bench.ffn.plugins import load_plugins
    from glu_bench.runs.folder import find_run
    from glu_bench.show.console import make_stderr, make_stdout, plain, print_json
    from glu_bench.show.tables import render_evaluations

    if split not in ("train", "val", "test"):
        raise ConfigError(f"--split {split}: train, val or test")
    load_plugins(allow_plugin or [], packages=False)
    stderr = make_stderr()
    found = []
    for text in runs:
        run = find_run(text, output_dir)
        if not quiet:
            stderr.print(plain(f"evaluating {run.path.name}"))
        found.append((run, evaluate_run(run, split=split, files=files or (), stride=stride, device=device)))
    if not as_json:
        make_stdout().print(render_evaluations((run.run_id, loss) for run, loss in found))
        return
    print_json(
        {
            "runs": [
                {
                    "run_id": run.run_id,
                    "split": loss.split,
                    "loss_nats": loss.loss_nats,
                    "perplexity": perplexity(loss.loss_nats),
                    "bits_per_byte": loss.bits_per_byte,
                    "tokens": loss.n_tokens,
                    "bytes": loss.n_bytes,
                    "stride": loss.stride,
                }
                for run, loss in found
            ]
        }
    )
