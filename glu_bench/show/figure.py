"""A variant's curve as a file for a paper, by matplotlib."""

from __future__ import annotations

import io
from pathlib import Path

from glu_bench.errors import ConfigError
from glu_bench.ffn.curve import Curve
from glu_bench.files import make_folder, write_bytes
from glu_bench.schema import Variant

FORMATS = ("svg", "png", "pdf")


def check_figure(path: Path) -> str:
    """The format that the file's ending asks for.

    Raises: ConfigError if it is none of FORMATS, or matplotlib is missing.
    """
    ending = path.suffix.removeprefix(".").lower()
    if ending not in FORMATS:
        raise ConfigError(f"--figure {path}: the file's ending is one of .svg, .png, .pdf")
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise ConfigError("--figure needs matplotlib: pip install 'glu-bench[figures]'") from None
    return ending


def write_figure(path: Path, variant: Variant, curve: Curve) -> None:
    """Function and derivative in one drawing; the same input gives the same bytes as SVG.

    Raises: ConfigError for an ending that is not known or if matplotlib is missing.
    """
    ending = check_figure(path)
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context({"svg.hashsalt": "glu-bench", "svg.fonttype": "none"}):
        figure = Figure(figsize=(5.0, 3.4), layout="constrained")
        axes = figure.subplots()
        axes.axhline(0, color="0.8", linewidth=0.8)
        axes.axvline(0, color="0.8", linewidth=0.8)
        axes.plot(curve.x, curve.values, color="C0", label="function")
        axes.plot(curve.x, curve.slopes, color="C1", linestyle="--", label="derivative")
        axes.set_title(f"{variant.name}: {variant.formula}", parse_math=False)
        axes.set_xlabel("gate" if curve.of == "gate" else "h")
        axes.legend(frameon=False)
        content = io.BytesIO()
        figure.savefig(content, format=ending, dpi=200, metadata={"Date": None} if ending == "svg" else None)
    make_folder(path.parent)
    write_bytes(path, content.getvalue())
