"""glu-bench eval: finished runs, or a Hugging Face folder, measured again."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from glu_bench.cli.completion import complete_run
from glu_bench.cli.options import AllowPlugins, AsJson, OutputDir, Quiet
from glu_bench.files import OUTPUTS

if TYPE_CHECKING:
    from glu_bench.evaluate.loss import HeldOutLoss
    from glu_bench.runs.folder import Run


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
    gate: Annotated[
        str | None,
        typer.Option(
            "--gate",
            metavar="KIND",
            help="What is lost without trained gates: constant (their means), shuffled over tokens, linear.",
        ),
    ] = None,
    tokens: Annotated[
        int | None,
        typer.Option("--tokens", min=2, help="With --gate: on the first so many, by default 65,536."),
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
    """Measure perplexity and bits per byte of finished runs.

    Or of a Hugging Face folder; on a split, or on another text.

    Example: glu-bench eval swiglu-nano --split val

    A run and its export, side by side: glu-bench eval swiglu-nano --hf exported

    What its gates are worth: glu-bench eval swiglu-nano --gate shuffled
    """
    from glu_bench.errors import ConfigError
    from glu_bench.ffn.plugins import load_plugins
    from glu_bench.runs.folder import find_run
    from glu_bench.show.console import make_stdout, print_json
    from glu_bench.show.tables import render_evaluations

    if split not in ("train", "val", "test"):
        raise ConfigError(f"--split {split}: train, val or test")
    if not runs and hf is None:
        raise ConfigError("which RUN? or a folder: --hf DIR")
    if gate is None and tokens is not None:
        raise ConfigError(f"--tokens {tokens}: goes with --gate; without it all tokens of a split are scored")
    load_plugins(allow_plugin or [], packages=False)
    if gate is not None and (hf is not None or files or stride is not None):
        raise ConfigError(f"--gate {gate}: goes with RUN, --split, --tokens and --device alone")
    named = [find_run(text, output_dir) for text in runs or ()]
    if gate is not None:
        _ablate(named, gate, split, tokens, device, as_json, quiet)
        return
    measured = _measure(named, hf, split, files or [], stride, device, quiet)
    if as_json:
        print_json({"runs": [_write(run_id, hf, loss) for run_id, loss in measured]})
    else:
        make_stdout().print(render_evaluations((run_id or str(hf), loss) for run_id, loss in measured))


def _measure(
    runs: list[Run],
    hf: Path | None,
    split: str,
    files: list[str],
    stride: int | None,
    device: str | None,
    quiet: bool,
) -> list[tuple[str | None, HeldOutLoss]]:
    """The loss of each run, with that of the folder on its text below it, which has no run id."""
    from glu_bench.cache import keep_compiled_graphs
    from glu_bench.evaluate.run import evaluate_run
    from glu_bench.interop.hf_evaluate import evaluate_folder
    from glu_bench.show.console import make_stderr, plain

    keep_compiled_graphs()
    stderr = make_stderr()
    named: list[Run | None] = [*runs]
    measured: list[tuple[str | None, HeldOutLoss]] = []
    for run in named or [None]:
        theirs = []
        if hf is not None:  # before the run, for it may be refused
            if not quiet:
                stderr.print(plain(f"evaluating {hf}"))
            loss = evaluate_folder(hf, run=run, split=split, files=files, stride=stride, device=device)
            theirs.append((None, loss))
        if run is not None:
            if not quiet:
                stderr.print(plain(f"evaluating {run.path.name}"))
            loss = evaluate_run(run, split=split, files=files, stride=stride, device=device)
            measured.append((run.run_id, loss))
        measured += theirs
    return measured


def _write(run_id: str | None, hf: Path | None, loss: HeldOutLoss) -> dict[str, Any]:
    """What --json says of a run, or without a run id of the folder."""
    from glu_bench.evaluate.loss import perplexity

    return {
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


def _ablate(
    runs: list[Run],
    kind: str,
    split: str,
    tokens: int | None,
    device: str | None,
    as_json: bool,
    quiet: bool,
) -> None:
    import dataclasses

    from glu_bench.evaluate.ablation import ablate_run, check_kind
    from glu_bench.evaluate.held_out import N_TOKENS
    from glu_bench.show.console import make_stderr, make_stdout, plain, print_json
    from glu_bench.show.tables import render_ablation

    check_kind(kind)
    found = []
    for run in runs:
        if not quiet:
            make_stderr().print(plain(f"evaluating {run.path.name} with {kind} gates"))
        found.append(ablate_run(run, kind, split=split, n_tokens=tokens or N_TOKENS, device=device))
    if as_json:
        print_json({"runs": [dataclasses.asdict(each) for each in found]})
        return
    for each in found:
        make_stdout().print(render_ablation(each))
