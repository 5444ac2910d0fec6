"""The feed-forward block alone, forward and backward: time, share of the peak, memory, parity.

Each variant runs at matched parameters in three settings: part by part (plain), the step that
keeps little (lean), and that step compiled. All race in one process, in groups that each have
swiglu compiled in them, on one input that has the dtype of the activations.
"""

from __future__ import annotations

import importlib.util
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from glu_bench import schema
from glu_bench.allocator import keep_freed_memory
from glu_bench.cache import keep_compiled_graphs
from glu_bench.compiler import compile_function
from glu_bench.cost.footprint import measure_peak_bytes
from glu_bench.cost.parity import find_difference, run_pass
from glu_bench.cost.peak import NAMES, find_peak, make_products
from glu_bench.cost.race import Step, describe_process, make_groups, paired_ratio, race, spread, warm
from glu_bench.cost.step import load_preset
from glu_bench.device import find_missing_compiler, has_bf16, make_autocast
from glu_bench.ffn.feedforward import FeedForward
from glu_bench.ffn.formula import Formula, find_variants, load_variant
from glu_bench.ffn.matching import match_width
from glu_bench.ffn.saved import measure_saved_bytes

REFERENCE = "swiglu"
LLAMA, LIGER = "transformers LlamaMLP", "Liger LigerSwiGLUMLP"
PEERS = ((LLAMA, "eager"), (LLAMA, "compiled"), (LIGER, "eager"))
GROUP_SIZE = 7  # variants beside swiglu
PASSES_A_ROUND = 3

Call = Callable[[Tensor], Tensor]


@dataclass(frozen=True, kw_only=True)
class FeedForwardRow:
    """One block in one setting; times are medians over rounds. None: not measured, a note says why."""

    name: str  # preset, block, setting
    preset: str
    block: str  # the variant, or whose block it is
    setting: str  # plain, lean, compiled; a peer's: eager, compiled
    d_ff: int
    bound_bytes_per_token: int  # x and the projections: D + 2F, ungated D + F
    ours: float | None = None  # this variant's; beside a peer swiglu's in its last setting
    peer: float | None = None
    ratio: float | None = None  # ours / peer, median over rounds
    unit: str = "tokens/s"
    tokens_per_s: float | None = None  # of this row's block, ours or a peer's
    elapsed_ms: float | None = None  # a pass over all tokens
    spread: float | None = None  # (slowest - fastest) / median, over rounds
    share_of_peak: float | None = None  # 6 FLOPs a weight and token, over the measured peak
    time_to_swiglu: float | None = None  # over swiglu's in its last setting, median over rounds
    saved_bytes_per_token: float | None = None  # kept for the backward pass, weights not counted
    peak_bytes: int | None = None  # of tensors alive at once, above weights and input
    parity_fp32: float | None = None  # greatest relative difference from plain, of output and gradients
    parity_bf16: float | None = None
    bf16_rounding: float | None = None  # as far plain in bf16 is from plain in fp32
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class FeedForwardBenchmark:
    """What `bench_feedforward` measured."""

    rows: tuple[FeedForwardRow, ...]  # variants, then peers
    peak_flops_per_s: float  # of matrix multiplies in the same dtype, process and rounds
    dtype: str
    d_model: int
    n_tokens: int  # of a pass
    environment: dict[str, str | int | bool]


@dataclass(frozen=True, kw_only=True)
class _Bench:
    """What every block of one benchmark shares."""

    preset: str
    config: schema.Config
    device: str
    precision: str
    x_ND: Tensor
    d_y_ND: Tensor
    no_compiler: str | None


@dataclass(frozen=True, kw_only=True)
class _Contestant:
    """A row before it is timed, and what is to be timed."""

    row: FeedForwardRow
    flops: int  # of a pass
    step: Step | None  # None where it cannot run


