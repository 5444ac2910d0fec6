"""Work in a process of its own, so that its peak memory is its own."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor


def run_alone(work: Callable[..., tuple[float, float]], *arguments: object) -> tuple[float, float]:
    """What a function of a module returns, called in a fresh process that ends with it."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(work, *arguments).result()
