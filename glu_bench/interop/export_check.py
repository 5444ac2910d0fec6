"""An exported folder against the run: the same ids and the same logits through transformers."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from glu_bench.data.prepared import TokenStream
from glu_bench.data.tokenizers import END_TOKENS, Tokenizer
from glu_bench.errors import DataError
from glu_bench.evaluate.perplexity import cut_windows
from glu_bench.evaluate.run import find_stream
from glu_bench.interop.hf_folder import load_auto_tokenizer, load_stock_model
from glu_bench.runs.folder import Run

MAX_DIFFERENCE = 1e-4  # of a logit; fp32 of two orders of summation stays some 20 times below
N_WINDOWS = 4
# what tokenizers differ in: nothing, spaces, several bytes a character, controls, a lone joiner
PROBES = (
    *("", " ", "  two  spaces\n\n\tand a tab ", "naïve Straße 東京 🙂👩\u200d🚀", "\x00\x1b[0m\u202e\u200d"),
    "e\u0301 é",  # one letter spelled twice
)


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """How near the folder comes to the run."""

    max_difference: float  # of any logit, fp32
    limit: float
    n_tokens: int  # whose logits were compared
    n_texts: int  # whose ids were compared
    transformers: str  # its version


def check_export(run: Run, folder: Path, *, files: Sequence[str] = ()) -> Agreement:
    """Compare an exported folder with the run it came from, on the run's test split or on `files`.

    Raises: DataError for other ids, another end token, or a logit over MAX_DIFFERENCE apart;
    ConfigError without transformers.
    """
    theirs = load_stock_model(folder)
    import transformers

    ours, tokenizer = run.load_model(), run.load_tokenizer()
    if (theirs.config.vocab_size, theirs.config.eos_token_id) != (ours.vocab_size, tokenizer.end_id):
        raise DataError(
            f"{folder}: {theirs.config.vocab_size} ids ending with {theirs.config.eos_token_id}; "
            f"{run.run_id} has {ours.vocab_size} ending with {tokenizer.end_id}"
        )
    stream = find_stream(run, "test", files)
    windows_BT = _cut(stream, ours.config.seq_len)
    n_texts = _compare_ids(folder, tokenizer, [tokenizer.decode(ids.tolist()) for ids in windows_BT])
    with torch.no_grad():
        difference_BTV = (ours(windows_BT) - theirs(input_ids=windows_BT, use_cache=False).logits).abs()
    found = float(difference_BTV.max())
    if not found <= MAX_DIFFERENCE:  # NaN is no agreement
        raise DataError(
            f"{folder}: a logit differs by {found:.3g} from {run.run_id}'s, at most {MAX_DIFFERENCE:g}"
        )
    return Agreement(
        max_difference=found,
        limit=MAX_DIFFERENCE,
        n_tokens=windows_BT.numel(),
        n_texts=n_texts,
        transformers=transformers.__version__,
    )


def _cut(stream: TokenStream, seq_len: int) -> torch.Tensor:
    """The first windows of a text. Shape: (B, T), int64; T less than seq_len if the text is short.

    Raises: DataError for a text of less than two tokens.
    """
    if len(stream.ids) < 2:
        raise DataError(f"{stream.split}: {len(stream.ids)} tokens, there is nothing to compare")
    head = stream.ids[: N_WINDOWS * seq_len + 1]
    width = min(seq_len, len(head) - 1)
    windows = next(cut_windows(head, width, width, N_WINDOWS))
    return torch.from_numpy(windows.tokens_BT[windows.scored_BT.any(axis=1)])


def _compare_ids(folder: Path, tokenizer: Tokenizer, texts: list[str]) -> int:
    """How many texts AutoTokenizer gives the run's ids for: all.

    Raises: DataError with the first text that gets others.
    """
    theirs = load_auto_tokenizer(folder)
    endings = {*END_TOKENS, *([str(theirs.eos_token)] if theirs.eos_token else [])}
    spelled = [f"one {end}{end} two" for end in sorted(endings)]
    texts = [*texts, *PROBES, *spelled]
    for text, ids in zip(texts, tokenizer.encode(texts), strict=True):
        found = theirs(text)["input_ids"]
        if found != ids.tolist():
            pairs = itertools.zip_longest(ids.tolist(), found)
            at = next(i for i, (mine, other) in enumerate(pairs) if mine != other)
            raise DataError(
                f"{folder}: AutoTokenizer gives other ids than the run's tokenizer for {text[:40]!r}, "
                f"from token {at} on"
            )
    return len(texts)
