"""Places where runs of a sweep go side by side: shares of the cores, or GPUs."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

from glu_bench.errors import ConfigError, DataError
from glu_bench.host import count_cores
from glu_bench.study.plan import Plan


@dataclass(frozen=True)
class Slot:
    """A place for one run at a time."""

    words: tuple[str, ...] = ()  # settings the run gets there
    env: dict[str, str] = field(default_factory=dict)


def make_slots(n_parallel: int, n_gpus: int = 0, per_gpu: int = 1) -> list[Slot]:
    """As many slots as runs may go at once.

    On GPUs one process sees one of them, `per_gpu` processes share each; on the CPU the cores are
    divided equally, and one run alone has them all.
    Raises: ConfigError for more processes than the GPUs hold.
    """
    if n_gpus:
        if n_parallel > n_gpus * per_gpu:
            raise ConfigError(
                f"-j {n_parallel}: {n_gpus} GPUs hold {n_gpus * per_gpu} runs; --per-gpu puts more on each"
            )
        return [Slot(env={"CUDA_VISIBLE_DEVICES": _visible(i % n_gpus)}) for i in range(n_parallel)]
    if n_parallel == 1:
        return [Slot()]
    n_threads = max(1, count_cores() // n_parallel)
    return [Slot(words=(f"train.threads={n_threads}",)) for _ in range(n_parallel)]


def make_slots_as_before(plan: Plan) -> list[Slot]:
    """Slots of as many threads as each finished run of the plan had, so that all runs compare.

    Empty where no run has finished, they differ, or had more than there are here.
    """
    finished = [run for planned in plan.runs if (run := plan.run(planned)).outcome() == "complete"]
    try:
        counts = {run.environment().get("n_threads") for run in finished}
    except DataError:  # a broken one; what reads it says so
        return []
    n_threads = counts.pop() if len(counts) == 1 else None
    n_slots = count_cores() // n_threads if isinstance(n_threads, int) else 0
    return [Slot(words=(f"train.threads={n_threads}",)) for _ in range(n_slots)]


def _visible(index: int) -> str:
    """The name of the index-th GPU that this process itself sees."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    return named.split(",")[index] if named else str(index)
