"""Our feed-forward blocks inside other people's models."""

from __future__ import annotations

from torch import nn

from glu_bench.errors import ConfigError
from glu_bench.ffn.feedforward import FeedForward
from glu_bench.ffn.formula import load_variant
from glu_bench.ffn.matching import check_receipt, match_count


def swap_feedforward(hf_model: nn.Module, name: str, match: str = "params") -> nn.Module:
    """The same model with every Llama-style MLP replaced by a new, untrained block of the named variant.

    What the MLPs had learned is lost: the new weights are drawn by torch's default. An MLP is a
    module with gate_proj, up_proj and down_proj. With match="params" the new block has the old
    one's parameter count, with match="width" its width F; device and dtype stay.
    Raises: ConfigError for an unknown variant, if there is no such MLP, or none within 0.5 %.
    """
    formula = load_variant(name)
    n_swapped = 0
    for module in list(hf_model.modules()):
        for child_name, child in list(module.named_children()):
            if not all(hasattr(child, part) for part in ("gate_proj", "up_proj", "down_proj")):
                continue
            gate: nn.Linear = child.gate_proj  # type: ignore[assignment]
            d_model, d_ff, bias = gate.in_features, gate.out_features, gate.bias is not None
            if match == "params":
                n_params = sum(parameter.numel() for parameter in child.parameters())
                receipt = match_count(formula.spec, d_model, n_params, multiple_of=1, bias=bias)
                check_receipt(receipt)
                d_ff = receipt.d_ff
            elif match != "width":
                raise ConfigError(f"match={match}: 'params' or 'width'")
            block = FeedForward(formula, d_model, d_ff, bias=bias)
            setattr(module, child_name, block.to(device=gate.weight.device, dtype=gate.weight.dtype))
            n_swapped += 1
    if not n_swapped:
        raise ConfigError("the model has no module with gate_proj, up_proj and down_proj to swap")
    return hf_model
