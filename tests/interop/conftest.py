"""Tiny decoders of random weights, gains and biases included, and folders exported from them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from glu_bench.data.tokenizers import ByteTokenizer, Tokenizer
from glu_bench.interop.export import export_model
from glu_bench.interop.stock import find_stock
from glu_bench.lm.decoder import Decoder, make_decoder
from tests.composed import compose

MakeDecoder = Callable[..., Decoder]
ExportDecoder = Callable[..., Path]


@pytest.fixture
def random_decoder() -> MakeDecoder:
    """Makes a decoder of pico's shape whose every number is drawn, so that none can be forgotten."""

    def make(variant: str, *words: str, vocab_size: int = 257) -> Decoder:
        settings = ("model=pico", "model.seq_len=32", "tokenizer.vocab_multiple=64")
        model = make_decoder(compose(f"variant={variant}", *settings, *words), vocab_size)
        draw = torch.Generator().manual_seed(5)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                noise = torch.randn(parameter.shape, generator=draw)
                if parameter.dim() == 2:
                    parameter.copy_(noise * parameter.shape[1] ** -0.5)
                else:  # gains around 1, biases around 0, what a function learns around its start
                    parameter.copy_(0.3 * noise + (0.0 if name.endswith("bias") else parameter))
        return model.eval()

    return make


@pytest.fixture
def exported(tmp_path: Path) -> ExportDecoder:
    """Exports a decoder; returns the folder."""

    def export(model: Decoder, tokenizer: Tokenizer | None = None) -> Path:
        stock = find_stock(model.formula.spec)
        export_model(model, tokenizer or ByteTokenizer(), stock, tmp_path / "exported", "a-run")
        return tmp_path / "exported"

    return export
