"""A run as a Hugging Face folder: config.json, generation_config.json, weights, tokenizer.

transformers is not needed to write it; interop/export_check.py reads it back with transformers.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from glu_bench.data.tokenizers import Tokenizer
from glu_bench.errors import ConfigError
from glu_bench.files import apply_umask, explain_disk, fsync_file, make_folder, write_folder, write_text
from glu_bench.interop.stock import MODEL_TYPES, Stock, find_stock
from glu_bench.interop.stock_tensors import make_tensors
from glu_bench.interop.stock_tokenizer import make_tokenizer_files
from glu_bench.lm.decoder import Decoder
from glu_bench.runs.folder import Run

WEIGHTS = "model.safetensors"


@dataclass(frozen=True, kw_only=True)
class Export:
    """What was written."""

    folder: Path
    n_params: int  # numbers in the weights file: rows that only padded the vocabulary are not in it
    files: list[str]


def export_run(run: Run, folder: Path, *, force: bool = False) -> Export:
    """Write a run's last checkpoint as a folder that transformers loads without code of ours.

    The folder appears whole or not at all. One that holds files is refused; with `force` those of
    the same names are replaced, each at once, and all others stay.
    Raises: ConfigError for a variant without a stock class or a folder in use; DataError if no
    checkpoint verifies; ResourceError if the disk is full.
    """
    stock = find_stock(run.config().variant)
    check_target(folder, force)
    return export_model(run.load_model(), run.load_tokenizer(), stock, folder, run.run_id, force)


def export_model(
    model: Decoder, tokenizer: Tokenizer, stock: Stock, folder: Path, run_id: str, force: bool = False
) -> Export:
    """Write a model and its tokenizer as a folder, on the terms of export_run."""
    tensors = make_tensors(model, stock)
    texts = {
        "config.json": _dump(_make_config(model, stock, tokenizer.end_id, run_id)),
        "generation_config.json": _dump(_make_generation_config(tokenizer.end_id)),
        **make_tokenizer_files(tokenizer, model.config.seq_len),
    }
    _write_folder(folder, tensors, texts, force)
    n_params = sum(weight.numel() for weight in tensors.values())
    return Export(folder=folder, n_params=n_params, files=[*texts, WEIGHTS])


def _make_config(model: Decoder, stock: Stock, end_id: int, run_id: str) -> dict[str, Any]:
    """config.json of the stock class with the decoder's shape."""
    shape = model.config
    return {
        "architectures": [stock.architecture],
        "model_type": MODEL_TYPES[stock.architecture],
        "vocab_size": model.vocab_size,
        "hidden_size": shape.d_model,
        "intermediate_size": model.d_ff,
        "num_hidden_layers": shape.n_layers,
        "num_attention_heads": shape.n_heads,
        "num_key_value_heads": shape.n_heads,
        "head_dim": shape.d_model // shape.n_heads,
        "hidden_act": stock.hidden_act,
        "max_position_embeddings": shape.seq_len,
        "rms_norm_eps": shape.norm_eps,
        "rope_theta": shape.rope_theta,  # read by transformers 4 and by others
        "rope_parameters": {"rope_type": "default", "rope_theta": shape.rope_theta},
        "attention_bias": False,
        "attention_dropout": 0.0,
        "mlp_bias": shape.ffn_bias,
        "tie_word_embeddings": shape.tied_embeddings,
        "bos_token_id": end_id,
        "eos_token_id": end_id,
        "dtype": "float32",
        "torch_dtype": "float32",  # the same key before transformers 4.56
        "glu_bench": {"run_id": run_id, "variant": model.formula.name},  # for people; kept and not used
    }


def check_target(folder: Path, force: bool) -> None:
    """Refuse a folder whose files an export might harm.

    Raises: ConfigError saying what would work.
    """
    with explain_disk(folder):
        if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
            raise ConfigError(f"{folder}: a link or a file, not a folder; name a new folder")
        if not folder.exists():
            return
        if (folder / "config.yaml").exists():
            raise ConfigError(f"{folder}: a run folder; name another to export to")
        if not force and any(folder.iterdir()):
            raise ConfigError(
                f"{folder}: is not empty; name a new folder, or --force replaces the files of an export"
            )


def is_export(folder: Path) -> bool:
    """Whether an export, whole as each is, stands in a folder."""
    return (folder / "config.json").is_file() and (folder / WEIGHTS).is_file()


def _write_folder(folder: Path, tensors: dict[str, Tensor], texts: dict[str, str], force: bool) -> None:
    """Write weights and texts under another name, then put them in place."""
    from safetensors.torch import save_file

    folder = folder.absolute()  # "." has no name to stand beside
    make_folder(folder.parent)
    n_bytes = sum(weight.numel() * weight.element_size() for weight in tensors.values())
    with write_folder(folder, n_bytes, merge=force) as work, explain_disk(folder, n_bytes):
        # transformers asks for this key; a second would stand before or after it by chance
        save_file(tensors, work / WEIGHTS, metadata={"format": "pt"})
        apply_umask(work / WEIGHTS)
        fsync_file(work / WEIGHTS)
        for name, text in texts.items():
            write_text(work / name, text)
        check_target(folder, force)  # somebody may have written there meanwhile


def _make_generation_config(end_id: int) -> dict[str, Any]:
    # padding named here alone: in config.json it would take the end token's gradient in fine-tuning
    return {"bos_token_id": end_id, "eos_token_id": end_id, "pad_token_id": end_id}


def _dump(value: dict[str, Any]) -> str:
    return json.dumps(value, indent=2, allow_nan=False) + "\n"
