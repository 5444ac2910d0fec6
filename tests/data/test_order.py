"""The order of batches: a pure function of (seed, step) that misses nothing."""

from __future__ import annotations

import collections

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from glu_bench.data.order import BatchOrder, make_order, shuffle_blocks
from glu_bench.data.prepared import TokenStream, prepare_tokens
from glu_bench.errors import DataError
from tests.conftest import TinyConfig

SEQ_LEN = 8
GOLDEN = [6, 2, 1, 0, 9, 3, 5, 8, 7, 4]  # shuffle_blocks(0, 0, 10)


def order_of(n_blocks: int, batch_size: int = 3, seed: int = 0) -> BatchOrder:
    ids = np.arange(n_blocks * SEQ_LEN + 1, dtype=np.uint16)
    return make_order(TokenStream("train", ids, 1, 0, 0), SEQ_LEN, batch_size, seed)


@given(st.integers(1, 40), st.integers(1, 9), st.integers(0, 2**63 - 1))
def test_each_epoch_sees_every_block_once_across_the_wrap(n_blocks: int, batch_size: int, seed: int) -> None:
    order = order_of(n_blocks, batch_size, seed)
    n_steps = -(-3 * n_blocks // batch_size)
    seen = [block for step in range(n_steps) for block in order.blocks_of(step)]
    for epoch in range(3):
        assert sorted(seen[epoch * n_blocks : (epoch + 1) * n_blocks]) == list(range(n_blocks))


def test_a_step_depends_on_no_step_before_it() -> None:
    forwards = [order_of(7).batch(step) for step in range(20)]
    backwards = [order_of(7).batch(step) for step in reversed(range(20))]
    for one, other in zip(forwards, reversed(backwards), strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_batch_holds_the_tokens_of_its_blocks_and_the_last_target() -> None:
    order = order_of(7)
    for step in range(5):
        batch = order.batch(step)
        assert batch.shape == (3, SEQ_LEN + 1)
        assert batch.dtype == np.int64
        for row, block in zip(batch, order.blocks_of(step), strict=True):
            np.testing.assert_array_equal(row, np.arange(block * SEQ_LEN, (block + 1) * SEQ_LEN + 1))


def test_every_token_but_the_first_is_a_target_once_an_epoch() -> None:
    order = order_of(6)
    targets = np.concatenate([order.batch(step)[:, 1:].ravel() for step in range(2)])
    assert sorted(targets.tolist()) == list(range(1, 6 * SEQ_LEN + 1))


def test_seeds_and_epochs_are_shuffled_differently() -> None:
    shuffles = {tuple(shuffle_blocks(seed, epoch, 50)) for seed in range(4) for epoch in range(4)}
    assert len(shuffles) == 16


def test_the_first_block_of_an_epoch_is_any_with_equal_chance() -> None:
    first = collections.Counter(int(shuffle_blocks(seed, 0, 4)[0]) for seed in range(400))
    assert all(60 <= first[block] <= 140 for block in range(4))


def test_the_shuffle_is_the_same_for_ever() -> None:
    shuffled = shuffle_blocks(0, 0, 10).tolist()
    assert shuffled == GOLDEN, "this changes every run: raise NUMERICS_VERSION"


def test_two_arms_of_a_seed_see_the_same_bytes(tiny_config: TinyConfig) -> None:
    batches = []
    for variant in ("relu", "swiglu"):
        config = tiny_config(f"variant={variant}")
        stream = prepare_tokens(config).stream("train")
        batches.append(make_order(stream, 16, 4, config.seed).batch(3).tobytes())
    assert batches[0] == batches[1]


@pytest.mark.parametrize("n_tokens", [0, 1, SEQ_LEN])
def test_a_split_without_one_whole_block_is_refused_with_its_size(n_tokens: int) -> None:
    stream = TokenStream("train", np.zeros(n_tokens, dtype=np.uint16), 1, 0, 0)
    with pytest.raises(DataError, match=rf"has {n_tokens} tokens, one block needs 9"):
        make_order(stream, SEQ_LEN, 1, 0)


def test_a_split_of_exactly_one_block_works() -> None:
    order = order_of(1, batch_size=2)
    assert order.blocks_of(5) == [0, 0]
