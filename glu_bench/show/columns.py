"""The columns of a comparison: key as in the JSON, header, unit, how a cell reads as text and as data."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

from glu_bench.errors import ConfigError, suggest
from glu_bench.show.numbers import fixed, p_text, perplexity_text, si
from glu_bench.study.compare import Arm, Comparison

Value = str | int | float | None


@dataclass(frozen=True, kw_only=True)
class Column:
    """One column of every format."""

    key: str
    header: str  # {baseline}, {split} and {loss} stand for the table's own
    unit: str
    write: Callable[[Arm, Comparison], str]  # a cell for people; "-" for nothing
    parts: tuple[str, ...]  # its columns as data
    read: Callable[[Arm], tuple[Value, ...]]  # unrounded, a value a part
    is_text: bool = False  # left-aligned, and from outside

    def head(self, comparison: Comparison) -> str:
        """The header in this table."""
        loss = "loss" if comparison.per == "token" else f"loss/{comparison.per}"
        return self.header.format(baseline=comparison.baseline, split=comparison.split, loss=loss)


def list_columns() -> dict[str, Column]:
    """All columns by key, in the order in which a table shows them."""
    return dict(_COLUMNS)


def choose_columns(text: str) -> list[Column]:
    """The columns that `--columns` names, in its order; for "all" every one, parts of `n` once.

    Raises: ConfigError for a key that is none.
    """
    keys = list(dict.fromkeys(key for part in text.split(",") if (key := part.strip())))
    if keys == ["all"]:
        return [column for key, column in _COLUMNS.items() if key not in WITHIN_N]
    for key in keys:
        if key not in _COLUMNS:
            hint = suggest(key, _COLUMNS) or f"; known: all, {', '.join(_COLUMNS)}"
            raise ConfigError(f"--columns: there is no column '{key}'{hint}")
    if not keys:
        raise ConfigError("--columns: names no column; such as arm,mean_loss_nats, or all")
    return [_COLUMNS[key] for key in keys]


def list_defaults(comparison: Comparison) -> list[Column]:
    """What a table shows unless told otherwise, the most telling first; nothing that no arm has.

    Speedups only where the baseline has more budgets than the arms: at theirs alone a bound of 1
    says what the difference says.
    """
    tells = any(_tells_more(arm) for arm in comparison.arms)
    keys = (key for key in TELLING if tells or not key.startswith("speedup."))
    return drop_empty((_COLUMNS[key] for key in keys), comparison)


def _tells_more(arm: Arm) -> bool:
    """Whether an arm's speedup rests on another budget of the baseline than the arm's own."""
    if arm.speedup is None:
        return False
    bounds = arm.speedup.tokens_bounds or ()
    return bool(arm.speedup.method) or any(bound not in (None, 1.0) for bound in bounds)


def drop_empty(columns: Iterable[Column], comparison: Comparison) -> list[Column]:
    """Those columns that hold something for an arm or more."""

    def is_empty(column: Column) -> bool:
        return all(value in (None, "") for arm in comparison.arms for value in column.read(arm))

    return [column for column in columns if not is_empty(column)]


def sort_columns(columns: Iterable[Column]) -> list[Column]:
    """Columns in the order in which a table shows them."""
    order = list(_COLUMNS)
    return sorted(columns, key=lambda column: order.index(column.key))


def _get(arm: Arm, dotted: str) -> Any:
    """An attribute by its dotted key; None where a part of the way is None."""
    name, _, rest = dotted.partition(".")
    value = getattr(arm, name)
    return value if value is None or not rest else attrgetter(rest)(value)


def _write_perplexity(arm: Arm, comparison: Comparison) -> str:
    """Of losses per byte there is none; of a loss above 709 nats it is larger than a number can be."""
    if arm.mean_loss_nats is None or comparison.per != "token":
        return "-"
    return perplexity_text(arm.perplexity)


def _number(key: str, header: str, unit: str, write: Callable[[Any], str]) -> Column:
    return Column(
        key=key,
        header=header,
        unit=unit,
        write=lambda arm, _: "-" if _get(arm, key) is None else write(_get(arm, key)),
        parts=(key,),
        read=lambda arm: (_get(arm, key),),
    )


def _text(key: str, header: str, write: Callable[[Any], str] = str) -> Column:
    return Column(
        key=key,
        header=header,
        unit="",
        write=lambda arm, _: write(_get(arm, key)),
        parts=(key,),
        read=lambda arm: (_get(arm, key),),
        is_text=True,
    )


def _interval(key: str, header: str, unit: str, write: Callable[[float], str]) -> Column:
    def read(arm: Arm) -> tuple[Value, ...]:
        return _get(arm, key) or (None, None)

    def show(arm: Arm, comparison: Comparison) -> str:
        low, high = read(arm)
        if low is None and high is None:
            return "-"
        ends = ("-" if end is None else write(float(end)) for end in (low, high))
        return " to ".join(ends)

    return Column(
        key=key, header=header, unit=unit, write=show, parts=(f"{key}_low", f"{key}_high"), read=read
    )


def _say_n(arm: Arm, _: Comparison) -> str:
    said = str(arm.n_finished) if arm.n_finished == arm.n_planned else f"{arm.n_finished}/{arm.n_planned}"
    return said + (f" ({arm.n_diverged} diverged)" if arm.n_diverged else "")


def _say_difference(arm: Arm, comparison: Comparison) -> str:
    return "baseline" if arm.arm == comparison.baseline else _signed(arm.difference_nats)


def _signed(value: float | None) -> str:
    return fixed(value, sign=True)


def _ratio(value: float) -> str:
    return f"{value:.3g}x"


def _speedup(name: str, header: str, unit: str) -> Column:
    """A ratio or, where there is none, its bound."""

    def read(arm: Arm) -> tuple[Value, ...]:
        return (_get(arm, f"speedup.{name}"), *(_get(arm, f"speedup.{name}_bounds") or (None, None)))

    def show(arm: Arm, _: Comparison) -> str:
        value, at_least, at_most = read(arm)
        if value is not None:
            return _ratio(float(value))
        marked = ((">", at_least), ("<", at_most))
        return " ".join(f"{mark}{_ratio(float(end))}" for mark, end in marked if end is not None) or "-"

    parts = (f"speedup.{name}", f"speedup.{name}_at_least", f"speedup.{name}_at_most")
    return Column(key=f"speedup.{name}", header=header, unit=unit, write=show, parts=parts, read=read)


WITHIN_N = ("n_finished", "n_planned", "n_diverged")
NATS = "nats"
_ALL = (
    _text("arm", "arm"),
    Column(
        key="n",
        header="n",
        unit="runs",
        write=_say_n,
        parts=WITHIN_N,
        read=lambda arm: (arm.n_finished, arm.n_planned, arm.n_diverged),
    ),
    _number("n_finished", "finished", "runs", str),
    _number("n_planned", "planned", "runs", str),
    _number("n_diverged", "diverged", "runs", str),
    _number("mean_loss_nats", "{loss}", NATS, fixed),
    _number("sd_loss_nats", "sd", NATS, fixed),
    _text("letters", ""),
    _interval("ci95", "95 % of loss", NATS, fixed),
    Column(
        key="perplexity",
        header="{split} ppl",
        unit="",
        write=_write_perplexity,
        parts=("perplexity",),
        read=lambda arm: (arm.perplexity,),
    ),
    _number("bits_per_byte", "bits/byte", "", fixed),
    Column(
        key="difference_nats",
        header="vs {baseline}",
        unit=NATS,
        write=_say_difference,
        parts=("difference_nats",),
        read=lambda arm: (arm.difference_nats,),
    ),
    _interval("difference_ci95", "95 % interval", NATS, _signed),
    _number("p_raw", "p", "", p_text),
    _number("p_holm", "p (Holm)", "", p_text),
    _text("verdict", "verdict", lambda verdict: str(verdict).replace("_", " ")),
    _number("n_params", "params", "", si),
    _number("n_ffn_params", "FFN params", "", si),
    _number("match_residual", "residual", "", lambda share: f"{share:+.2%}"),
    _number("flops_per_token", "FLOPs/token", "", si),
    _number("forward_flops_per_token", "forward", "FLOPs/token", si),
    _number("ffn_saved_bytes_per_token", "kept/token", "", lambda n_bytes: f"{si(n_bytes)}B"),
    _number("tokens_per_s", "tokens/s", "", si),
    _number("peak_bytes", "memory", "", lambda n_bytes: f"{si(n_bytes)}B"),
    _speedup("compute", "speedup", "compute"),
    _interval("speedup.compute_ci95", "95 % of speedup", "compute", _ratio),
    _speedup("wall", "speedup, time", "wall clock"),
    _interval("speedup.wall_ci95", "95 % of that", "wall clock", _ratio),
    _number("equal_flops.difference_nats", "vs {baseline}, equal FLOPs", NATS, _signed),
    _interval("equal_flops.ci95", "95 %", NATS, _signed),
    _number("equal_time.difference_nats", "vs {baseline}, equal time", NATS, _signed),
    _interval("equal_time.ci95", "95 %", NATS, _signed),
)
_COLUMNS = {column.key: column for column in _ALL}
TELLING = (
    *("arm", "n", "mean_loss_nats", "letters", "sd_loss_nats", "difference_nats", "difference_ci95"),
    *("p_holm", "perplexity", "tokens_per_s", "ffn_saved_bytes_per_token"),
    *("speedup.wall", "speedup.compute", "match_residual"),
    *("flops_per_token", "n_ffn_params", "bits_per_byte", "peak_bytes", "n_params"),
)
