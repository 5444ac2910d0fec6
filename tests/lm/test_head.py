"""The loss in chunks against torch's cross-entropy over all logits at once."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from glu_bench.lm import head
from glu_bench.lm.compiled import compile_decoder
from glu_bench.lm.decoder import make_decoder
from glu_bench.lm.head import choose_loss, chunked_nats
from glu_bench.lm.init import init_weights
from tests.composed import compose

B, T, D, V = 3, 7, 16, 101
N = B * T


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """21 tokens in six chunks of four, the last of one."""
    monkeypatch.setattr(head, "CHUNK_BYTES", 4 * V * 4)


def make_case(dtype: torch.dtype = torch.float64, n_rows: int = V) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The stream, the head's weight, targets, and what each loss counts: some nothing, some less."""
    generator = torch.Generator().manual_seed(0)
    x_BTD = torch.randn(B, T, D, generator=generator, dtype=torch.float64)
    weight_RD = torch.randn(n_rows, D, generator=generator, dtype=torch.float64)
    targets_BT = torch.randint(V, (B, T), generator=generator)
    counts_BT = torch.randn(B, T, generator=generator, dtype=torch.float64).clamp(-1.0, 0.7)
    counts_BT[0] = 0.0
    return x_BTD.to(dtype).requires_grad_(), weight_RD.to(dtype).requires_grad_(), targets_BT, counts_BT


def exact(x_BTD: Tensor, weight_RD: Tensor, targets_BT: Tensor) -> Tensor:
    """torch's loss over all logits, in float64."""
    logits_BTV = F.linear(x_BTD.double(), weight_RD.double())[..., :V]
    return F.cross_entropy(logits_BTV.view(-1, V), targets_BT.view(-1), reduction="none").view(B, T)


def losses_and_gradients(chunked: bool, how: str, dtype: torch.dtype, n_rows: int = V) -> list[Tensor]:
    x_BTD, weight_RD, targets_BT, counts_BT = make_case(dtype, n_rows)
    if chunked:
        nats_BT = chunked_nats(x_BTD, weight_RD, targets_BT, V)
    else:
        nats_BT = exact(x_BTD, weight_RD, targets_BT)
    if how == "counted":
        (nats_BT * counts_BT.to(nats_BT.dtype)).sum().backward()
    elif how == "sum":
        (nats_BT.sum() / 5).backward()
    else:
        nats_BT.mean().backward()
    assert x_BTD.grad is not None
    assert weight_RD.grad is not None
    return [nats_BT.detach(), x_BTD.grad, weight_RD.grad]


@pytest.mark.parametrize("how", ["sum", "mean", "counted"])
@pytest.mark.parametrize("n_rows", [V, 128])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 2e-6)])
def test_losses_and_gradients_equal(how: str, n_rows: int, dtype: torch.dtype, tolerance: float) -> None:
    got = losses_and_gradients(True, how, dtype, n_rows)
    expected = losses_and_gradients(False, how, dtype, n_rows)
    for a, b in zip(got, expected, strict=True):
        assert a.dtype == dtype
        torch.testing.assert_close(a.double(), b.double(), rtol=tolerance, atol=tolerance)
    assert (got[2][V:] == 0).all()


