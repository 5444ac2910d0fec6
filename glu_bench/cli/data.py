"""glu-bench data: texts, prepared and looked at."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from glu_bench.cli.completion import complete_setting
from glu_bench.cli.options import AsJson, ConfigDir, Quiet

app = typer.Typer(
    help="""Prepare a text, or see what training will see of it.

Example: glu-bench data show data=text data.files=notes.txt
""",
    no_args_is_help=True,
    rich_markup_mode=None,
)
Text = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="KEY=VALUE",
        help="Settings, such as data=text data.files=notes.txt.",
        autocompletion=complete_setting,
    ),
]


@app.command()
def prepare(
    settings: Text = None, *, config_dir: ConfigDir = None, as_json: AsJson = False, quiet: Quiet = False
) -> None:
    """Tokenise a text into the cache, before any training.

    Training then never asks for the text again.

    Example: glu-bench data prepare data=wikitext2 tokenizer=bpe
    """
    from glu_bench.show.console import make_stderr, make_stdout, plain, print_json
    from glu_bench.show.tables import render_splits

    found = _describe(settings or [], config_dir, quiet)
    if as_json:
        print_json(found)
        return
    make_stdout().print(render_splits(found))
    if not quiet:
        make_stderr().print(plain(f"tokens: {found['folder']}"))


@app.command()
def show(
    settings: Text = None, *, config_dir: ConfigDir = None, as_json: AsJson = False, quiet: Quiet = False
) -> None:
    """Show a text as training sees it.

    Sizes, fingerprints, overlap, the head of each split.

    Example: glu-bench data show data=stdlib
    """
    from glu_bench.show.console import make_stdout, plain, print_json
    from glu_bench.show.tables import render_rows, render_splits

    found = _describe(settings or [], config_dir, quiet)
    if as_json:
        print_json(found)
        return
    stdout = make_stdout()
    stdout.print(render_splits(found))
    facts = [
        (key, found[key]) for key in ("data_fingerprint", "tokenizer_fingerprint", "vocab_size", "folder")
    ]
    facts.append(("overlap", ", ".join(f"{n} of {split} in train" for split, n in found["overlap"].items())))
    stdout.print(render_rows("", ("", ""), facts, left=2))
    for split, text in found["heads"].items():
        stdout.print(plain(f"the head of {split}:"))
        for line in text.splitlines()[:6]:
            stdout.print(plain(f"  {line}"))


def _describe(settings: list[str], config_dir: Path | None, quiet: bool) -> dict[str, Any]:
    """What the text of these settings is, its tokens prepared."""
    from glu_bench.config import load_config
    from glu_bench.data.corpora import find_corpus
    from glu_bench.data.prepared import estimate_disk, prepare_tokens
    from glu_bench.show.console import make_stderr, plain
    from glu_bench.show.progress import TrainScreen

    config = load_config(settings, config_dir)
    stderr = make_stderr()
    if not quiet:
        corpus = find_corpus(config.data)
        n_disk = estimate_disk(config, corpus)
        size = "of unknown size" if corpus.n_bytes is None else f"{corpus.n_bytes / 1e6:,.1f} MB on disk"
        tokens_size = "" if n_disk is None else f", tokens about {n_disk / 1e6:,.1f} MB"
        stderr.print(plain(f"{config.data.corpus}: text {size}{tokens_size}"))
    with TrainScreen(stderr, quiet) as screen:
        tokens = prepare_tokens(config, screen.prepare)
    return {"corpus": config.data.corpus, "tokenizer": config.tokenizer.kind, **tokens.describe()}
