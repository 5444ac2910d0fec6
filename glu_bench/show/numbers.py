"""Numbers as people read them."""

from __future__ import annotations


def si(value: float | None) -> str:
    """12300 as 12.3k, 1869888 as 1.87M; a dash for nothing."""
    if value is None:
        return "-"
    for limit, unit in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= limit:
            return f"{value / limit:.3g}{unit}"
    return f"{value:.3g}"


def fixed(value: float | None, digits: int = 4, sign: bool = False) -> str:
    """A number with so many decimals; a dash for nothing."""
    if value is None:
        return "-"
    return f"{value:+.{digits}f}" if sign else f"{value:.{digits}f}"


def duration(elapsed_s: float | None) -> str:
    """75 as 1m15s."""
    if elapsed_s is None:
        return "-"
    minutes, seconds = divmod(round(elapsed_s), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}h{minutes:02d}m"
    return f"{minutes}m{seconds:02d}s" if minutes else f"{seconds}s"


def perplexity_text(value: float | None) -> str:
    """Perplexity with two decimals, or that it overflows (a loss above 709 nats)."""
    if value is None:
        return ">1e308"
    return f"{value:.3f}" if value < 1e4 else f"{value:.3g}"


def p_text(p: float | None) -> str:
    """A probability as papers print it; beside 0.05 the side it is on."""
    if p is None:
        return "-"
    if p < 0.001:
        return "<0.001"
    text = f"{p:.3f}"
    return text if text != "0.050" else "<0.05" if p < 0.05 else ">0.05" if p > 0.05 else text


def cell(value: object) -> str:
    """Any value in a table: whole numbers in groups of three, others as they are written."""
    if value is None:
        return "-"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def binary_size(n_bytes: int) -> str:
    """1536 as 1.5 KiB."""
    value, unit = float(n_bytes), "B"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if value < 1024:
            break
        value, unit = value / 1024, larger
    return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
