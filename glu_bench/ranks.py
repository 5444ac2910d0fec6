"""The processes of one run, and what they tell one another; a process alone is the trivial case.

Each process is a rank with a device of its own. Rank 0 alone writes the run folder; what all
must decide alike (a stop, a loss that is no number) is gathered first, so that nobody waits
for one who left.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor
from torch.distributed.rendezvous import rendezvous

from glu_bench import schema
from glu_bench.errors import ConfigError, DeviceError, GluBenchError, LostRankError
from glu_bench.files import sha256_bytes
from glu_bench.host import count_cores
from glu_bench.rules import check_shares

POLL_S = 0.05
STORE_FD = "GLU_BENCH_STORE_FD"  # set by the launcher for rank 0: a socket that listens already
# how gloo, NCCL and the store say that a peer is gone; torch has no one class for it
LOST_WORDS = re.compile(r"gloo|nccl|connection (closed|reset|refused)|broken pipe|timed? ?out", re.IGNORECASE)

Made = TypeVar("Made")


@dataclass(frozen=True, kw_only=True)
class Ranks:
    """This process among those of its run."""

    mode: str = "single"
    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1
    timeout_s: float = 0.0
    store: Any = None  # torch's key-value store; None for a process alone

    @property
    def writes(self) -> bool:
        """Whether this process writes the run folder, shows progress and prints."""
        return self.rank == 0

    def place(self, train: schema.Train) -> schema.Train:
        """The settings with this rank's device, and its part of the cores if it computes on them.

        Raises: ConfigError for one device that all would share, or a batch that cannot be shared.
        """
        if self.size == 1:
            return train
        check_shares(train.batch_size, train.grad_accum, self.size)
        device, threads = train.device, train.threads
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        if device not in ("cpu", "cuda"):
            raise ConfigError(
                f"train.device={device}: one device for {self.size} processes; auto, cpu or cuda gives "
                "each its own"
            )
        if device == "cuda":
            device = f"cuda:{self.local_rank}"
        elif threads is None:
            threads = max(1, count_cores() // self.local_size)
        return dataclasses.replace(train, device=device, threads=threads)

    def after_first(self, make: Callable[[], Made]) -> Made:
        """What `make` gives, called on rank 0 first and on the others once that has ended.

        For what takes long: nobody times out. Raises: what `make` raises; LostRankError.
        """
        if self.size == 1:
            return make()
        if self.rank > 0:
            self._follow("first")
        made = make()
        if self.rank == 0:
            self._follow("first")
        return made

    def _follow(self, what: str) -> None:
        """Say on rank 0 that it has come to a place, and wait on the others until it has.

        However long that takes, as long as its store answers them.
        """
        with explain_lost_rank():
            if self.rank == 0:
                self.store.set(what, "here")
                return
            while not ask_store(lambda: self.store.check([what]), self.timeout_s):
                time.sleep(POLL_S)

    def connect(self, device: str) -> None:
        """Form the group: NCCL between GPUs, gloo between CPUs.

        Raises: LostRankError if not all come in time.
        """
        if self.size == 1:
            return
        with explain_lost_rank():
            kind = torch.device(device)
            if kind.type == "cuda":
                torch.cuda.set_device(kind)
            dist.init_process_group(
                "nccl" if kind.type == "cuda" else "gloo",
                store=self.store,
                rank=self.rank,
                world_size=self.size,
                timeout=timedelta(seconds=self.timeout_s),
            )

    def explain_lost_rank(self) -> AbstractContextManager[None]:
        """`explain_lost_rank`, or nothing for a process alone."""
        return explain_lost_rank() if self.size > 1 else contextlib.nullcontext()

    def name(self, what: str) -> str:
        """A name for what each rank has of its own; rank 0's is the plain one."""
        return f"{what}/{self.rank}" if self.rank else what

    def slice_rows(self, n_rows: int) -> slice:
        """This rank's rows of a batch, which the ranks divide evenly."""
        n_own = n_rows // self.size
        return slice(self.rank * n_own, (self.rank + 1) * n_own)

    def check_same(self, facts: dict[str, tuple[str, type[GluBenchError]]]) -> None:
        """Refuse to begin if a rank sees something else: per fact a text and the error it is.

        Raises: on every rank, the error of the first fact that differs, naming the rank.
        """
        for what, (text, error) in facts.items():
            # 48 bits are exact in a double
            seen = self.gather(int(sha256_bytes(text.encode(errors="surrogatepass"))[:12], 16))
            other = next((rank for rank, number in enumerate(seen) if number != seen[0]), None)
            if other is not None:
                raise error(f"rank {other} has another {what} than rank 0; nothing was trained")

    def gather(self, *numbers: float) -> list[list[float]]:
        """The numbers of every rank, by rank; the same list on all."""
        if self.size == 1:
            return [list(numbers)]
        return [part.tolist() for part in self.gather_tensors(torch.tensor(numbers, dtype=torch.float64))]

    def gather_tensors(self, tensor: Tensor) -> list[Tensor]:
        """A small tensor of every rank, by rank, on the CPU; the same shape everywhere."""
        if self.size == 1:
            return [tensor]
        here = tensor.to(_group_device())
        parts = [torch.empty_like(here) for _ in range(self.size)]
        dist.all_gather(parts, here)
        return [part.cpu() for part in parts]

    def add_up(self, numbers: NDArray[np.float64]) -> NDArray[np.float64]:
        """The sum over ranks, element by element; exact where all but one hold zero."""
        if self.size == 1:
            return numbers
        total = torch.from_numpy(numbers).to(_group_device())
        dist.all_reduce(total)
        return total.cpu().numpy()

    def average(self, tensor: Tensor) -> None:
        """Replace a tensor on every rank by its mean over the ranks."""
        dist.all_reduce(tensor)
        tensor /= self.size

    def collect(self, tensors: Iterable[tuple[str, Tensor]]) -> dict[str, Tensor]:
        """Named tensors, whole and on the CPU, on the rank that writes; nothing on the others.

        All ranks call it together with the same names in the same order.
        """
        collected = {}
        for name, tensor in tensors:
            whole = gather_whole(tensor.detach())
            if self.writes:
                collected[name] = whole.cpu().contiguous()
        return collected

    def share(self, what: str, number: int = 0) -> int:
        """Rank 0's number, on every rank, when all are here; for rank 0 they wait as long as it takes.

        `what` names the place, and a place is passed once.
        """
        if self.size > 1:
            self._follow(what)
        return int(self.gather(number)[0][0])

    def agree_stop(self, number: int | None) -> int | None:
        """The signal that any rank was asked to stop by, or None: the same answer on all."""
        if self.size == 1:
            return number
        return int(max(seen for (seen,) in self.gather(number or 0))) or None


