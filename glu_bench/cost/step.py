"""Tokens per second of a whole training step, against Hugging Face's Llama of the same shape.

All contestants live in one process and take turns round by round, so that a machine that
slows down slows all of them; a ratio is the median over rounds of ratios within a round.
"""

from __future__ import annotations

import platform
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.benchmark import Timer

from glu_bench import schema
from glu_bench.allocator import keep_freed_memory
from glu_bench.config import load_config
from glu_bench.errors import ConfigError
from glu_bench.lm.compiled import compile_decoder
from glu_bench.lm.counts import count_model
from glu_bench.lm.decoder import make_decoder
from glu_bench.lm.init import init_weights

VOCAB_SIZE = 257  # 256 bytes and the end of a document
OURS = "glu-bench, compiled"
PEER = "transformers"
# attention implementation, and whether compiled; the fastest counts
PEERS = (("eager", True), ("sdpa", True), ("eager", False), ("sdpa", False))
PEAK_SHAPES = ((2048, 2048, 2048), (4096, 1024, 1024))  # M, K, N of the products whose best is the peak
WARM_STEPS = 3
STEPS_A_ROUND = 5

Loss = Callable[[Tensor, Tensor], Tensor]
Step = Callable[[], None]


@dataclass(frozen=True, kw_only=True)
class StepRow:
    """One preset against one setting of the peer; rates are medians over rounds."""

    name: str  # preset and peer
    preset: str
    ours: float
    ours_spread: float  # (slowest - fastest) / median, over rounds
    ours_share_of_peak: float  # FLOPs of all matrix multiplies a second over the measured peak
    peer: float | None  # None where it could not run, see note
    peer_spread: float | None
    ratio: float | None  # ours / peer, median over rounds
    unit: str = "tokens/s"
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class StepBenchmark:
    """What `bench_step` measured."""

    rows: tuple[StepRow, ...]
    peak_flops_per_s: float  # of bf16 matrix multiplies, in the same process and rounds
    environment: dict[str, str | int | bool]

    def best_peers(self) -> tuple[StepRow, ...]:
        """Of each preset the row with the fastest setting of the peer, which is the one that counts."""
        best: dict[str, StepRow] = {}
        for row in self.rows:
            if row.preset not in best or (row.peer or 0.0) > (best[row.preset].peer or 0.0):
                best[row.preset] = row
        return tuple(best.values())


def bench_step(
    presets: Sequence[str],
    *,
    batch_size: int = 16,
    rounds: int = 7,
    steps_a_round: int = STEPS_A_ROUND,
    peers: bool = True,
) -> StepBenchmark:
    """Training steps on CPU under bf16 autocast: forward, backward, clip, AdamW.

    A preset is a name under configs/model, overrides may follow it after spaces:
    "nano model.d_model=128 model.n_heads=2". Without `peers` ours alone is timed.
    Raises: ConfigError for an unknown preset or another optimiser.
    """
    configs = [load_config([f"model={preset.split()[0]}", *preset.split()[1:]]) for preset in presets]
    for config in configs:
        if config.optim.name != "adamw":
            raise ConfigError(
                f"optim={config.optim.name}: the step benchmark times adamw alone, leave optim out"
            )
    memory_kept = keep_freed_memory()
    measured = []
    for config in configs:
        contestants, notes = _make_contestants(config, batch_size, peers)
        measured.append((_race(contestants | _make_products(), rounds, steps_a_round), notes))
    peak_flops_per_s = max(
        2 * m * k * n / statistics.median(seconds[_product_name(m, k, n)])
        for seconds, _ in measured
        for m, k, n in PEAK_SHAPES
    )
    rows = [
        row
        for preset, config, (seconds, notes) in zip(presets, configs, measured, strict=True)
        for row in _make_rows(preset, config, batch_size, seconds, notes, peak_flops_per_s)
    ]
    return StepBenchmark(
        rows=tuple(rows), peak_flops_per_s=peak_flops_per_s, environment=_describe(memory_kept)
    )


def make_step(model: nn.Module, loss: Loss, config: schema.Config, batch_size: int) -> Step:
    """One training step on a fixed random batch, the same for every contestant."""
    optim = config.optim
    assert optim.beta1 is not None  # bench_step refuses all but adamw
    assert optim.beta2 is not None
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=optim.lr, betas=(optim.beta1, optim.beta2), eps=optim.eps, fused=True
    )
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(0, VOCAB_SIZE, (batch_size, config.model.seq_len + 1), generator=generator)
    inputs_BT, targets_BT = tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous()

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16):
            value = loss(inputs_BT, targets_BT)
        value.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(model.parameters(), optim.clip_norm)
        optimizer.step()
        optimizer.zero_grad()

    return step


