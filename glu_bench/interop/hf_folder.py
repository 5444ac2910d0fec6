"""A Hugging Face folder read with transformers: local files, safetensors, stock classes, nothing else.

Such a folder may be anybody's. No code in it runs and no pickle is opened, and what does not fit
its own config.json to the last tensor is refused.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from glu_bench.errors import ConfigError, DataError
from glu_bench.files import read_json
from glu_bench.interop.stock import ARCEE, LLAMA, MODEL_TYPES
from glu_bench.runs.tensor_file import check_header

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

WEIGHTS = ("model.safetensors", "model.safetensors.index.json")


def require_transformers() -> None:
    """Return if transformers is installed.

    Raises: ConfigError naming the extra.
    """
    try:
        import transformers  # noqa: F401
    except ImportError:
        raise ConfigError("transformers is not installed; pip install '.[transformers]'") from None


def read_stock_config(folder: Path) -> dict[str, Any]:
    """config.json of a folder that one of the stock classes can load.

    Raises: DataError for another architecture, an adapter, quantised weights, or weights that are
    not safetensors.
    """
    config = read_json(folder / "config.json")
    named = config.get("architectures")
    architecture = named[0] if isinstance(named, list) and named else None
    known = MODEL_TYPES.get(architecture) if isinstance(architecture, str) else None
    if known is None or config.get("model_type") != known:
        raise DataError(
            f"{folder}/config.json: architecture {architecture!r} of type {config.get('model_type')!r}; "
            f"{' and '.join(MODEL_TYPES)} can be read"
        )
    if config.get("quantization_config") is not None:
        raise DataError(f"{folder}/config.json: quantised weights are not read")
    if (folder / "adapter_config.json").exists():  # it would send transformers elsewhere
        raise DataError(f"{folder}: an adapter of another model; merge it into one first")
    if not any((folder / name).is_file() for name in WEIGHTS):
        raise DataError(f"{folder}: has no {WEIGHTS[0]}; weights in other formats are not read")
    return config


def load_stock_model(folder: Path) -> PreTrainedModel:
    """The model in a folder, fp32, on the CPU, in evaluation mode.

    Raises: ConfigError without transformers; DataError for anything read_stock_config refuses, or
    tensors that config.json does not describe.
    """
    architecture = read_stock_config(folder)["architectures"][0]
    for path in folder.glob("*.safetensors"):
        check_header(path)
    require_transformers()
    import torch
    from transformers import ArceeForCausalLM, LlamaForCausalLM
    from transformers.utils import logging

    logging.set_verbosity_error()  # each of its remarks is one of our errors or does not matter here
    logging.disable_progress_bar()
    stock_class = {LLAMA: LlamaForCausalLM, ARCEE: ArceeForCausalLM}[architecture]
    try:
        model, found = stock_class.from_pretrained(
            folder,
            dtype=torch.float32,
            attn_implementation="sdpa",  # config.json may name a kernel of the Hub
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
    except Exception as error:  # transformers, safetensors and torch each have their own
        raise DataError(f"{folder}: transformers cannot load it ({_first_line(error)})") from None
    for what in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if found[what]:
            raise DataError(f"{folder}: {what.replace('_', ' ')} in the weights: {min(found[what])}")
    evaluating: PreTrainedModel = model.eval()
    _widen(evaluating, folder)
    return evaluating


def _widen(model: PreTrainedModel, folder: Path) -> None:
    """Make fp32 what transformers loads narrower although it was asked for fp32, from the file's own numbers.

    These are the scalars of xielu, which transformers 5.23 rounds to bf16 in Arcee, up to 0.4 % off.
    """
    import torch
    from safetensors import safe_open

    state = model.state_dict()
    narrow = {name for name, value in state.items() if value.dtype in (torch.bfloat16, torch.float16)}
    if not narrow:
        return
    model.float()
    state = model.state_dict()
    for path in sorted(folder.glob("model*.safetensors")):
        with safe_open(path, framework="pt") as file:
            for name in narrow & set(file.keys()):
                state[name].copy_(file.get_tensor(name))


def load_auto_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """The tokenizer that AutoTokenizer finds in a folder.

    Raises: ConfigError without transformers; DataError if it cannot be read.
    """
    require_transformers()
    from transformers import AutoTokenizer

    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        )
    except Exception as error:  # transformers and tokenizers each have their own
        raise DataError(f"{folder}: no tokenizer can be loaded ({_first_line(error)})") from None
    return tokenizer


def _first_line(error: Exception) -> str:
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
