"""One pass over held-out tokens: each scored once, with the context that was promised."""

from __future__ import annotations

import collections
import math

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from glu_bench.data.prepared import TokenStream
from glu_bench.data.tokenizers import ByteTokenizer
from glu_bench.errors import DataError
from glu_bench.evaluate.loss import HeldOutLoss, perplexity
from glu_bench.evaluate.perplexity import cut_windows, evaluate_stream

END = ByteTokenizer.end_id


def stream_of(ids: NDArray[np.uint16]) -> TokenStream:
    n_bytes = int((ids != END).sum())  # a byte a token, none for the end
    return TokenStream("test", ids, 1, n_bytes, int((ids[:1] != END).sum()))


def count_up(n_tokens: int) -> NDArray[np.uint16]:
    """Tokens whose id is their position."""
    return np.arange(n_tokens, dtype=np.uint16)


def nats_of_target(tokens_BT: Tensor, targets_BT: Tensor) -> Tensor:
    return targets_BT.float() / 7


@st.composite
def shapes(draw: st.DrawFn) -> tuple[int, int, int, int]:
    """(tokens in the stream, T, stride, B), the stride at most T."""
    seq_len = draw(st.integers(1, 20))
    return draw(st.integers(2, 120)), seq_len, draw(st.integers(1, seq_len)), draw(st.integers(1, 9))


@example((2, 20, 20, 4))
@example((21, 20, 20, 1))
@example((22, 20, 20, 1))
@example((22, 20, 1, 3))
@given(shapes())
def test_every_token_but_the_first_is_scored_once(shape: tuple[int, int, int, int]) -> None:
    n_tokens, seq_len, stride, batch_size = shape
    scored: collections.Counter[int] = collections.Counter()
    for windows in cut_windows(count_up(n_tokens), seq_len, stride, batch_size):
        assert windows.tokens_BT.shape == (batch_size, seq_len)
        scored.update(windows.targets_BT[windows.scored_BT == 1].tolist())
    assert scored == collections.Counter(range(1, n_tokens))


@given(shapes())
def test_a_scored_target_follows_its_token_and_has_the_promised_context(
    shape: tuple[int, int, int, int],
) -> None:
    n_tokens, seq_len, stride, batch_size = shape
    for windows in cut_windows(count_up(n_tokens), seq_len, stride, batch_size):
        for row, column in np.argwhere(windows.scored_BT == 1):
            target = windows.targets_BT[row, column]
            seen = windows.tokens_BT[row, : column + 1]
            assert seen.tolist() == list(range(target - len(seen), target))
            assert len(seen) >= min(target, seq_len - stride)


def nats_of_context(tokens_BT: Tensor, targets_BT: Tensor) -> Tensor:
    """For each target the number of tokens that the model saw before it."""
    return torch.arange(1, tokens_BT.shape[1] + 1).expand_as(tokens_BT).float()


@pytest.mark.parametrize("stride", [1, 2, 4, 8])
def test_a_smaller_stride_gives_more_context(stride: int) -> None:
    found = evaluate_stream(nats_of_context, stream_of(count_up(97)), seq_len=8, batch_size=3, stride=stride)
    later = 97 - 1 - 8
    expected = sum(range(1, 9)) + later / stride * sum(range(8 - stride + 1, 9))
    assert found.loss_nats * found.n_tokens == pytest.approx(expected)


@given(shapes(), st.integers(1, 9))
def test_the_batch_size_changes_nothing(shape: tuple[int, int, int, int], other_batch_size: int) -> None:
    n_tokens, seq_len, stride, batch_size = shape
    one, other = (
        evaluate_stream(
            nats_of_target,
            stream_of(count_up(n_tokens)),
            seq_len=seq_len,
            batch_size=size,
            stride=stride,
        )
        for size in (batch_size, other_batch_size)
    )
    np.testing.assert_array_equal(one.nats_per_window, other.nats_per_window)
    np.testing.assert_array_equal(one.tokens_per_window, other.tokens_per_window)
    assert one.loss_nats == other.loss_nats == pytest.approx(np.arange(1, n_tokens).mean() / 7)
    assert one.n_bytes == other.n_bytes == n_tokens - 1


@pytest.mark.parametrize("n_tokens", [2, 9, 64, 65])
def test_uniform_logits_give_ln_v(n_tokens: int) -> None:
    def nats(tokens_BT: Tensor, targets_BT: Tensor) -> Tensor:
        logits_BTV = torch.zeros(*tokens_BT.shape, 257)
        return torch.nn.functional.cross_entropy(logits_BTV.transpose(1, 2), targets_BT, reduction="none")

    ids = np.arange(n_tokens, dtype=np.uint16) % 257
    found = evaluate_stream(nats, stream_of(ids), seq_len=8, batch_size=2)
    assert found.loss_nats == pytest.approx(math.log(257), rel=1e-6)
    assert found.bits_per_byte == pytest.approx(math.log2(257), rel=1e-6)
    assert perplexity(found.loss_nats) == pytest.approx(257, rel=1e-5)