def _make_contestants(
    config: schema.Config, batch_size: int, peers: bool
) -> tuple[dict[str, Step], dict[str, str]]:
    """Steps by name, warm; and why some could not be made."""
    torch.manual_seed(0)
    model = make_decoder(config, VOCAB_SIZE)
    init_weights(model, seed=0)
    nats = compile_decoder(model)
    steps = {OURS: make_step(model, lambda x, y: nats(x, y).mean(), config, batch_size)}
    _warm(steps[OURS])
    notes: dict[str, str] = {}
    for attention, compiled in PEERS if peers else ():
        name = _peer_name(attention, compiled)
        try:
            peer = _make_peer(config, model.d_ff, attention)
            step = make_step(peer, _peer_loss(peer, compiled), config, batch_size)
            _warm(step)
        except ImportError:
            notes[name] = "transformers is not installed"
        except Exception as error:  # a peer that fails is a row with its reason, not the end
            notes[name] = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
        else:
            steps[name] = step
    return steps, notes


def _make_peer(config: schema.Config, d_ff: int, attention: str) -> nn.Module:
    """Llama with the decoder's shape; it is SwiGLU whatever the variant."""
    from transformers import LlamaConfig, LlamaForCausalLM

    model = config.model
    shape: dict[str, Any] = {
        "vocab_size": VOCAB_SIZE,
        "hidden_size": model.d_model,
        "intermediate_size": d_ff,
        "num_hidden_layers": model.n_layers,
        "num_attention_heads": model.n_heads,
        "max_position_embeddings": model.seq_len,
        "rms_norm_eps": model.norm_eps,
        "attn_implementation": attention,
        "use_cache": False,
        "tie_word_embeddings": model.tied_embeddings,
    }
    peer: nn.Module = LlamaForCausalLM(LlamaConfig(**shape))
    return peer


def _peer_loss(peer: nn.Module, compiled: bool) -> Loss:
    call = torch.compile(peer) if compiled else peer

    def loss(inputs_BT: Tensor, targets_BT: Tensor) -> Tensor:
        logits_BTV = call(input_ids=inputs_BT).logits.float()
        return F.cross_entropy(logits_BTV.view(-1, VOCAB_SIZE), targets_BT.reshape(-1))

    return loss


def _peer_name(attention: str, compiled: bool) -> str:
    return f"{PEER}, {attention} attention, {'compiled' if compiled else 'not compiled'}"


def _product_name(m: int, k: int, n: int) -> str:
    return f"bf16 product {m}x{k}x{n}"


def _make_products() -> dict[str, Step]:
    def make(m: int, k: int, n: int) -> Step:
        left_MK, right_KN = torch.randn(m, k).bfloat16(), torch.randn(k, n).bfloat16()
        out_MN = torch.empty(m, n, dtype=torch.bfloat16)

        def multiply() -> None:
            torch.mm(left_MK, right_KN, out=out_MN)

        return multiply

    return {_product_name(*shape): make(*shape) for shape in PEAK_SHAPES}


def _warm(step: Step) -> None:
    for _ in range(WARM_STEPS):
        step()


def _race(steps: dict[str, Step], rounds: int, steps_a_round: int) -> dict[str, list[float]]:
    """Seconds a step of each contestant, round by round; every other round in reverse order."""
    timers = {
        name: Timer("step()", globals={"step": step}, num_threads=torch.get_num_threads())
        for name, step in steps.items()
    }
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for i in range(rounds):
        for name in list(timers)[:: 1 if i % 2 == 0 else -1]:
            steps[name]()  # after another's turn caches and clock are not its own
            seconds[name].append(timers[name].timeit(steps_a_round).mean)
    return seconds


def _make_rows(
    preset: str,
    config: schema.Config,
    batch_size: int,
    seconds: dict[str, list[float]],
    notes: dict[str, str],
    peak_flops_per_s: float,
) -> list[StepRow]:
    n_tokens = batch_size * config.model.seq_len
    ours = n_tokens / statistics.median(seconds[OURS])
    flops_per_s = ours * count_model(config, VOCAB_SIZE).flops_per_token
    rows = []
    for name in [name for name in seconds if name.startswith(PEER)] + list(notes) or [""]:
        times = seconds.get(name)
        rows.append(
            StepRow(
                name=f"{preset} / {name}" if name else preset,
                preset=preset,
                ours=ours,
                ours_spread=_spread(seconds[OURS]),
                ours_share_of_peak=flops_per_s / peak_flops_per_s,
                peer=n_tokens / statistics.median(times) if times else None,
                peer_spread=_spread(times) if times else None,
                ratio=_paired_ratio(seconds[OURS], times) if times else None,
                note=notes.get(name, ""),
            )
        )
    return rows


def _paired_ratio(ours: list[float], peer: list[float]) -> float:
    return statistics.median(b / a for a, b in zip(ours, peer, strict=True))


def _spread(times: list[float]) -> float:
    return (max(times) - min(times)) / statistics.median(times)


def _describe(memory_kept: bool) -> dict[str, str | int | bool]:
    try:
        import transformers

        peer_version = transformers.__version__
    except ImportError:
        peer_version = "not installed"
    return {
        "torch": torch.__version__,
        "transformers": peer_version,
        "python": platform.python_version(),
        "threads": torch.get_num_threads(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "memory_kept": memory_kept,
    }