@pytest.mark.parametrize("how", ["sum", "counted"])
def test_bf16_autocast_is_within_one_percent_in_norm(how: str) -> None:
    """bf16 has 8 bits: 2^-9 a number at most, and losses of 5 nats."""
    expected = losses_and_gradients(False, how, torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        got = losses_and_gradients(True, how, torch.float32)
    for a, b in zip(got, expected, strict=True):
        assert a.dtype == torch.float32
        assert (a.double() - b.double()).norm() < 0.01 * b.double().norm()


def test_a_target_that_is_all_but_certain_keeps_its_gradient() -> None:
    """p = 0.9997 is 1 in bf16, and 1 - p is not 0."""
    x_BTD = torch.full((1, 1, 1), 8.0, requires_grad=True)
    weight_RD = torch.tensor([[1.0], [0.0]], requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        chunked_nats(x_BTD, weight_RD, torch.zeros(1, 1, dtype=torch.int64), 2).sum().backward()
    assert x_BTD.grad is not None
    assert x_BTD.grad.item() == pytest.approx(-1 / (1 + math.exp(8)), rel=0.01)


def test_losses_that_count_nothing_have_no_gradient() -> None:
    x_BTD, weight_RD, targets_BT, _ = make_case()
    (chunked_nats(x_BTD, weight_RD, targets_BT, V) * torch.zeros(B, T)).sum().backward()
    assert x_BTD.grad is not None
    assert weight_RD.grad is not None
    assert (x_BTD.grad == 0).all()
    assert (weight_RD.grad == 0).all()


@pytest.mark.parametrize(("how", "n_products"), [("sum", 3), ("mean", 3), ("counted", 5)])
def test_a_sum_or_mean_multiplies_three_times_as_the_plain_loss_does(how: str, n_products: int) -> None:
    with torch.autocast("cpu", torch.bfloat16), FlopCounterMode(display=False) as counter:
        losses_and_gradients(True, how, torch.float32)
    assert counter.get_total_flops() == n_products * 2 * N * V * D


def test_what_is_kept_does_not_grow_with_tokens_times_vocabulary() -> None:
    x_BTD, weight_RD, targets_BT, _ = make_case()
    kept: list[Tensor] = []

    def keep(tensor: Tensor) -> Tensor:
        kept.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        chunked_nats(x_BTD, weight_RD, targets_BT, V)
    assert sum(tensor.numel() for tensor in kept) == 2 * N * D + 2 * V * D + N


def test_without_gradients_nothing_but_the_losses_is_made() -> None:
    x_BTD, weight_RD, targets_BT, _ = make_case()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        nats_BT = chunked_nats(x_BTD, weight_RD, targets_BT, V)
    assert counter.get_total_flops() == 2 * N * V * D
    assert not nats_BT.requires_grad
    torch.testing.assert_close(nats_BT, exact(x_BTD, weight_RD, targets_BT).detach(), rtol=1e-12, atol=0)


def test_only_wanted_gradients_are_made() -> None:
    x_BTD, weight_RD, targets_BT, counts_BT = make_case()
    weight_RD.requires_grad_(False)
    with FlopCounterMode(display=False) as counter:
        (chunked_nats(x_BTD, weight_RD, targets_BT, V) * counts_BT).sum().backward()
    assert counter.get_total_flops() == 2 * 2 * N * V * D
    assert weight_RD.grad is None


def test_gradient_by_finite_differences() -> None:
    x_BTD, weight_RD, targets_BT, _ = make_case()
    assert torch.autograd.gradcheck(lambda x, w: chunked_nats(x, w, targets_BT, V), [x_BTD, weight_RD])


def test_a_graph_can_be_run_twice() -> None:
    x_BTD, weight_RD, targets_BT, _ = make_case()
    loss = chunked_nats(x_BTD, weight_RD, targets_BT, V).sum()
    first = torch.autograd.grad(loss, [x_BTD, weight_RD], retain_graph=True)
    second = torch.autograd.grad(3 * loss, [x_BTD, weight_RD])
    for a, b in zip(first, second, strict=True):
        torch.testing.assert_close(3 * a, b)


def test_second_derivative_is_refused() -> None:
    x_BTD, weight_RD, targets_BT, _ = make_case()
    with pytest.raises(RuntimeError, match="fast=False"):
        torch.autograd.grad(chunked_nats(x_BTD, weight_RD, targets_BT, V).sum(), x_BTD, create_graph=True)


def test_the_path_follows_the_size_of_the_logits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    assert choose_loss(16 * 256, 257) == "plain"
    assert choose_loss(16 * 256, 4096) == "plain"  # 64 MiB
    assert choose_loss(16 * 256, 4097) == "chunked"
    assert choose_loss(16 * 256, 32768) == "chunked"
    assert choose_loss(16 * 256, 32768, fast=False) == "plain"


def model_losses(words: list[str], fast: bool, compiled: bool = False) -> list[Tensor]:
    """Loss and gradients of a decoder whose vocabulary takes many chunks."""
    model = make_decoder(compose("model=pico", *words), V, fast)
    init_weights(model, 0)
    tokens = torch.randint(V, (B, T + 1), generator=torch.Generator().manual_seed(1))
    nats = compile_decoder(model) if compiled else model.nats
    loss = nats(tokens[:, :-1], tokens[:, 1:]).mean()
    loss.backward()
    return [loss.detach(), *(p.grad for p in model.parameters() if p.grad is not None)]


WORDS = pytest.mark.parametrize(
    "words", [[], ["model.tied_embeddings=true", "tokenizer.vocab_multiple=64"]], ids=str
)


@WORDS
def test_the_decoder_takes_it_and_gives_the_plain_numbers(
    words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []

    def spy(*arguments: object) -> Tensor:
        calls.append(1)
        return chunked_nats(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr("glu_bench.lm.decoder.chunked_nats", spy)
    got = model_losses(words, fast=True)
    assert calls == [1]
    expected = model_losses(words, fast=False)
    assert calls == [1]
    for a, b in zip(got, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@WORDS
def test_the_compiled_decoder_takes_it_too(words: list[str], precision: str) -> None:
    torch.compiler.reset()
    torch._dynamo.utils.counters.clear()
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
        got = model_losses(words, fast=True, compiled=True)
        expected = model_losses(words, fast=False)
    # a block, a chunk and a shorter last one; 128 rows make seven chunks of three tokens
    n_graphs = 2 if "tokenizer.vocab_multiple=64" in words else 3
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == n_graphs
    tolerance = 0.02 if precision == "bf16" else 1e-4
    assert got[0].item() == pytest.approx(expected[0].item(), rel=tolerance / 10)
    for a, b in zip(got[1:], expected[1:], strict=True):
        assert (a - b).norm() < tolerance * b.norm()
