"""The instrument that says which feed-forward activation a transformer should use.

What stands in `__all__` is public; all else may move. Names are imported on first use, so that
importing the package costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from glu_bench.ffn.feedforward import make_feedforward
    from glu_bench.ffn.formula import list_variants, load_variant
    from glu_bench.interop.swap import swap_feedforward
    from glu_bench.runs.folder import load_run
    from glu_bench.study.compare import compare_runs

_HOMES = {
    "load_variant": "glu_bench.ffn.formula",
    "list_variants": "glu_bench.ffn.formula",
    "make_feedforward": "glu_bench.ffn.feedforward",
    "swap_feedforward": "glu_bench.interop.swap",
    "load_run": "glu_bench.runs.folder",
    "compare_runs": "glu_bench.study.compare",
}

__all__ = [
    "compare_runs",
    "list_variants",
    "load_run",
    "load_variant",
    "make_feedforward",
    "swap_feedforward",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'glu_bench' has no attribute '{name}'")
    return getattr(importlib.import_module(_HOMES[name]), name)
