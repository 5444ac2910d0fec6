"""The memory a pass takes while it runs."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile

from glu_bench.cost.race import Step


def measure_peak_bytes(step: Step, device: str) -> int:
    """The most bytes of tensors that are alive at once during a step, above those alive before it.

    On CUDA the allocator keeps count. On CPU torch's profiler sees each tensor come and go, so
    neither what malloc holds back nor what an earlier step left behind is counted.
    """
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        step()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    os.environ.setdefault("KINETO_LOG_LEVEL", "6")  # it writes to stderr that it starts and stops
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        step()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.json"
        profiler.export_chrome_trace(str(path))
        events = json.loads(path.read_text(encoding="utf-8"))["traceEvents"]
    changes = [(event["ts"], event["args"]["Bytes"]) for event in events if event["name"] == "[memory]"]
    live = peak = 0
    for _, n_bytes in sorted(changes, key=lambda change: float(change[0])):
        live += n_bytes
        peak = max(peak, live)
    return peak