def test_end_tokens_count_as_nats_and_no_bytes() -> None:
    ids = np.array([65, 66, END, 67, 68, 69, END], dtype=np.uint16)
    found = evaluate_stream(
        lambda tokens, targets: torch.full(targets.shape, math.log(2)),
        stream_of(ids),
        seq_len=4,
        batch_size=1,
    )
    assert (found.n_tokens, found.n_bytes) == (6, 4)
    assert found.loss_nats == pytest.approx(math.log(2))
    assert found.bits_per_byte == pytest.approx(6 / 4)


def test_the_loss_is_the_sum_over_tokens_not_the_mean_of_windows() -> None:
    found = HeldOutLoss(
        split="test",
        nats_per_window=np.array([8.0, 1.0]),
        tokens_per_window=np.array([4, 1]),
        nats_per_position=np.array([9.0]),
        tokens_per_position=np.array([5]),
        nats_per_id=np.array([9.0]),
        tokens_per_id=np.array([5]),
        n_bytes=5,
        stride=4,
    )
    assert found.loss_nats == 9 / 5


@given(shapes())
def test_nats_are_kept_by_token_and_by_place_in_the_window(shape: tuple[int, int, int, int]) -> None:
    n_tokens, seq_len, stride, batch_size = shape
    ids = (np.arange(n_tokens) * 7 % 11).astype(np.uint16)
    found = evaluate_stream(
        nats_of_target, stream_of(ids), seq_len=seq_len, batch_size=batch_size, stride=stride
    )
    by_id, by_place = collections.Counter(ids[1:].tolist()), collections.Counter[int]()
    nats_by_place: collections.Counter[int] = collections.Counter()
    for at in range(1, n_tokens):  # the window that scores target `at`: the first one that reaches it
        start = 0 if at <= seq_len else -(-(at - seq_len) // stride) * stride
        by_place[at - 1 - start] += 1
        nats_by_place[at - 1 - start] += int(ids[at])
    assert {i: n for i, n in enumerate(found.tokens_per_id) if n} == by_id
    assert {i: n for i, n in enumerate(found.tokens_per_position) if n} == by_place
    assert found.nats_per_id == pytest.approx([i * by_id[i] / 7 for i in range(len(found.nats_per_id))])
    assert found.nats_per_position == pytest.approx([nats_by_place[i] / 7 for i in range(seq_len)])


def test_only_the_head_is_read_if_asked() -> None:
    found = evaluate_stream(nats_of_target, stream_of(count_up(100)), seq_len=8, batch_size=2, max_tokens=20)
    assert found.n_tokens == 20
    assert found.loss_nats * 7 == pytest.approx(np.arange(1, 21).mean())


def test_a_head_longer_than_the_stream_is_the_stream() -> None:
    found = evaluate_stream(
        nats_of_target, stream_of(count_up(10)), seq_len=8, batch_size=2, max_tokens=2**40
    )
    assert found.n_tokens == 9


@pytest.mark.parametrize("n_tokens", [0, 1])
def test_a_stream_with_nothing_to_score_is_refused(n_tokens: int) -> None:
    with pytest.raises(DataError, match=f"has {n_tokens} tokens"):
        evaluate_stream(nats_of_target, stream_of(count_up(n_tokens)), seq_len=8, batch_size=1)


def test_a_stream_without_a_byte_to_score_has_no_bits_per_byte() -> None:
    ids = np.array([65, END], dtype=np.uint16)
    found = evaluate_stream(nats_of_target, stream_of(ids), seq_len=8, batch_size=1)
    assert found.n_tokens == 1
    assert found.bits_per_byte is None


@pytest.mark.parametrize("loss_nats", [800.0, math.inf])
def test_a_perplexity_that_overflows_is_none(loss_nats: float) -> None:
    assert perplexity(loss_nats) is None


def test_a_perplexity_that_fits_is_the_exponential() -> None:
    assert perplexity(0.0) == 1.0
    assert perplexity(708.9) == math.exp(708.9)


def test_sums_are_kept_in_double_precision() -> None:
    found = evaluate_stream(
        lambda tokens, targets: torch.full(targets.shape, 0.1),
        stream_of(count_up(50_000)),
        seq_len=64,
        batch_size=16,
    )
    assert found.loss_nats == pytest.approx(float(np.float32(0.1)), rel=1e-12)
