"""The optimiser, and its state as named tensors for a checkpoint."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from glu_bench import schema
from glu_bench.errors import DataError


def make_optimizer(model: nn.Module, optim: schema.Optim) -> torch.optim.Optimizer:
    """AdamW with decay on matrices only: gains, biases and learned scalars are not pulled to zero.

    Source: Loshchilov and Hutter 2017, arXiv 1711.05101.
    """
    parameters = list(model.parameters())
    groups = [
        {"params": [p for p in parameters if p.dim() >= 2], "weight_decay": optim.weight_decay},
        {"params": [p for p in parameters if p.dim() < 2], "weight_decay": 0.0},
    ]
    fused = parameters[0].device.type in ("cpu", "cuda")
    return torch.optim.AdamW(
        groups, lr=optim.lr, betas=(optim.beta1, optim.beta2), eps=optim.eps, fused=fused
    )


def pack_optimizer(optimizer: torch.optim.Optimizer, model: nn.Module) -> dict[str, Tensor]:
    """Every tensor of the optimiser's state, named `<kind>/<parameter>`, on the CPU."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return {
        f"{kind}/{names[id(parameter)]}": value.detach().cpu().contiguous()
        for parameter, state in optimizer.state.items()
        for kind, value in state.items()
    }


def unpack_optimizer(optimizer: torch.optim.Optimizer, model: nn.Module, tensors: dict[str, Tensor]) -> None:
    """Put back what `pack_optimizer` gave.

    Raises: DataError for a tensor that belongs to no parameter or does not fit it.
    """
    parameters = dict(model.named_parameters())
    for name, tensor in tensors.items():
        kind, _, parameter_name = name.partition("/")
        parameter = parameters.get(parameter_name)
        if parameter is None or (tensor.dim() and tensor.shape != parameter.shape):
            raise DataError(f"the optimiser's {name} does not fit the model")
        # a step counter lives on the parameter's device only in fused optimisers, as here
        optimizer.state[parameter][kind] = tensor.to(parameter.device).clone()
