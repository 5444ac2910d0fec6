"""Where an arm wins: sums that were stored, cut by text, by frequency and by place."""

from __future__ import annotations

import functools
import math
import statistics
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import save
from scipy import stats

from glu_bench.errors import DataError
from glu_bench.files import sha256_bytes
from glu_bench.runs.folder import Run
from glu_bench.runs.publish import publish_run
from glu_bench.study.compare import compare_runs
from glu_bench.study.slices import slice_arms
from tests.study.conftest import MakeRun

T = 16
Numbers = NDArray[np.float64]
MakeStored = Callable[..., Run]
RNG = np.random.default_rng(0)
# a text of 40 windows and 12 tokens, the lower the more frequent
IDS_WT = np.minimum(RNG.geometric(0.3, (40, T)) - 1, 11)


def store_run(
    make_run: MakeRun, variant: str, seed: int, nats_WT: Numbers, ids_WT: NDArray[np.int64] = IDS_WT
) -> Run:
    """A finished run that stores these nats of the text's tokens."""
    arrays = {
        "test/nats": nats_WT.sum(axis=1),
        "test/tokens": np.full(len(ids_WT), T, np.int64),
        "test/nats_per_position": nats_WT.sum(axis=0),
        "test/tokens_per_position": np.full(T, len(ids_WT), np.int64),
        "test/nats_per_id": np.bincount(ids_WT.ravel(), nats_WT.ravel(), 12),
        "test/tokens_per_id": np.bincount(ids_WT.ravel(), None, 12).astype(np.int64),
    }
    content = save(arrays)
    run = make_run(variant, seed, float(nats_WT.mean()), blocks_sha256=sha256_bytes(content))
    (run.path / "blocks.safetensors").write_bytes(content)
    return run


@pytest.fixture
def make_stored(make_run: MakeRun) -> MakeStored:
    """`store_run` in the test's own folder."""
    return functools.partial(store_run, make_run)


def noise(seed: int) -> Numbers:
    return np.random.default_rng(seed).random(IDS_WT.shape)


def test_an_arm_that_is_better_on_rare_tokens_shows_it(make_stored: MakeStored) -> None:
    better = np.where(IDS_WT >= 4, -0.5, 0.1)
    runs = [make_stored("gelu", seed, noise(seed)) for seed in range(3)]
    runs += [make_stored("swiglu", seed, noise(seed) + better) for seed in range(3)]
    (found,) = slice_arms(compare_runs(runs, baseline="gelu")[0])
    by_label = {part.label: part for part in found.slices if part.view == "frequency"}
    assert by_label["most frequent half"].difference_nats == pytest.approx(0.1)
    assert by_label["rarest 5 %"].difference_nats == pytest.approx(-0.5)
    assert sum(part.share for part in by_label.values()) == pytest.approx(1)
    whole = sum(part.share * part.difference_nats for part in by_label.values())
    assert whole == pytest.approx(float(better.mean()))


def test_an_arm_that_uses_context_shows_it(make_stored: MakeStored) -> None:
    better = np.broadcast_to(np.where(np.arange(T) < 4, 0.2, -0.3), IDS_WT.shape)
    runs = [make_stored("gelu", 0, noise(0)), make_stored("swiglu", 0, noise(0) + better)]
    (found,) = slice_arms(compare_runs(runs, baseline="gelu")[0])
    places = [part for part in found.slices if part.view == "position"]
    assert [part.label for part in places][:3] == ["1 to 2", "3 to 4", "5 to 6"]
    assert [part.difference_nats for part in places] == pytest.approx([0.2] * 2 + [-0.3] * 6)
    assert all(part.ci95 is None for part in places)  # one seed


def test_windows_won_are_counted_and_the_extremes_named(make_stored: MakeStored) -> None:
    better = np.full(IDS_WT.shape, -0.1)
    better[[7, 9]], better[3] = 0.4, -0.9
    runs = [make_stored("gelu", 0, noise(0)), make_stored("swiglu", 0, noise(0) + better)]
    (found,) = slice_arms(compare_runs(runs, baseline="gelu")[0])
    assert found.won_share == pytest.approx(38 / 40)
    assert found.best_windows[0] == (3, pytest.approx(-0.9))
    assert {at for at, _ in found.worst_windows[:2]} == {7, 9}


def test_the_interval_is_that_of_the_seeds_differences(make_stored: MakeStored) -> None:
    shifts = (-0.2, -0.1, -0.3)
    runs = [make_stored("gelu", seed, noise(seed)) for seed in (*range(3), 8)]
    runs += [make_stored("swiglu", seed, noise(seed) + shift) for seed, shift in enumerate(shifts)]
    (found,) = slice_arms(compare_runs(runs, baseline="gelu")[0])
    half = stats.t.ppf(0.975, 2) * statistics.stdev(shifts) / math.sqrt(3)
    assert found.n_seeds == 3
    for part in found.slices:
        assert part.ci95 == pytest.approx((-0.2 - half, -0.2 + half))


def test_arms_without_a_seed_of_the_baselines_are_left_out(make_stored: MakeStored) -> None:
    runs = [make_stored("gelu", 0, noise(0)), make_stored("swiglu", 1, noise(1))]
    assert slice_arms(compare_runs(runs, baseline="gelu")[0]) == []


def test_of_a_published_run_it_is_said_why_there_are_none(make_stored: MakeStored, tmp_path: Path) -> None:
    runs = [make_stored(variant, 0, noise(0)) for variant in ("gelu", "swiglu")]
    published = [publish_run(run, tmp_path / "published", None) for run in runs]
    with pytest.raises(DataError, match=r"has no blocks\.safetensors, which publishing leaves out"):
        slice_arms(compare_runs(published, baseline="gelu")[0])


def test_a_file_that_was_changed_is_refused(make_stored: MakeStored) -> None:
    runs = [make_stored(variant, 0, noise(0)) for variant in ("gelu", "swiglu")]
    path = runs[1].path / "blocks.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(DataError, match=r"blocks\.safetensors"):
        slice_arms(compare_runs(runs, baseline="gelu")[0])


def test_runs_that_scored_other_tokens_are_refused(make_stored: MakeStored) -> None:
    runs = [make_stored("gelu", 0, noise(0)), make_stored("swiglu", 0, noise(0), 11 - IDS_WT)]
    with pytest.raises(DataError, match="other tokens"):
        slice_arms(compare_runs(runs, baseline="gelu")[0])


def test_several_runs_of_one_seed_cannot_be_paired(make_stored: MakeStored, make_run: MakeRun) -> None:
    runs = [make_stored(variant, 0, noise(0)) for variant in ("gelu", "swiglu")]
    runs.append(make_run("swiglu", 0, 1.0, "train.steps=7"))
    with pytest.raises(DataError, match="swiglu: several runs"):
        slice_arms(compare_runs(runs, baseline="gelu", allow_mixed=True)[0])