ALONE = Ranks()


@contextlib.contextmanager
def join_ranks(parallel: schema.Parallel) -> Iterator[Ranks]:
    """This process's place among those that torchrun or our launcher started; the group is not formed yet.

    Raises: ConfigError if another number was started than was asked for; LostRankError if the
    store of rank 0 cannot be reached in time.
    """
    if not is_rank():
        yield ALONE
        return
    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    if parallel.devices not in (None, size):
        raise ConfigError(f"parallel.devices={parallel.devices}: {size} processes were started")
    if parallel.mode == "single" or parallel.timeout_s is None:
        raise ConfigError(f"parallel={parallel.mode}: {size} processes were started; parallel=ddp or fsdp")
    if sys.platform == "linux" and os.environ.get("MASTER_ADDR") in ("127.0.0.1", "localhost"):
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")  # a host name may resolve to nowhere
    with explain_lost_rank():
        try:
            timeout = timedelta(seconds=parallel.timeout_s)
            # torch's own words first, where it has some
            store = ask_store(lambda: _open_store(timeout), parallel.timeout_s + 1.0)
        except dist.DistNetworkError as error:
            if "EADDRINUSE" not in str(error):
                raise
            port = os.environ.get("MASTER_PORT")
            raise DeviceError(f"port {port} is taken by another program (EADDRINUSE)") from None
    yield Ranks(
        mode=parallel.mode,
        rank=rank,
        size=size,
        local_rank=int(os.environ.get("LOCAL_RANK", rank)),
        local_size=int(os.environ.get("LOCAL_WORLD_SIZE", size)),
        timeout_s=parallel.timeout_s,
        store=store,
    )
    if dist.is_initialized():  # not after an error: it would wait for those who left
        dist.destroy_process_group()


