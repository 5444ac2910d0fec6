"""Our blocks inside a transformers Llama."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

import glu_bench
from glu_bench.errors import ConfigError
from glu_bench.ffn.feedforward import FeedForward
from glu_bench.ffn.formula import list_variants

D, F = 24, 64


@pytest.fixture
def make_llama() -> Callable[..., Any]:
    transformers = pytest.importorskip("transformers")

    def make(**changes: Any) -> Any:
        torch.manual_seed(0)
        config = transformers.LlamaConfig(
            vocab_size=50,
            hidden_size=D,
            intermediate_size=F,
            num_hidden_layers=2,
            num_attention_heads=2,
            max_position_embeddings=32,
            **changes,
        )
        return transformers.LlamaForCausalLM(config)

    return make


def count_mlp(model: Any) -> int:
    return sum(p.numel() for layer in model.model.layers for p in layer.mlp.parameters())


@pytest.mark.parametrize("name", list_variants())
def test_every_mlp_is_replaced_and_a_step_trains(make_llama: Callable[..., Any], name: str) -> None:
    model = make_llama()
    n_before = count_mlp(model)
    assert glu_bench.swap_feedforward(model, name, match="params") is model
    blocks = [layer.mlp for layer in model.model.layers]
    assert all(isinstance(block, FeedForward) and block.hidden.formula.name == name for block in blocks)
    assert abs(count_mlp(model) / n_before - 1) < 0.01
    tokens = torch.randint(0, 50, (2, 16), generator=torch.Generator().manual_seed(0))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    losses = []
    for _ in range(3):
        loss = model(input_ids=tokens, labels=tokens).loss
        loss.backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < losses[0]


def test_the_same_function_and_weights_give_the_same_logits(make_llama: Callable[..., Any]) -> None:
    """Llama's own MLP is SwiGLU: with its weights ours is the same model."""
    model, ours = make_llama(mlp_bias=True), make_llama(mlp_bias=True)
    with torch.no_grad():
        for p in model.parameters():
            p += 0.1 * torch.randn(p.shape, generator=torch.Generator().manual_seed(p.numel()))
    ours.load_state_dict(model.state_dict())
    glu_bench.swap_feedforward(ours, "swiglu")
    with torch.no_grad():
        for layer, theirs in zip(ours.model.layers, model.model.layers, strict=True):
            into = layer.mlp.hidden.in_proj
            into.weight.copy_(torch.cat([theirs.mlp.gate_proj.weight, theirs.mlp.up_proj.weight]))
            into.bias.copy_(torch.cat([theirs.mlp.gate_proj.bias, theirs.mlp.up_proj.bias]))
            layer.mlp.down.load_state_dict(theirs.mlp.down_proj.state_dict())
        tokens = torch.arange(32).view(2, 16)
        torch.testing.assert_close(ours(tokens).logits, model(tokens).logits, rtol=1e-5, atol=1e-5)


def test_width_is_kept_and_dtype_stays(make_llama: Callable[..., Any]) -> None:
    model = make_llama().to(torch.bfloat16)
    glu_bench.swap_feedforward(model, "relu", match="width")
    assert model.model.layers[0].mlp.down.in_features == F
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}


def test_what_cannot_be_swapped_is_said(make_llama: Callable[..., Any]) -> None:
    with pytest.raises(ConfigError, match="gate_proj"):
        glu_bench.swap_feedforward(torch.nn.Linear(2, 2), "relu")
    with pytest.raises(ConfigError, match="did you mean 'geglu'"):
        glu_bench.swap_feedforward(make_llama(), "gegluu")
    with pytest.raises(ConfigError, match="match=flops"):
        glu_bench.swap_feedforward(make_llama(), "geglu", match="flops")
