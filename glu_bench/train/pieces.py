"""The tensors an optimiser updates: whole parameters, or the matrices that one parameter stacks.

Q, K and V lie in one parameter, and so do gate and up, because one multiply is quicker than
several. What is computed from a whole matrix (Muon's orthogonal factor, Adafactor's column
means and root mean square) must not see how matrices are stored, or a gated variant would be
trained by another rule than an ungated one.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from glu_bench.lm.decoder import Decoder


@dataclass(frozen=True, eq=False)
class Piece:
    """Rows of a parameter; `tensor` is the parameter itself, or a leaf that shares its memory."""

    name: str  # blocks.0.attention.qkv.weight, or …weight[48:96]
    parameter: nn.Parameter
    rows: slice | None
    tensor: nn.Parameter
    hidden: bool  # a matrix of attention or feed-forward

    def refresh(self) -> None:
        """Let the leaf see the parameter's memory and gradient of this step."""
        if self.rows is not None:
            gradient = self.parameter.grad
            self.tensor.data = self.parameter.detach()[self.rows]
            self.tensor.grad = None if gradient is None else gradient[self.rows]

    def zero_grad(self) -> None:
        """Forget the gradient."""
        self.parameter.grad = self.tensor.grad = None


def list_pieces(model: Decoder, *, split: bool) -> list[Piece]:
    """Every parameter once, in the model's order; `split` takes stacked matrices apart."""
    linear = {id(module.weight) for module in model.blocks.modules() if isinstance(module, nn.Linear)}
    pieces = []
    for name, parameter in model.named_parameters():
        n_stacked = count_stacked(model, name) if split else 1
        if n_stacked == 1:
            pieces.append(Piece(name, parameter, None, parameter, id(parameter) in linear))
            continue
        n_rows = parameter.shape[0] // n_stacked
        for start in range(0, n_stacked * n_rows, n_rows):
            rows = slice(start, start + n_rows)
            tensor = nn.Parameter(parameter.detach()[rows])
            label = f"{name}[{rows.start}:{rows.stop}]"
            pieces.append(Piece(label, parameter, rows, tensor, id(parameter) in linear))
    return pieces


def count_stacked(model: Decoder, name: str) -> int:
    """How many matrices (or biases) a parameter stacks: 3 for Q, K, V; 2 for gate and up."""
    module_name = name.rpartition(".")[0]
    if module_name.endswith("attention.qkv"):
        return 3
    return 2 if module_name.endswith("ffn.hidden.in_proj") and model.formula.gated else 1
