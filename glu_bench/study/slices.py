"""Where an arm wins: on which stretches of text, on which tokens, with how much context.

From the nats that every run stores of its held-out pass, seed by seed against the baseline, so
that nothing is evaluated again.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from glu_bench.errors import DataError
from glu_bench.files import sha256_bytes
from glu_bench.runs.folder import Run
from glu_bench.runs.publish import is_published
from glu_bench.runs.record import MAX_NUMBER
from glu_bench.runs.tensor_file import check_header
from glu_bench.stats.interval import find_mean_interval, summarise
from glu_bench.study.compare import Arm, Comparison

Numbers = NDArray[np.float64]
Stored = dict[str, Numbers]
N_PLACES = 8  # parts of the window
# tokens by how frequent they are: shares of all scored tokens, the most frequent first
FREQUENCIES = (("most frequent half", 0.5), ("next 30 %", 0.8), ("next 15 %", 0.95), ("rarest 5 %", 1.0))
N_EXTREMES = 3
MAX_TOKENS = 2**53  # counted without rounding


@dataclass(frozen=True, kw_only=True)
class Slice:
    """A part of the held-out tokens and how an arm does on it."""

    view: str  # frequency, position
    label: str
    share: float  # of the scored tokens
    difference_nats: float  # per token of the part, arm - baseline, mean over seeds
    ci95: tuple[float, float] | None  # over seeds; None with one


@dataclass(frozen=True, kw_only=True)
class ArmSlices:
    """An arm against the baseline, part by part."""

    arm: str
    n_seeds: int
    won_share: float  # of the windows, mean over seeds
    slices: list[Slice]
    best_windows: list[tuple[int, float]]  # where the arm gains most: (window, nats/token)
    worst_windows: list[tuple[int, float]]


def slice_arms(table: Comparison) -> list[ArmSlices]:
    """Each arm that shares a finished seed with the baseline, in the order of the table.

    Raises: DataError if a run stores no nats, or other windows than the baseline's.
    """
    base = next((arm for arm in table.arms if arm.arm == table.baseline), None)
    if base is None:
        return []
    ours = dict(_list_stored(base, table.split))
    found = []
    for arm in table.arms:
        if arm.arm == table.baseline:
            continue
        pairs = [(stored, ours[seed]) for seed, stored in _list_stored(arm, table.split) if seed in ours]
        if pairs:
            found.append(_slice(arm.arm, pairs))
    return found


def _list_stored(arm: Arm, split: str) -> Iterator[tuple[int, Stored]]:
    """Seeds and what their runs stored."""
    if len(arm.runs) != len(arm.losses):
        raise DataError(f"{arm.arm}: several runs of one seed, so nothing pairs them; compare one setting")
    for seed, folder in zip(arm.losses, arm.runs, strict=True):
        yield seed, _load(Run(Path(folder)), split)


def _load(run: Run, split: str) -> Stored:
    from safetensors import SafetensorError
    from safetensors.numpy import load

    path = run.find_file("blocks.safetensors")
    if path is None:
        why = ", which publishing leaves out" if is_published(run.path) else ""
        raise DataError(f"{run.path}: has no blocks.safetensors{why}")
    check_header(path)
    content = path.read_bytes()
    if sha256_bytes(content) != run.result(("blocks_sha256",))["blocks_sha256"]:
        raise DataError(f"{path}: is not the file that result.json names; it was edited or torn")
    try:
        arrays = load(content)
    except (SafetensorError, KeyError, TypeError) as error:  # the last two of a dtype that numpy has not
        raise DataError(f"{path}: not readable ({error})") from None
    found = {
        name.removeprefix(f"{split}/"): array.astype(np.float64)
        for name, array in arrays.items()
        if name.startswith(f"{split}/") and array.dtype.kind in "fiu"
    }
    if "nats_per_id" not in found:
        raise DataError(f"{run.path.name}: made by an earlier version, which kept no nats by token and place")
    _check_stored(found, path)
    return found


def _check_stored(stored: Stored, path: Path) -> None:
    """Refuse arrays that say nothing of tokens, or not of the same ones.

    Raises: DataError.
    """
    for of in ("", "_per_position", "_per_id"):
        nats, tokens = stored.get(f"nats{of}"), stored.get(f"tokens{of}")
        if nats is None or tokens is None or nats.ndim != 1 or nats.shape != tokens.shape:
            raise DataError(f"{path}: nats{of} and tokens{of} do not belong together")
        usable = np.isfinite(nats).all() and np.isfinite(tokens).all() and (tokens >= 0).all()
        if not usable or not 0 < tokens.sum() <= MAX_TOKENS or np.abs(nats).max() > MAX_NUMBER:
            raise DataError(f"{path}: nats{of} and tokens{of} are not numbers of held-out tokens")
    if not (stored["tokens"] > 0).all():
        raise DataError(f"{path}: has windows without tokens")


def _slice(arm: str, pairs: Sequence[tuple[Stored, Stored]]) -> ArmSlices:
    one = pairs[0][1]
    for stored in (each for pair in pairs for each in pair):
        if not all(np.array_equal(stored[key], one[key]) for key in stored if key.startswith("tokens")):
            raise DataError(f"{arm}: its runs scored other tokens than the baseline's")
    # nats/token of each window, arm - baseline, a row a seed
    windows = np.stack([(a["nats"] - b["nats"]) / one["tokens"] for a, b in pairs])
    mean = windows.mean(axis=0)
    order = np.argsort(mean, kind="stable")
    return ArmSlices(
        arm=arm,
        n_seeds=len(pairs),
        won_share=float((windows < 0).mean()),
        slices=[
            *(_part("frequency", label, at, "per_id", pairs) for label, at in _list_frequencies(one)),
            *(_part("position", label, at, "per_position", pairs) for label, at in _list_places(one)),
        ],
        best_windows=[(int(at), float(mean[at])) for at in order[:N_EXTREMES]],
        worst_windows=[(int(at), float(mean[at])) for at in order[::-1][:N_EXTREMES]],
    )


def _list_frequencies(one: Stored) -> Iterator[tuple[str, NDArray[np.int64]]]:
    """Classes of tokens, by how often they are scored; a class that no token falls into is left out."""
    counts = one["tokens_per_id"]
    order = np.argsort(-counts, kind="stable")
    before = (np.cumsum(counts[order]) - counts[order]) / counts.sum()
    low = 0.0
    for label, high in FREQUENCIES:
        members = order[(before >= low) & (before < high) & (counts[order] > 0)]
        low = high
        if len(members):
            yield label, members


def _list_places(one: Stored) -> Iterator[tuple[str, NDArray[np.int64]]]:
    places = np.flatnonzero(one["tokens_per_position"])
    for part in np.array_split(places, min(N_PLACES, len(places))):
        yield f"{part[0] + 1} to {part[-1] + 1}", part


def _part(
    view: str, label: str, members: NDArray[np.int64], of: str, pairs: Sequence[tuple[Stored, Stored]]
) -> Slice:
    counts = pairs[0][1][f"tokens_{of}"]
    n = float(counts[members].sum())
    differences = [float((a[f"nats_{of}"] - b[f"nats_{of}"])[members].sum()) / n for a, b in pairs]
    return Slice(
        view=view,
        label=label,
        share=n / float(counts.sum()),
        difference_nats=statistics.fmean(differences),
        ci95=find_mean_interval(summarise(differences)),
    )
