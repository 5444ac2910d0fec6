"""The compiled decoder gives the loss and the gradients of the eager one."""

from __future__ import annotations

import pytest
import torch

from glu_bench.lm.compiled import compile_decoder
from tests.lm.test_decoder import loss_and_gradients, make_model, make_tokens

pytestmark = [
    pytest.mark.slow,  # compiles
    pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # torch's compiler uses what torch deprecates
]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_same_loss_and_gradients(precision: str) -> None:
    torch.compiler.reset()
    tokens = make_tokens(B=2, T=33)
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
        expected = loss_and_gradients(make_model(), tokens)
        model = make_model()
        loss = compile_decoder(model)(*tokens).mean()
    loss.backward()
    got = [loss.detach(), *(p.grad for p in model.parameters() if p.grad is not None)]
    tolerance = 0.02 if precision == "bf16" else 1e-4
    assert got[0].item() == pytest.approx(expected[0].item(), rel=tolerance / 10)
    for a, b in zip(got[1:], expected[1:], strict=True):
        assert (a - b).norm() < tolerance * b.norm()


def test_one_function_for_training_and_evaluation() -> None:
    torch.compiler.reset()
    tokens = make_tokens(B=2, T=33)
    model = make_model()
    nats = compile_decoder(model)
    nats(*tokens).mean().backward()
    model.eval()
    with torch.no_grad():
        evaluated = nats(*tokens)
        torch.testing.assert_close(evaluated, model.nats(*tokens), rtol=1e-4, atol=1e-4)
    assert not evaluated.requires_grad


def test_one_graph_serves_all_blocks() -> None:
    torch.compiler.reset()
    torch._dynamo.utils.counters.clear()
    compile_decoder(make_model("model.n_layers=3"))(*make_tokens())
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 2  # a block and the tail


def test_many_models_in_one_process() -> None:
    """torch keeps eight graphs a function; the ninth model must not run into that."""
    torch.compiler.reset()
    tokens = make_tokens(B=1, T=5)
    for d_ff in range(16, 26):
        torch._dynamo.utils.counters.clear()
        with torch.no_grad():
            compile_decoder(make_model("match=none", f"match.d_ff={d_ff}"))(*tokens)
        assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 2, d_ff