def bench_feedforward(
    words: Sequence[str] = ("core",),
    preset: str = "micro",
    *,
    batch_size: int = 16,
    rounds: int = 5,
    passes_a_round: int = PASSES_A_ROUND,
    peers: bool = True,
    config_dir: Path | None = None,
) -> FeedForwardBenchmark:
    """Passes of the block of each variant, under bf16 autocast where the hardware has bf16, else in fp32.

    Words as in `find_variants`, swiglu is always there; a preset as in `bench_step`. On the first
    CUDA device if there is one, else on CPU.
    Raises: ConfigError for an unknown preset or variant.
    """
    names = find_variants([REFERENCE, *words], config_dir)
    formulas = {name: load_variant(name, config_dir) for name in names}
    config = load_preset(preset, config_dir=config_dir)
    memory_kept = keep_freed_memory()
    keep_compiled_graphs()
    bench = _make_bench(preset, config, batch_size)
    dtype = bench.x_ND.dtype
    first = _make_variant(bench, formulas[REFERENCE])
    reference = next(contestant for contestant in reversed(first) if contestant.step is not None)
    first += _make_peers(bench, formulas[REFERENCE]) if peers else []
    products = make_products(dtype, bench.device)
    timed: list[tuple[_Contestant, dict[str, list[float]]]] = []
    for number, group in enumerate(make_groups(names, REFERENCE, GROUP_SIZE)):
        contestants = [each for name in group[1:] for each in _make_variant(bench, formulas[name])]
        contestants = contestants if number else first + contestants
        steps = {each.row.name: each.step for each in [reference, *contestants] if each.step is not None}
        seconds = race(steps | products, rounds, passes_a_round)
        timed += [(replace(each, step=None), seconds) for each in contestants]
    peak_flops_per_s = max(find_peak(seconds, dtype) for _, seconds in timed)
    rows = [_make_row(bench, each, reference, seconds, peak_flops_per_s) for each, seconds in timed]
    return FeedForwardBenchmark(
        rows=tuple(sorted(rows, key=lambda row: row.block not in formulas)),
        peak_flops_per_s=peak_flops_per_s,
        dtype=NAMES[dtype],
        d_model=config.model.d_model,
        n_tokens=len(bench.x_ND),
        environment=describe_process(memory_kept) | {"device": _describe_device(bench.device)},
    )


def compile_call(block: nn.Module) -> Call:
    """A block's forward, compiled as training compiles it."""
    compiled = compile_function(_call)
    return lambda x_ND: compiled(block, x_ND)


def _call(block: nn.Module, x_ND: Tensor) -> Tensor:
    y_ND: Tensor = block(x_ND)
    return y_ND


def _make_bench(preset: str, config: schema.Config, batch_size: int) -> _Bench:
    device = "cuda:0" if torch.cuda.is_available() else "cpu"
    precision = "bf16" if has_bf16(device) else "fp32"
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    generator = torch.Generator().manual_seed(0)
    x_ND, d_y_ND = (
        torch.randn(batch_size * config.model.seq_len, config.model.d_model, generator=generator).to(
            device, dtype
        )
        for _ in range(2)
    )
    return _Bench(
        preset=preset,
        config=config,
        device=device,
        precision=precision,
        x_ND=x_ND.requires_grad_(),
        d_y_ND=d_y_ND,
        no_compiler=find_missing_compiler(device),
    )


def _make_variant(bench: _Bench, formula: Formula) -> list[_Contestant]:
    """Plain, lean and compiled, on equal weights."""
    model = bench.config.model
    receipt = match_width(formula.spec, model.d_model, bench.config.match, model.ffn_bias)
    torch.manual_seed(0)
    plain, lean = (
        FeedForward(formula, model.d_model, receipt.d_ff, bias=model.ffn_bias, fast=fast).to(bench.device)
        for fast in (False, True)
    )
    lean.load_state_dict(plain.state_dict())
    base = _start_row(bench, formula, receipt.d_ff, formula.name)
    flops = 3 * receipt.flops_per_token * len(bench.x_ND)
    x32_ND, d_y32_ND = bench.x_ND.float(), bench.d_y_ND.float()

    def run(call: Call, block: nn.Module, precision: str) -> list[Tensor]:
        x, d_y = (x32_ND, d_y32_ND) if precision == "fp32" else (bench.x_ND, bench.d_y_ND)
        return run_pass(call, block.parameters(), x, d_y, precision)

    exact = run(plain, plain, "fp32")
    rounded = run(plain, plain, "bf16") if bench.precision == "bf16" else None
    base = replace(base, bf16_rounding=None if rounded is None else find_difference(rounded, exact))
    contestants = []
    for setting, block in (("plain", plain), ("lean", lean), ("compiled", lean)):
        row = replace(base, name=f"{bench.preset} / {formula.name}, {setting}", setting=setting)
        if setting == "compiled" and bench.no_compiler is not None:
            contestants.append(_Contestant(row=replace(row, note=bench.no_compiler), flops=flops, step=None))
            continue
        call = compile_call(block) if setting == "compiled" else block
        if setting != "plain":
            row = replace(row, parity_fp32=find_difference(run(call, block, "fp32"), exact))
            if rounded is not None:
                row = replace(row, parity_bf16=find_difference(run(call, block, "bf16"), rounded))
        contestants.append(_measure(bench, row, flops, call, block))
    return contestants


