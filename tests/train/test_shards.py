"""A whole training step on the meta device: no tensor is made on the CPU by accident."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from glu_bench.config import load_config
from glu_bench.lm import attention
from glu_bench.lm.decoder import make_decoder
from glu_bench.ranks import ALONE
from glu_bench.train.optimizer import make_optimizer
from glu_bench.train.shards import make_shards

B, T = 2, 64


class Watch(TorchDispatchMode):
    """Notes every operation whose result is elsewhere; torch's own step counters are single numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.elsewhere: list[str] = []
        self.n_operations = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        self.n_operations += 1
        for value in tree_leaves(result):
            if isinstance(value, Tensor) and not value.is_meta and value.dim() > 0:
                self.elsewhere.append(f"{func} {tuple(value.shape)}")
        return result


# torch's Adafactor asks tensors for their values, which nothing on this device has
@pytest.mark.parametrize("optim", ["adamw", "muon"])
@pytest.mark.parametrize("vocab_size", [257, 2**18])
@pytest.mark.parametrize("path", ["matmul", "sdpa", "plain"])
@pytest.mark.parametrize("recompute", [False, True])
def test_a_step_makes_no_tensor_on_the_cpu(
    optim: str, vocab_size: int, path: str, recompute: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Forward, backward, clip, update; 2^18 ids take the loss in chunks."""
    monkeypatch.setattr(attention, "choose_attention", lambda *_arguments: path)
    words = ["model=pico", "variant=xielu", "model.dropout=0.1", "model.ffn_bias=true", f"optim={optim}"]
    config = load_config([*words, "train.compile=false"])
    with torch.device("meta"):
        model = make_decoder(config, vocab_size, fast=path != "plain")
    shards = make_shards(model, config.train, ALONE, recompute)
    optimizer = make_optimizer(model, config.optim)
    optimizer.set_rate(1e-3)
    tokens_BT = torch.zeros(B, T, dtype=torch.int64, device="meta")
    with Watch() as watch:
        loss = shards.nats(tokens_BT, tokens_BT).sum() / (B * T)
        shards.backward(loss)
        assert all(p.grad is not None and p.grad.is_meta for p in model.parameters())
        torch.nn.utils.clip_grad_norm_(list(model.parameters()), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    assert watch.elsewhere == []
    assert watch.n_operations > 100
