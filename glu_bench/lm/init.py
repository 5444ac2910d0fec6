"""Initial weights, each tensor drawn from a generator of its own.

The draw is keyed by (seed, parameter name), so another shape of feed-forward block, another
layer more, shifts no other tensor: two arms at one seed share every weight that both have.
"""

from __future__ import annotations

import hashlib
import math

import torch

from glu_bench.errors import ConfigError
from glu_bench.ffn.moments import second_moment
from glu_bench.lm.decoder import Decoder

EMBEDDING_STD = 0.02  # embeddings and head, as GPT-2: the loss at start is then near ln V


@torch.no_grad()
def init_weights(model: Decoder, seed: int, init: str = "fan_in") -> None:
    """Draw every weight: hidden matrices normal with std 1/sqrt(fan in), gains 1, biases 0.

    The two projections that write into the residual stream (attention's out, the block's down)
    are scaled by 1/sqrt(2 n_layers) on top, since 2 n_layers of them add up.
    With init="moment" the block's down is divided by sqrt(E[hidden^2]) as well, so that every
    variant's block speaks as loudly at first: ReLU's hidden has 0.5 where that of its input has 1.
    Learned arguments of the formula start at the values of the variant's file.
    Raises: ConfigError if init="moment" and E[hidden^2] is 0 or infinite.
    """
    moment = second_moment(model.formula, model.d_ff) if init == "moment" else 1.0
    if not 0 < moment < math.inf:
        raise ConfigError(
            f"init=moment: E[hidden^2] of {model.formula.name} is {moment}; init=fan_in needs none"
        )
    loudness = moment**-0.5
    depth_scale = (2 * model.config.n_layers) ** -0.5
    learned = {each.parameter: each.init for each in model.formula.learned}
    for name, parameter in model.named_parameters():
        if ".learned." in name:
            parameter.fill_(learned[name.rpartition(".")[2]])
        elif name.endswith("norm.weight"):
            parameter.fill_(1.0)
        elif parameter.dim() == 1:
            parameter.zero_()
        else:
            if name in ("embedding.weight", "head.weight"):
                std = EMBEDDING_STD
            else:
                std = parameter.shape[1] ** -0.5
                if name.endswith(("attention.out.weight", "ffn.down.weight")):
                    std *= depth_scale
                if name.endswith("ffn.down.weight"):
                    std *= loudness
            draw = torch.randn(parameter.shape, generator=make_generator(seed, name))
            parameter.copy_(draw * std)


def make_generator(seed: int, name: str) -> torch.Generator:
    """A CPU generator whose stream depends on (seed, name) alone."""
    digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)
