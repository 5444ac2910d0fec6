"""glu-bench sample: text from a run."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from glu_bench.cli.options import AllowPlugins, AsJson, OneRun, OutputDir, Quiet
from glu_bench.files import OUTPUTS


def sample(
    run: OneRun,
    *,
    prompt: Annotated[str, typer.Option("--prompt", help="Text to continue.")] = "def ",
    n_tokens: Annotated[int, typer.Option("--tokens", min=1, help="Tokens to write.")] = 400,
    temperature: Annotated[float, typer.Option("--temperature", min=0, help="0 takes the likeliest.")] = 0.7,
    top_k: Annotated[int | None, typer.Option("--top-k", min=1, help="Keep only the k likeliest.")] = None,
    top_p: Annotated[
        float | None,
        typer.Option("--top-p", min=0, max=1, help="Keep only the likeliest that together reach this."),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="The same seed gives the same text.")] = 0,
    allow_plugin: AllowPlugins = None,
    output_dir: OutputDir = OUTPUTS,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Continue a prompt with a run's last checkpoint.

    Example: glu-bench sample swiglu-nano --prompt "class " --temperature 0.6
    """
    from glu_bench.data.stream import TextStream
    from glu_bench.errors import ConfigError
    from glu_bench.ffn.plugins import load_plugins
    from glu_bench.lm.sampling import sample_tokens
    from glu_bench.runs.folder import find_run
    from glu_bench.show.console import print_json

    del quiet  # nothing is said beside the text
    load_plugins(allow_plugin or [], packages=False)
    found = find_run(run, output_dir)
    tokenizer = found.load_tokenizer()
    ids = [int(i) for i in tokenizer.encode([prompt])[0]]
    if not ids:
        raise ConfigError("--prompt: at least one character")
    model = found.load_model()
    stream = TextStream(tokenizer.decode)
    pieces: list[str] = []

    def show(piece: str) -> None:
        pieces.append(piece)
        if not as_json and piece:
            _write(piece)

    if not as_json:
        _write(prompt)
    tokens = sample_tokens(model, ids, n_tokens, temperature=temperature, top_k=top_k, top_p=top_p, seed=seed)
    for token in tokens:
        show(stream.push(token))
    show(stream.close())
    if as_json:
        print_json(
            {"run_id": found.run_id, "prompt": prompt, "text": "".join(pieces), "tokens": len(stream.ids)}
        )
    else:
        _write("\n")


def _write(text: str) -> None:
    """Characters at once, those that could move the cursor or that the terminal lacks replaced."""
    shown = "".join(c if c.isprintable() or c in "\n\t" else "�" for c in text)
    encoding = sys.stdout.encoding or "utf-8"
    sys.stdout.write(shown.encode(encoding, errors="replace").decode(encoding))
    sys.stdout.flush()
