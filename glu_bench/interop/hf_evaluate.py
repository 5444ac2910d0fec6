"""A Hugging Face folder measured as runs are: the same windows, the same nats, bits per byte of the text.

Every token but the stream's first is scored once, in fp32, given those before it in its window;
no begin token is put before a window, and the end token follows each document.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from glu_bench.data.prepared import TokenStream, prepare_tokens, whole_stream
from glu_bench.data.tokenizers import ByteTokenizer, FileTokenizer, Tokenizer, load_tokenizer_file
from glu_bench.device import resolve_device
from glu_bench.errors import ConfigError, DataError
from glu_bench.evaluate.loss import HeldOutLoss
from glu_bench.evaluate.perplexity import Nats, evaluate_stream
from glu_bench.evaluate.run import check_fingerprint, find_stream
from glu_bench.interop.hf_folder import load_stock_model, read_stock_config
from glu_bench.interop.stock_tokenizer import make_byte_json
from glu_bench.runs.folder import Run

if TYPE_CHECKING:
    from transformers import PreTrainedModel

LONGEST_WINDOW = 2048  # tokens, where no run sets the window: some models read a hundred thousand
BATCH_LOGITS = 2**24  # a batch is as many windows as make so many logits, 64 MiB in fp32
FILE_COLUMN = "text"  # of rows (JSON lines, CSV, Parquet), where no run names one


def evaluate_folder(
    folder: Path,
    *,
    run: Run | None = None,
    split: str = "test",
    files: Sequence[str] = (),
    stride: int | None = None,
    device: str | None = None,
) -> HeldOutLoss:
    """Loss of a Llama or Arcee folder on a split of a run's text, or on the whole of other files.

    With a run, window and stride are the run's; without, the window is the model's context up to
    LONGEST_WINDOW. Under the run's own tokenizer the stream is the run's, token by token.
    Raises: ConfigError if there is no text or a window does not fit; DataError if folder, text or
    tokenizer cannot be used, or the loss is not finite.
    """
    stock = read_stock_config(folder)
    if run is None and not files:
        raise ConfigError(f"--hf {folder}: on which text? --files other.txt, or a RUN whose text it is")
    config = run.config() if run else None
    n_context = _read_context(folder, stock)
    seq_len = config.model.seq_len if config else min(n_context, LONGEST_WINDOW)
    if seq_len > n_context:
        raise ConfigError(f"--hf {folder}: reads {n_context} tokens, the run's windows have {seq_len}")
    if stride is not None and not 1 <= stride <= seq_len:
        raise ConfigError(f"stride {stride}: from 1 to the window of {seq_len} tokens")
    target = torch.device(resolve_device(device or "auto"))
    tokenizer = load_folder_tokenizer(folder, stock)
    if files:
        stream = whole_stream(list(files), config.data.column if config else FILE_COLUMN, tokenizer)
    else:
        assert run is not None  # or there would be no text
        stream = _find_run_stream(run, split, folder, tokenizer)
    model = load_stock_model(folder)
    n_ids = int(model.config.vocab_size)
    found = evaluate_stream(
        _make_nats(model.to(target), n_ids, folder),
        stream,
        seq_len=seq_len,
        batch_size=max(1, BATCH_LOGITS // (seq_len * n_ids)),
        stride=stride or (config.evaluation.stride if config else None),
        device=target,
    )
    if not math.isfinite(found.loss_nats):
        raise DataError(f"{folder}: the loss is {found.loss_nats}, its weights are of no use")
    return found


def load_folder_tokenizer(folder: Path, stock: dict[str, Any]) -> Tokenizer:
    """The tokenizer.json of a folder; documents end with the first end token of config.json.

    Raises: DataError if it is missing, is not one, or has no such token.
    """
    from tokenizers import Tokenizer as Inner

    path = folder / "tokenizer.json"
    try:
        inner = Inner.from_file(str(path))
    except Exception as error:  # the library raises plain Exception
        raise DataError(f"{path}: no tokenizer can be read ({error})") from None
    if path.read_text(encoding="utf-8") == make_byte_json():
        return ByteTokenizer()
    end_id = stock.get("eos_token_id")
    end_id = end_id[0] if isinstance(end_id, list) and end_id else end_id
    if not isinstance(end_id, int) or end_id < 0:
        return load_tokenizer_file(path, None)  # then by its usual names
    end_token = inner.id_to_token(end_id)
    if end_token is None:
        raise DataError(f"{path}: has no token {end_id}, the end token of config.json")
    return load_tokenizer_file(path, end_token)


def _find_run_stream(run: Run, split: str, folder: Path, tokenizer: Tokenizer) -> TokenStream:
    """A split of the run's text in the folder's tokens."""
    if tokenizer.fingerprint == run.environment().get("tokenizer_fingerprint"):
        return find_stream(run, split)
    config = run.config()
    spec = dataclasses.replace(config.tokenizer, kind="byte", vocab_size=None, path=None, revision=None)
    if isinstance(tokenizer, FileTokenizer):
        end_token = tokenizer.inner.id_to_token(tokenizer.end_id)
        path = str(folder / "tokenizer.json")
        spec = dataclasses.replace(spec, kind="file", path=path, end_token=end_token)
    tokens = prepare_tokens(dataclasses.replace(config, tokenizer=spec))
    check_fingerprint(run, tokens)
    return tokens.stream(split)


def _read_context(folder: Path, stock: dict[str, Any]) -> int:
    n_context = stock.get("max_position_embeddings")
    if not isinstance(n_context, int) or n_context < 2:
        raise DataError(f"{folder}/config.json: max_position_embeddings is {n_context!r}")
    return n_context


def _make_nats(model: PreTrainedModel, n_ids: int, folder: Path) -> Nats:
    """The loss of every target in nats, as Decoder.nats gives it."""

    def nats(tokens_BT: Tensor, targets_BT: Tensor) -> Tensor:
        greatest = int(torch.maximum(tokens_BT.max(), targets_BT.max()))
        if greatest >= n_ids:
            raise DataError(f"{folder}: its tokenizer gives id {greatest}, its model has {n_ids} ids")
        logits_BTV = model(input_ids=tokens_BT, use_cache=False).logits
        return F.cross_entropy(logits_BTV.transpose(1, 2), targets_BT, reduction="none")

    return nats
