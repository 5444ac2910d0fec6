"""The decoder: causal, well initialised, and the same with and without its fast paths."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from glu_bench.ffn.formula import list_variants
from glu_bench.lm.counts import count_model
from glu_bench.lm.decoder import Decoder, make_decoder, make_meta_decoder
from glu_bench.lm.init import init_weights
from tests.composed import compose

V = 257
FAST = pytest.mark.parametrize("fast", [True, False])


def make_model(*words: str, fast: bool = True) -> Decoder:
    model = make_decoder(compose("model=pico", *words), V, fast)
    init_weights(model, seed=0)
    return model


def make_tokens(B: int = 2, T: int = 33) -> tuple[Tensor, Tensor]:
    tokens = torch.randint(0, V, (B, T + 1), generator=torch.Generator().manual_seed(0))
    return tokens[:, :-1], tokens[:, 1:]


def loss_and_gradients(model: Decoder, tokens: Sequence[Tensor]) -> list[Tensor]:
    loss = model.nats(*tokens).mean()
    loss.backward()
    return [loss.detach(), *(p.grad for p in model.parameters() if p.grad is not None)]


@FAST
def test_no_logit_depends_on_later_tokens(fast: bool) -> None:
    """By gradient: the logits up to t, as a function of the embedded tokens, at every t."""
    model = make_model(fast=fast)
    tokens_BT, _ = make_tokens(B=1, T=9)
    embedded: list[Tensor] = []

    def keep(_module: object, _inputs: object, output: Tensor) -> None:
        output.retain_grad()
        embedded.append(output)

    model.embedding.register_forward_hook(keep)
    for t in range(9):
        logits_BTV = model(tokens_BT)
        logits_BTV[:, t].pow(2).sum().backward()
        gradient = embedded[-1].grad
        assert gradient is not None
        assert (gradient[:, t + 1 :] == 0).all()
        assert (gradient[:, : t + 1].abs().sum(-1) > 0).all()


@FAST
@pytest.mark.parametrize("name", list_variants())
def test_loss_at_start_is_ln_v(name: str, fast: bool) -> None:
    loss = make_model(f"variant={name}", fast=fast).nats(*make_tokens()).mean()
    assert loss.item() == pytest.approx(math.log(V), rel=0.02)


@pytest.mark.parametrize("words", [[], ["model.ffn_bias=true"], ["model.tied_embeddings=true"]])
def test_fast_equals_plain_in_fp32(words: list[str]) -> None:
    tokens = make_tokens()
    got = loss_and_gradients(make_model(*words), tokens)
    expected = loss_and_gradients(make_model(*words, fast=False), tokens)
    for a, b in zip(got, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def test_fast_equals_plain_in_fp64() -> None:
    got = loss_and_gradients(make_model().double(), make_tokens())
    expected = loss_and_gradients(make_model(fast=False).double(), make_tokens())
    assert got[0].dtype == torch.float64
    for a, b in zip(got, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)


def test_bf16_autocast_is_near_fp32() -> None:
    """Loss within 0.1 %, the gradient as one vector within 5 %."""
    exact = loss_and_gradients(make_model(fast=False), make_tokens())
    with torch.autocast("cpu", torch.bfloat16):
        got = loss_and_gradients(make_model(), make_tokens())
    assert got[0].dtype == torch.float32
    assert got[0].item() == pytest.approx(exact[0].item(), rel=1e-3)
    flat, flat_exact = (torch.cat([g.flatten() for g in gradients[1:]]) for gradients in (got, exact))
    assert (flat - flat_exact).norm() < 0.05 * flat_exact.norm()


@FAST
def test_dropout_acts_in_training_alone(fast: bool) -> None:
    model = make_model("model.dropout=0.5", fast=fast)
    tokens_BT, targets_BT = make_tokens()
    torch.manual_seed(0)
    assert not torch.equal(model(tokens_BT), model(tokens_BT))
    model.nats(tokens_BT, targets_BT).mean().backward()
    model.eval()
    with torch.no_grad():
        assert torch.equal(model(tokens_BT), model(tokens_BT))


@FAST
def test_shorter_input_gives_the_same_prefix(fast: bool) -> None:
    model = make_model(fast=fast)
    tokens_BT, _ = make_tokens(T=40)
    with torch.no_grad():
        torch.testing.assert_close(model(tokens_BT[:, :7]), model(tokens_BT)[:, :7], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("n_tokens", [600, 512, 100])
def test_a_model_of_long_context_reads_long_and_short_texts(n_tokens: int) -> None:
    model = make_model("model.seq_len=1024")
    tokens = make_tokens(B=1, T=n_tokens)
    with torch.no_grad():
        plain = make_model("model.seq_len=1024", fast=False).nats(*tokens)
        torch.testing.assert_close(model.nats(*tokens), plain, rtol=1e-4, atol=1e-4)


def count_kept_bytes(seq_len: int, precision: str) -> float:
    """Bytes a token that autograd keeps until the backward pass, weights left out."""
    model = make_model(f"model.seq_len={seq_len}")
    own = {tensor.untyped_storage().data_ptr() for tensor in [*model.parameters(), *model.buffers()]}
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        address = tensor.untyped_storage().data_ptr()
        if address not in own:
            kept[address] = tensor
        return tensor

    with (
        torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"),
        torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
    ):
        model.nats(*make_tokens(B=1, T=seq_len))
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values()) / seq_len


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_what_a_token_keeps_does_not_grow_with_the_context(precision: str) -> None:
    """Weights cast to bf16 are kept as well, whatever the length: 2 % at 1,024 tokens."""
    assert count_kept_bytes(4096, precision) == pytest.approx(count_kept_bytes(1024, precision), rel=0.03)


def test_meta_device_has_shapes_and_no_memory() -> None:
    model = make_meta_decoder(compose("model=pico"), V)
    tokens_BT = torch.zeros(2, 8, dtype=torch.int64, device="meta")
    assert model(tokens_BT).shape == (2, 8, V)
    assert all(p.is_meta for p in model.parameters())


def test_names_and_shapes_of_parameters() -> None:
    """Checkpoints and exports rely on these."""
    model = make_model("model.n_layers=1")
    D, n_hidden = 48, model.d_ff
    assert {name: tuple(p.shape) for name, p in model.named_parameters()} == {
        "embedding.weight": (V, D),
        "blocks.0.attention_norm.weight": (D,),
        "blocks.0.attention.qkv.weight": (3 * D, D),
        "blocks.0.attention.out.weight": (D, D),
        "blocks.0.ffn_norm.weight": (D,),
        "blocks.0.ffn.hidden.in_proj.weight": (2 * n_hidden, D),
        "blocks.0.ffn.down.weight": (D, n_hidden),
        "norm.weight": (D,),
        "head.weight": (V, D),
    }
    assert list(model.state_dict()) == [name for name, _ in model.named_parameters()]


@pytest.mark.parametrize("tied", [False, True])
def test_rows_that_pad_the_vocabulary_are_never_predicted(tied: bool) -> None:
    words = ["model=pico", f"model.tied_embeddings={str(tied).lower()}", "tokenizer.vocab_multiple=64"]
    config = compose(*words)
    padded = make_decoder(config, 257)
    assert padded.head.weight.shape[0] == padded.embedding.weight.shape[0] == 320
    init_weights(padded, 0)
    tokens_BT = torch.randint(0, 257, (2, 9))
    assert padded(tokens_BT).shape == (2, 9, 257)
    with torch.no_grad():
        padded.head.weight.zero_()
    nats_BT = padded.nats(tokens_BT[:, :-1], tokens_BT[:, 1:])
    torch.testing.assert_close(nats_BT, torch.full_like(nats_BT, math.log(257)))
    assert count_model(config, 257).n_params == sum(p.numel() for p in padded.parameters())
