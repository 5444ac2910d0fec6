"""What this machine offers to a run, and what to do about what it lacks."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import shutil
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from glu_bench.cache import find_cache
from glu_bench.host import count_cores

HUB_LIMIT_S = 3.0  # the name look-up included, which has no limit of its own
LITTLE_DISK_BYTES = 2 * 2**30  # a nano run with its checkpoints takes 70 MB, a large one 10 GB
NO_DISK_BYTES = 64 * 2**20
OLDEST_PYTHON = (3, 11)
EXTRAS = {
    "transformers": "transformers",
    "tensorboard": "tensorboard",
    "wandb": "wandb",
    "zstandard": "zstd",
    "hydra-submitit-launcher": "slurm",
    "hydra-ray-launcher": "ray",
}


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One fact about the machine; `fatal` if nothing can be trained with it."""

    name: str
    status: str  # ok, warning, problem
    found: str
    advice: str = ""
    fatal: bool = False


def inspect_machine(output_dir: Path) -> list[Finding]:
    """Everything a run depends on, in the order in which it would be missed."""
    return [
        _inspect_python(),
        *_inspect_torch(),
        _inspect_cores(),
        *_inspect_disk("output folder", output_dir, "--output-dir names another"),
        *_inspect_disk("cache", find_cache(), "GLU_BENCH_CACHE names another"),
        _inspect_cache(find_cache()),
        inspect_hub(),
        *_inspect_extras(),
        _inspect_terminal(),
    ]


def _inspect_python() -> Finding:
    fits = sys.version_info[:2] >= OLDEST_PYTHON
    return Finding(
        name="python",
        status="ok" if fits else "problem",
        found=f"{platform.python_version()} on {platform.platform()}",
        advice="" if fits else "Python 3.11 or later is needed",
        fatal=not fits,
    )


def _inspect_torch() -> Iterator[Finding]:
    try:
        import torch

        from glu_bench.device import find_missing_compiler, has_bf16, resolve_device
    except (ImportError, OSError) as error:
        yield Finding(
            name="torch",
            status="problem",
            found=f"cannot be imported: {str(error).splitlines()[0]}",
            advice="pip install 'torch>=2.13,<2.14'",
            fatal=True,
        )
        return
    known = torch.__version__.startswith("2.13.")
    yield Finding(
        name="torch",
        status="ok" if known else "warning",
        found=str(torch.__version__),
        advice="" if known else "tested with 2.13: pip install 'torch>=2.13,<2.14'",
    )
    device = resolve_device("auto")
    n_gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    names = [f"cuda:{i} {torch.cuda.get_device_name(i)}" for i in range(n_gpus)]
    names += ["mps"] if torch.backends.mps.is_available() else []
    yield Finding(name="devices", status="ok", found=", ".join([*names, "cpu"]) + f"; auto is {device}")
    bf16 = has_bf16(device)
    yield Finding(
        name="bf16",
        status="ok" if bf16 else "warning",
        found=f"{'in hardware' if bf16 else 'not in hardware'} on {device}",
        advice="" if bf16 else "train.precision=auto uses fp32, two to four times slower",
    )
    missing = find_missing_compiler(device)
    yield Finding(
        name="compiler",
        status="warning" if missing else "ok",
        found=missing or "torch.compile can be used",
        advice="install g++ or clang++; until then runs are eager" if missing and device == "cpu" else "",
    )


def _inspect_cores() -> Finding:
    n_cores = os.cpu_count() or 1
    usable = count_cores()
    torch = sys.modules.get("torch")
    n_threads = torch.get_num_threads() if torch else usable
    crowded = n_threads > usable
    return Finding(
        name="cores",
        status="warning" if crowded else "ok",
        found=f"{usable} of {n_cores} usable, torch takes {n_threads} threads",
        advice=f"train.threads={usable} avoids waiting for one another" if crowded else "",
    )


def _inspect_disk(name: str, folder: Path, otherwise: str) -> Iterator[Finding]:
    existing = next((path for path in (folder, *folder.absolute().parents) if path.exists()), Path("/"))
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        yield Finding(
            name=name,
            status="problem",
            found=f"{folder}: cannot write in {existing}",
            advice=otherwise,
            fatal=True,
        )
        return
    n_free = shutil.disk_usage(existing).free
    status = "ok" if n_free >= LITTLE_DISK_BYTES else "warning" if n_free >= NO_DISK_BYTES else "problem"
    yield Finding(
        name=name,
        status=status,
        found=f"{folder}: {n_free / 2**30:.1f} GiB free",
        advice="" if status == "ok" else f"make room (glu-bench runs prune --checkpoints), or {otherwise}",
        fatal=status == "problem",
    )


def _inspect_cache(cache: Path) -> Finding:
    n_bytes = 0
    for folder, _, files in os.walk(cache):
        for file in files:
            try:
                n_bytes += os.lstat(os.path.join(folder, file)).st_size  # noqa: PTH118  (many files)
            except OSError:
                continue  # another process took it away
    found = f"{n_bytes / 2**20:.1f} MiB of prepared tokens and compiled graphs"
    return Finding(name="cache size", status="ok", found=found)


def inspect_hub(limit_s: float = HUB_LIMIT_S) -> Finding:
    """Whether the Hugging Face hub answers; at most `limit_s`, whatever the network does."""
    from huggingface_hub import constants

    if constants.is_offline_mode():
        return Finding(
            name="hub", status="ok", found="offline by HF_HUB_OFFLINE", advice="only cached texts can be used"
        )
    endpoint = constants.ENDPOINT
    answers: list[str | None] = []  # None for an answer, else why there was none
    asking = threading.Thread(target=lambda: answers.append(_ask(endpoint, limit_s)), daemon=True)
    began = time.monotonic()
    asking.start()
    asking.join(limit_s)
    reason = answers[0] if answers else f"no answer within {limit_s:g} s"
    if reason is None:
        elapsed_ms = 1000 * (time.monotonic() - began)
        return Finding(name="hub", status="ok", found=f"{endpoint} answered in {elapsed_ms:.0f} ms")
    return Finding(
        name="hub",
        status="warning",
        found=f"{endpoint}: {reason}",
        advice="texts from the hub need it once; HF_HUB_OFFLINE=1 saves waiting for it",
    )


def _ask(endpoint: str, limit_s: float) -> str | None:
    if not endpoint.startswith(("http://", "https://")):
        return "not an address"
    try:
        urllib.request.urlopen(urllib.request.Request(endpoint, method="HEAD"), timeout=limit_s).close()
    except urllib.error.HTTPError as error:  # refused, but there
        error.close()
    except (OSError, ValueError) as error:
        return str(getattr(error, "reason", None) or error) or type(error).__name__
    return None


def _inspect_extras() -> Iterator[Finding]:
    for package, extra in EXTRAS.items():
        try:
            yield Finding(name=package, status="ok", found=importlib.metadata.version(package))
        except importlib.metadata.PackageNotFoundError:
            advice = f"if you want it: pip install '.[{extra}]'"
            yield Finding(name=package, status="ok", found="not installed", advice=advice)


def _inspect_terminal() -> Finding:
    encoding = (sys.stdout.encoding or "ascii").lower()
    kind = os.environ.get("TERM", "no TERM") if sys.stdout.isatty() else "none, output is piped"
    width = shutil.get_terminal_size().columns
    unicode = encoding.replace("-", "") == "utf8"
    return Finding(
        name="terminal",
        status="ok" if unicode else "warning",
        found=f"{kind}, {width} columns, {encoding}",
        advice="" if unicode else "LANG=C.UTF-8 allows drawings finer than ASCII",
    )
