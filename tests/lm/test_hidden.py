"""The loudness of hidden vectors at the start: measured, recorded, disturbed by nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from glu_bench.data.order import make_order
from glu_bench.data.prepared import prepare_tokens
from glu_bench.errors import InterruptedRunError
from glu_bench.ffn.formula import list_variants
from glu_bench.lm.decoder import make_decoder
from glu_bench.lm.hidden import measure_hidden_rms
from glu_bench.lm.init import init_weights
from glu_bench.runs.folder import list_runs
from glu_bench.schema import Config
from tests.conftest import StopAt, TinyConfig, Train


def first_tokens(config: Config) -> tuple[Tensor, int]:
    """The tokens of a run's first batch, and the size of its vocabulary. Shapes: (B, T)."""
    tokens = prepare_tokens(config)
    order = make_order(tokens.stream("train"), config.model.seq_len, config.train.batch_size, config.seed)
    return torch.from_numpy(order.batch(0)[:, :-1]), tokens.tokenizer.vocab_size


def hear_hidden_rms(config: Config) -> list[float]:
    """The same by hooks on the plain modules, in their forward pass."""
    tokens_BT, vocab_size = first_tokens(config)
    model = make_decoder(config, vocab_size, fast=False)
    init_weights(model, config.seed, config.init)
    heard: list[float] = []

    def hear(_module: nn.Module, _inputs: object, hidden: Tensor) -> None:
        heard.append(hidden.detach().double().pow(2).mean().sqrt().item())

    for block in model.blocks:
        block.ffn.hidden.register_forward_hook(hear)  # type: ignore[union-attr, operator]
    with torch.no_grad():
        model.eval()(tokens_BT[:4])
    return heard


@pytest.mark.parametrize("name", list_variants())
def test_the_measure_is_that_of_hooks_on_the_plain_modules(name: str, tiny_config: TinyConfig) -> None:
    config = tiny_config(f"variant={name}")
    config.seed = 3
    tokens_BT, vocab_size = first_tokens(config)
    model = make_decoder(config, vocab_size)
    init_weights(model, config.seed, config.init)
    rms = measure_hidden_rms(model, tokens_BT)
    assert len(rms) == config.model.n_layers == 2
    assert rms == pytest.approx(hear_hidden_rms(config), rel=1e-5)


def test_measuring_leaves_the_model_as_it_was(tiny_config: TinyConfig) -> None:
    config = tiny_config("model.dropout=0.5")
    tokens_BT, vocab_size = first_tokens(config)
    model = make_decoder(config, vocab_size)
    init_weights(model, 0)
    for training in (True, False):
        model.train(training)
        torch.manual_seed(0)
        expected = torch.rand(3)
        torch.manual_seed(0)
        measure_hidden_rms(model, tokens_BT)
        assert torch.equal(torch.rand(3), expected)
        assert all(module.training == training for module in model.modules())
    assert all(not block.ffn._forward_pre_hooks for block in model.blocks)
    assert all(parameter.grad is None for parameter in model.parameters())
    with pytest.raises(IndexError):
        measure_hidden_rms(model, torch.full((1, 4), 10**6))
    assert all(not block.ffn._forward_pre_hooks for block in model.blocks)


def rms_of_run(record: dict[str, Any], output_dir: Path) -> list[float]:
    """What the final record says, once it is seen that the first row alone says so too."""
    (run,) = list_runs(output_dir)
    with_rms = [row["step"] for row in run.rows() if "hidden_rms_at_init" in row]
    assert with_rms == [1]
    found: list[float] = record["hidden_rms_at_init"]
    assert run.rows()[0]["hidden_rms_at_init"] == found == run.result()["hidden_rms_at_init"]
    return found


@pytest.mark.parametrize(
    "words", [(), ("variant=relu2", "init=moment"), ("model.dropout=0.5",)], ids=" ".join
)
def test_a_run_records_it_in_the_result_and_the_first_row(
    words: tuple[str, ...], train: Train, tiny_config: TinyConfig, tmp_path: Path
) -> None:
    record = train(*words, "train.log_every=4")
    assert rms_of_run(record, tmp_path) == pytest.approx(hear_hidden_rms(tiny_config(*words)), rel=1e-5)


@pytest.mark.parametrize("stops", [(1,), (3, 1)])
def test_it_is_the_same_after_a_stop(stops: tuple[int, ...], train: Train, tmp_path: Path) -> None:
    straight = rms_of_run(train(output_dir=tmp_path / "straight"), tmp_path / "straight")
    for n_steps in stops:
        with pytest.raises(InterruptedRunError):
            train(output_dir=tmp_path / "resumed", stop=StopAt(n_steps))
    assert rms_of_run(train(output_dir=tmp_path / "resumed"), tmp_path / "resumed") == straight


def test_dropout_does_not_disturb_it(train: Train, tmp_path: Path) -> None:
    found = [
        rms_of_run(train(f"model.dropout={share}", output_dir=tmp_path / str(share)), tmp_path / str(share))
        for share in (0.0, 0.3)
    ]
    assert found[0] == found[1]
