"""Tokens per second of a whole training step, against Hugging Face's Llama of the same shape.

All contestants live in one process and take turns round by round, so that a machine that
slows down slows all of them; a ratio is the median over rounds of ratios within a round.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from glu_bench import schema
from glu_bench.allocator import keep_freed_memory
from glu_bench.cache import keep_compiled_graphs
from glu_bench.config import load_config
from glu_bench.cost.peak import find_peak, make_products
from glu_bench.cost.race import Step, describe_process, paired_ratio, race, spread, warm
from glu_bench.cost.step_parity import VOCAB_SIZE, StepParity, measure_step_parity
from glu_bench.errors import ConfigError
from glu_bench.lm.compiled import compile_decoder
from glu_bench.lm.counts import count_model
from glu_bench.lm.decoder import make_decoder
from glu_bench.lm.init import init_weights

OURS = "glu-bench, compiled"
PEER = "transformers"
# attention implementation, and whether compiled; the fastest counts
PEERS = (("eager", True), ("sdpa", True), ("eager", False), ("sdpa", False))
STEPS_A_ROUND = 5

Loss = Callable[[Tensor, Tensor], Tensor]


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
    parity: tuple[StepParity, ...]  # of the fast paths
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
    config_dir: Path | None = None,
) -> StepBenchmark:
    """Training steps on CPU under bf16 autocast: forward, backward, clip, AdamW.

    A preset is a name under configs/model, overrides may follow it after spaces:
    "nano model.d_model=128 model.n_heads=2". Without `peers` ours alone is timed.
    Raises: ConfigError for an unknown preset or another optimiser.
    """
    configs = [load_preset(preset, config_dir=config_dir) for preset in presets]
    memory_kept = keep_freed_memory()
    keep_compiled_graphs()
    measured = []
    for config in configs:
        contestants, notes = _make_contestants(config, batch_size, peers)
        products = make_products(torch.bfloat16, "cpu")
        measured.append((race(contestants | products, rounds, steps_a_round), notes))
    peak_flops_per_s = max(find_peak(seconds, torch.bfloat16) for seconds, _ in measured)
    rows = [
        row
        for preset, config, (seconds, notes) in zip(presets, configs, measured, strict=True)
        for row in _make_rows(preset, config, batch_size, seconds, notes, peak_flops_per_s)
    ]
    return StepBenchmark(
        rows=tuple(rows),
        peak_flops_per_s=peak_flops_per_s,
        parity=tuple(
            row
            for preset, config in zip(presets, configs, strict=True)
            for row in measure_step_parity(preset, config)
        ),
        environment=describe_process(memory_kept),
    )


def load_preset(preset: str, *words: str, config_dir: Path | None = None) -> schema.Config:
    """The configuration of a preset with the overrides that follow its name, and more words.

    Raises: ConfigError for an unknown preset, or an optimiser other than the one that is timed.
    """
    name, *overrides = preset.split()
    config = load_config([f"model={name}", *overrides, *words], config_dir)
    if config.optim.name != "adamw":
        raise ConfigError(f"optim={config.optim.name}: the step benchmark times adamw alone, leave optim out")
    return config


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


def make_our_step(config: schema.Config, batch_size: int) -> Step:
    """Our compiled training step of a configuration, warm."""
    model = make_decoder(config, VOCAB_SIZE)
    init_weights(model, seed=0)
    nats = compile_decoder(model)
    step = make_step(model, lambda x, y: nats(x, y).mean(), config, batch_size)
    warm(step)
    return step


def _make_contestants(
    config: schema.Config, batch_size: int, peers: bool
) -> tuple[dict[str, Step], dict[str, str]]:
    """Steps by name, warm; and why some could not be made."""
    torch.manual_seed(0)  # of the peers' weights
    steps = {OURS: make_our_step(config, batch_size)}
    d_ff = count_model(config, VOCAB_SIZE).d_ff
    notes: dict[str, str] = {}
    for attention, compiled in PEERS if peers else ():
        name = _peer_name(attention, compiled)
        try:
            peer = _make_peer(config, d_ff, attention)
            step = make_step(peer, _peer_loss(peer, compiled), config, batch_size)
            warm(step)
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
                ours_spread=spread(seconds[OURS]),
                ours_share_of_peak=flops_per_s / peak_flops_per_s,
                peer=n_tokens / statistics.median(times) if times else None,
                peer_spread=spread(times) if times else None,
                ratio=paired_ratio(seconds[OURS], times) if times else None,
                note=notes.get(name, ""),
            )
        )
    return rows
