"""A decoder's weights under the names and shapes that the stock classes of transformers use."""

from __future__ import annotations

from torch import Tensor, tensor

from glu_bench.errors import ConfigError
from glu_bench.interop.stock import Stock
from glu_bench.lm.decoder import Decoder


def make_tensors(model: Decoder, stock: Stock) -> dict[str, Tensor]:
    """Every weight, fp32, each in memory of its own; rows of ids that do not exist are left out.

    Raises: ConfigError naming a parameter that the class has no place for.
    """
    left: dict[str, Tensor] = dict(model.named_parameters())  # one name for tied embeddings: the embedding's
    found = {
        "model.embed_tokens.weight": left.pop("embedding.weight")[: model.vocab_size],
        "model.norm.weight": left.pop("norm.weight"),
    }
    if not model.config.tied_embeddings:
        found["lm_head.weight"] = left.pop("head.weight")[: model.vocab_size]
    for at in range(model.config.n_layers):
        ours, theirs = f"blocks.{at}.", f"model.layers.{at}."
        block = {name.removeprefix(ours): left.pop(name) for name in list(left) if name.startswith(ours)}
        found |= {theirs + name: weight for name, weight in _name_block(block, stock).items()}
        left |= {ours + name: weight for name, weight in block.items()}
    if left:
        raise ConfigError(f"{model.formula.name}: {stock.architecture} has no place for {min(left)}")
    return {name: weight.detach().float().clone() for name, weight in found.items()}


def _name_block(block: dict[str, Tensor], stock: Stock) -> dict[str, Tensor]:
    """The weights of one block, taken out of `block`, under stock names."""
    q_DD, k_DD, v_DD = block.pop("attention.qkv.weight").chunk(3)
    named = {
        "self_attn.q_proj.weight": q_DD,
        "self_attn.k_proj.weight": k_DD,
        "self_attn.v_proj.weight": v_DD,
        "self_attn.o_proj.weight": block.pop("attention.out.weight"),
        "input_layernorm.weight": block.pop("attention_norm.weight"),
        "post_attention_layernorm.weight": block.pop("ffn_norm.weight"),
    }
    into = ("gate_proj", "up_proj") if stock.gated else ("up_proj",)
    for kind in ("weight", "bias"):
        if f"ffn.down.{kind}" not in block:
            continue  # a block without biases
        halves = block.pop(f"ffn.hidden.in_proj.{kind}").chunk(len(into))
        named |= {f"mlp.{name}.{kind}": half for name, half in zip(into, halves, strict=True)}
        named[f"mlp.down_proj.{kind}"] = block.pop(f"ffn.down.{kind}")
    return named | {f"mlp.{name}": value for name, value in _name_learned(block, stock).items()}


def _name_learned(block: dict[str, Tensor], stock: Stock) -> dict[str, Tensor]:
    """What the function itself has learned in one block, and the constants the stock module keeps."""
    named = {name: tensor(value) for name, value in stock.buffers.items()}
    for argument, theirs in stock.learned.items():
        weight = block.pop(f"ffn.hidden.learned.{stock.slot}_{argument}")
        named[theirs] = weight.reshape(1)  # transformers keeps a vector of one
    return named
