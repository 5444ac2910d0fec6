"""Where a run's time goes: a trace of a few steps, and shares of their time.

The trace, the top operators and the parts of a step are those of the steps as they are run,
compiled or not. Inside a step attention, feed-forward and head cannot be told apart once they are
compiled: one graph holds a whole block, and its kernels fuse across them. Their shares are
therefore taken from a few more passes over the last of these batches, run eagerly and thrown away;
they are shares of those passes, not of the step. The run's numbers stay as they would have been.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile, record_function

from glu_bench import schema
from glu_bench.data.order import BatchOrder
from glu_bench.device import make_autocast
from glu_bench.lm.decoder import Decoder

FIRST_STEP, LAST_STEP = 6, 10  # after a start; those before compile, or fill caches
N_PASSES = 3  # eager ones, after one that warms up
N_OPERATORS = 10
TRACE = "trace.json.gz"
STEP = "train step"
REST = "other"


@dataclass(frozen=True, kw_only=True)
class Operator:
    """What one operator or kernel took by itself, over the profiled steps."""

    name: str
    calls: int
    self_s: float
    share: float  # of these steps


@dataclass(frozen=True, kw_only=True)
class Profile:
    """What the profiled steps took; empty, with a note, where there were none."""

    trace: str | None = None  # a Chrome trace, for chrome://tracing or ui.perfetto.dev
    first_step: int | None = None
    last_step: int | None = None
    compiled: bool = False
    step_s: float | None = None  # mean, under the profiler
    shares: dict[str, float] = field(default_factory=dict)  # of a step: data, forward, backward, …
    eager_s: float | None = None  # one eager forward and backward pass of a micro-batch
    eager_shares: dict[str, float] = field(default_factory=dict)  # of it: attention, feed_forward, head
    operators: tuple[Operator, ...] = ()
    note: str = ""


class Clock:
    """Seconds by part; on a GPU each part ends when the device has done it."""

    def __init__(self, device: str) -> None:
        self.device = torch.device(device)
        self.parts: dict[str, float] = {}
        self.began_s = 0.0

    def start(self) -> None:
        """A part begins."""
        self._wait()
        self.began_s = time.perf_counter()

    def stop(self, part: str) -> None:
        """The part that began last is over."""
        self._wait()
        self.parts[part] = self.parts.get(part, 0.0) + time.perf_counter() - self.began_s

    def shares(self, total_s: float) -> dict[str, float]:
        """Each part over a total, and what no part took."""
        found = {part: seconds / total_s for part, seconds in self.parts.items()}
        return found | {REST: 1 - sum(found.values())}

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        elif self.device.type == "mps":
            torch.mps.synchronize()


class Profiler:
    """Watches the steps of one run; does nothing without a folder to write to."""

    def __init__(self, folder: Path | None, config: schema.Config, order: BatchOrder) -> None:
        self.folder = folder
        self.config = config
        self.order = order
        self.found: Profile | None = None
        self.active = False  # whether the step at hand is a profiled one
        self._n_begun = 0
        self._step = 0
        self._total_s = 0.0
        self._steps: list[int] = []
        self._clock = Clock(config.train.device)
        self._step_clock = Clock(config.train.device)
        self._trace: Any = None
        self._mark: Any = None

    def __enter__(self) -> Profiler:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._trace is not None:  # the run broke in the middle
            self._trace.stop()

    def begin_step(self, step: int) -> None:
        """A step begins; `step` of them are done."""
        if self.folder is None or self.found is not None:
            return
        self._n_begun, self._step = self._n_begun + 1, step
        if self._n_begun == FIRST_STEP:
            os.environ.setdefault("KINETO_LOG_LEVEL", "6")  # above its lines about starting and stopping
            activities = [ProfilerActivity.CPU]
            if self._clock.device.type == "cuda":
                activities.append(ProfilerActivity.CUDA)
            self._trace = profile(activities=activities)
            self._trace.start()
        self.active = self._n_begun >= FIRST_STEP
        if self.active:
            self._mark = record_function(STEP)
            self._mark.__enter__()
            self._step_clock.start()

    def region(self, part: str) -> AbstractContextManager[object]:
        """The context of a part of a step."""
        return self._time(part) if self.active else nullcontext()

    @contextmanager
    def _time(self, part: str) -> Iterator[None]:
        with record_function(part):
            self._clock.start()
            yield
            self._clock.stop(part)

    def end_step(self, model: Decoder, last: bool) -> None:
        """The step is over, its gradients are forgotten; `last` if none follows."""
        if self.folder is None or self.found is not None:
            return
        if self.active:
            self._step_clock.stop(STEP)
            self._mark.__exit__(None, None, None)
            self._steps.append(self._step + 1)
            self.active = False
            if last or self._n_begun == LAST_STEP:
                self.found = self._finish(model, self.folder / TRACE)
        elif last:
            self.found = Profile(
                note=f"nothing was profiled: {self._n_begun} steps were trained, and those from the "
                f"{FIRST_STEP}th to the {LAST_STEP}th after a start are taken; give more of train.steps"
            )

    def _finish(self, model: Decoder, path: Path) -> Profile:
        self._trace.stop()
        stopped, self._trace = self._trace, None
        stopped.export_chrome_trace(str(path))
        total_s = self._step_clock.parts[STEP]
        eager_s: float | None = None
        eager_shares: dict[str, float] = {}
        note = ""
        if self.config.parallel.activation_checkpointing:
            note = "blocks are recomputed in backward, which an eager pass would not show"
        else:
            batch = torch.from_numpy(self.order.batch(self._step)).to(self._clock.device)
            tokens = batch.chunk(self.config.train.grad_accum)[0]
            eager_s, eager_shares = measure_passes(model, self.config.train, tokens)
        return Profile(
            trace=str(path),
            first_step=self._steps[0],
            last_step=self._steps[-1],
            compiled=self.config.train.compile == "true",
            step_s=total_s / len(self._steps),
            shares=self._clock.shares(total_s),
            eager_s=eager_s,
            eager_shares=eager_shares,
            operators=_rank_operators(stopped.events(), total_s, self._clock.device.type),
            note=note,
        )


def explain_complete() -> Profile:
    """The profile of a run that an earlier call finished."""
    return Profile(note="nothing was profiled: the run was complete; --restart trains it anew")


def measure_passes(model: Decoder, train: schema.Train, tokens_BT: Tensor) -> tuple[float, dict[str, float]]:
    """Seconds of one eager forward and backward pass, and the shares of its parts.

    "head" is the last norm, the logits and the loss; "other" embedding, norms of blocks and
    residuals. Leaves no gradients and the random generators as they were.
    """
    device = tokens_BT.device
    clock, total = Clock(train.device), Clock(train.device)
    with ExitStack() as stack:
        stack.enter_context(torch.random.fork_rng([device] if device.type == "cuda" else []))
        for block in model.blocks:
            for part in ("attention", "ffn"):
                name = "feed_forward" if part == "ffn" else part
                for handle in _watch(getattr(block, part), name, clock):
                    stack.callback(handle.remove)
        for number in range(1 + N_PASSES):
            if number == 1:
                clock.parts.clear()
                total.parts.clear()
            total.start()
            with make_autocast(train.device, train.precision):
                x_BTD = model.stream(tokens_BT[:, :-1])
                clock.start()
                loss = model.nats_from(x_BTD, tokens_BT[:, 1:]).mean()
                clock.stop("head")
            x_BTD.register_hook(lambda gradient: clock.stop("head"))  # type: ignore[no-untyped-call]
            clock.start()
            loss.backward()  # type: ignore[no-untyped-call]
            total.stop("pass")
            for parameter in model.parameters():
                parameter.grad = None
    total_s = total.parts["pass"]
    return total_s / N_PASSES, clock.shares(total_s)


def _watch(module: nn.Module, part: str, clock: Clock) -> Iterator[Any]:
    """Hooks that time a module forward, and backward from its output's gradient to its input's."""
    yield module.register_forward_pre_hook(lambda *_: clock.start())
    yield module.register_forward_hook(lambda *_: clock.stop(part))
    yield module.register_full_backward_pre_hook(lambda *_: clock.start())
    yield module.register_full_backward_hook(lambda *_: clock.stop(part))


def _rank_operators(events: Any, total_s: float, device_type: str) -> tuple[Operator, ...]:
    """The operators that took most by themselves: kernels on a GPU, else what the CPU did.

    Evaluations and checkpoints between two profiled steps are in the trace, and not counted here.
    """
    on_gpu = device_type == "cuda"
    spans = [(each.time_range.start, each.time_range.end) for each in events if each.name == STEP]
    found: dict[str, list[float]] = {}
    for each in events:
        here = each.device_type.name == ("CUDA" if on_gpu else "CPU")
        if each.is_user_annotation or not here:
            continue
        if not any(start <= each.time_range.start < end for start, end in spans):
            continue
        self_us = each.self_device_time_total if on_gpu else each.self_cpu_time_total
        entry = found.setdefault(each.name, [0, 0.0])
        entry[0] += 1
        entry[1] += self_us / 1e6
    ranked = sorted(found.items(), key=lambda item: -item[1][1])[:N_OPERATORS]
    return tuple(
        Operator(name=name, calls=int(calls), self_s=self_s, share=self_s / total_s)
        for name, (calls, self_s) in ranked
    )