def _make_peers(bench: _Bench, formula: Formula) -> list[_Contestant]:
    """Other people's SwiGLU blocks of swiglu's shape; where one cannot run, its row says why."""
    model = bench.config.model
    receipt = match_width(formula.spec, model.d_model, bench.config.match, model.ffn_bias)
    flops = 3 * receipt.flops_per_token * len(bench.x_ND)
    contestants = []
    for name, setting in PEERS:
        row = replace(_start_row(bench, formula, receipt.d_ff, name), setting=setting)
        row = replace(row, name=f"{bench.preset} / {name}, {setting}")
        note = _find_obstacle(bench, name, setting)
        if note is None:
            try:
                block = _make_peer(bench, name, receipt.d_ff).to(bench.device)
                call = compile_call(block) if setting == "compiled" else block
                contestants.append(_measure(bench, row, flops, call, block))
            except Exception as error:  # a peer that fails is a row with its reason, not the end
                note = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
        if note is not None:
            contestants.append(_Contestant(row=replace(row, note=note), flops=flops, step=None))
    return contestants


def _find_obstacle(bench: _Bench, name: str, setting: str) -> str | None:
    package = "transformers" if name == LLAMA else "liger_kernel"
    try:
        found = importlib.util.find_spec(package) is not None
    except ValueError:  # it stands in sys.modules as absent
        found = False
    if name == LIGER and not bench.device.startswith("cuda"):
        return "needs a CUDA device"
    if not found:
        return f"{package} is not installed"
    return bench.no_compiler if setting == "compiled" else None


def _make_peer(bench: _Bench, name: str, d_ff: int) -> nn.Module:
    from transformers import LlamaConfig

    model = bench.config.model
    shape: dict[str, Any] = {
        "hidden_size": model.d_model,
        "intermediate_size": d_ff,
        "num_attention_heads": model.n_heads,  # it checks that they divide the width
        "mlp_bias": model.ffn_bias,
        "hidden_act": "silu",
    }
    if name == LLAMA:
        from transformers.models.llama.modeling_llama import LlamaMLP

        block: nn.Module = LlamaMLP(LlamaConfig(**shape))
        return block
    from liger_kernel.transformers.swiglu import LigerSwiGLUMLP

    fused: nn.Module = LigerSwiGLUMLP(LlamaConfig(**shape))
    return fused


def _start_row(bench: _Bench, formula: Formula, d_ff: int, block: str) -> FeedForwardRow:
    n_kept = bench.config.model.d_model + formula.n_projections * d_ff
    return FeedForwardRow(
        name=block,
        preset=bench.preset,
        block=block,
        setting="",
        d_ff=d_ff,
        bound_bytes_per_token=n_kept * bench.x_ND.dtype.itemsize,
    )


def _measure(bench: _Bench, row: FeedForwardRow, flops: int, call: Call, block: nn.Module) -> _Contestant:
    """The block's pass, warm, and the memory it takes."""
    x_ND, d_y_ND = bench.x_ND, bench.d_y_ND
    parameters = list(block.parameters())

    def forward() -> Tensor:
        with make_autocast(bench.device, bench.precision):
            return call(x_ND)

    def step() -> None:
        forward().backward(d_y_ND)  # type: ignore[no-untyped-call]
        x_ND.grad = None
        for parameter in parameters:
            parameter.grad = None

    warm(step)
    n_tokens = len(x_ND)
    row = replace(row, peak_bytes=measure_peak_bytes(step, bench.device))
    if n_tokens in (bench.config.model.d_model, row.d_ff, 2 * row.d_ff):
        row = replace(
            row, note=f"saved bytes not told from weights: {n_tokens} tokens are as many as a width"
        )
    else:
        row = replace(row, saved_bytes_per_token=measure_saved_bytes(forward, n_tokens))
    return _Contestant(row=row, flops=flops, step=step)


def _make_row(
    bench: _Bench,
    contestant: _Contestant,
    reference: _Contestant,
    seconds: dict[str, list[float]],
    peak_flops_per_s: float,
) -> FeedForwardRow:
    row, times, reference_times = (
        contestant.row,
        seconds.get(contestant.row.name),
        seconds[reference.row.name],
    )
    n_tokens = len(bench.x_ND)
    is_peer = (row.block, row.setting) in PEERS
    if is_peer:
        row = replace(row, ours=n_tokens / statistics.median(reference_times))
    if times is None:
        return row
    elapsed_s = statistics.median(times)
    time_to_swiglu = paired_ratio(reference_times, times)
    rate = n_tokens / elapsed_s
    row = replace(row, peer=rate, ratio=time_to_swiglu) if is_peer else replace(row, ours=rate)
    return replace(
        row,
        tokens_per_s=rate,
        elapsed_ms=1e3 * elapsed_s,
        spread=spread(times),
        share_of_peak=contestant.flops / elapsed_s / peak_flops_per_s,
        time_to_swiglu=time_to_swiglu,
    )


def _describe_device(device: str) -> str:
    return torch.cuda.get_device_name(device) if device.startswith("cuda") else device