def _open_store(timeout: timedelta) -> Any:
    """torch's key-value store, which rank 0 serves.

    On the socket that our launcher left it, which hears this machine alone. torch's own would
    listen on all addresses, as it does where others start the ranks.
    """
    listener = os.environ.pop(STORE_FD, None)
    if listener is None:
        store, _, _ = next(rendezvous("env://", timeout=timeout))
        return store
    return dist.TCPStore(  # type: ignore[attr-defined]  # public, says its documentation
        os.environ["MASTER_ADDR"],
        int(os.environ["MASTER_PORT"]),
        int(os.environ["WORLD_SIZE"]),
        is_master=True,
        timeout=timeout,
        master_listen_fd=int(listener),
    )


def ask_store(call: Callable[[], Made], timeout_s: float) -> Made:
    """What a call of torch's store gives, if it does in time.

    torch itself waits without end for a process that was stopped, or for a stranger on the port,
    and hears no signal meanwhile; here a thread waits, which the end of the process takes along.
    Raises: LostRankError.
    """
    asking = ThreadPoolExecutor(max_workers=1)
    try:
        return asking.submit(call).result(timeout_s)
    except TimeoutError:
        raise LostRankError(
            f"another process of the run ended or does not answer (its store, for {timeout_s:g} s)"
        ) from None
    finally:
        asking.shutdown(wait=False)


def is_rank() -> bool:
    """Whether this process was started as one of several of a run."""
    return "RANK" in os.environ and int(os.environ.get("WORLD_SIZE", "1")) > 1


def count_ranks(parallel: schema.Parallel) -> int:
    """Processes of a run: as many as were started, were asked for, or one a GPU.

    Raises: ConfigError if nothing says how many.
    """
    if is_rank():
        return int(os.environ["WORLD_SIZE"])
    if parallel.mode == "single":
        return 1
    n_ranks = parallel.devices or torch.cuda.device_count()
    if not n_ranks:
        raise ConfigError(f"parallel={parallel.mode} on a machine without a GPU: say parallel.devices=2")
    return n_ranks


@contextlib.contextmanager
def explain_lost_rank() -> Iterator[None]:
    """Turn the many errors that say that another process is gone into LostRankError."""
    try:
        yield
    except RuntimeError as error:
        if isinstance(error, dist.DistError) or LOST_WORDS.search(str(error)):
            words = re.sub(r"^\[\S+\] ", "", str(error).splitlines()[0]).partition(". ")[0]  # no place in C++
            raise LostRankError(f"another process of the run ended or does not answer ({words})") from None
        raise


def is_spread(tensor: Tensor) -> bool:
    """Whether each rank holds a part of the tensor."""
    return hasattr(tensor, "full_tensor")  # a DTensor, whose module takes time to import


def gather_whole(tensor: Tensor) -> Tensor:
    """A tensor that may be spread over the ranks, whole; then all ranks must call this together."""
    whole: Tensor = getattr(tensor, "full_tensor", lambda: tensor)()
    return whole


def spread_like(whole: Tensor, like: Tensor) -> Tensor:
    """A tensor that every rank has whole, spread over the ranks as `like` is, on its device."""
    if not is_spread(like):
        return whole.to(like.device)
    from torch.distributed.tensor import DTensor, distribute_tensor

    assert isinstance(like, DTensor)
    here = whole.to(like.device)
    return distribute_tensor(here, like.device_mesh, like.placements, src_data_rank=None)


def _group_device() -> torch.device:
    return torch.device("cuda") if dist.get_backend() == "nccl" else torch.device("cpu")
