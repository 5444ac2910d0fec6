"""Contestants in one process that take turns, so that a machine that slows down slows all of them."""

from __future__ import annotations

import platform
import statistics
from collections.abc import Callable, Mapping, Sequence

import torch
from torch.utils.benchmark import Timer

WARM_STEPS = 3

Step = Callable[[], object]


def warm(step: Step) -> None:
    """Runs a step as often as compiling and the first allocations take."""
    for _ in range(WARM_STEPS):
        step()


def race(steps: Mapping[str, Step], rounds: int, steps_a_round: int) -> dict[str, list[float]]:
    """Seconds a step of each contestant, round by round; every other round in reverse order."""
    timers = {
        name: Timer("step()", globals={"step": step}, num_threads=torch.get_num_threads())
        for name, step in steps.items()
    }
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for i in range(rounds):
        for name in list(timers)[:: 1 if i % 2 == 0 else -1]:
            steps[name]()  # after another's turn caches and clock are not its own
            seconds[name].append(timers[name].timeit(steps_a_round).mean)
    return seconds


def make_groups(names: Sequence[str], anchor: str, size: int) -> list[list[str]]:
    """Names in groups of at most `size` beside the anchor, which leads each: what is raced stays bounded."""
    others = [name for name in names if name != anchor]
    return [[anchor, *others[at : at + size]] for at in range(0, max(1, len(others)), size)]


def paired_ratio(ours: Sequence[float], peer: Sequence[float]) -> float:
    """The peer's seconds over ours, median over rounds of ratios within a round."""
    return statistics.median(b / a for a, b in zip(ours, peer, strict=True))


def spread(times: Sequence[float]) -> float:
    """(slowest - fastest) / median."""
    return (max(times) - min(times)) / statistics.median(times)


def describe_process(memory_kept: bool) -> dict[str, str | int | bool]:
    """What may explain a difference between times: versions, threads, instructions, the allocator."""
    try:
        import transformers

        peer_version = transformers.__version__
    except ImportError:
        peer_version = "not installed"
    return {
        "torch": torch.__version__,
        "transformers": peer_version,
        "python": platform.python_version(),
        "threads": torch.get_num_threads(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "memory_kept": memory_kept,
    }
