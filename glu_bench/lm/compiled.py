"""The decoder compiled by region: one graph for every block, one for what follows the last.

All blocks have one shape, so one graph serves them all, and compiling takes the time of one
block whatever the depth. Of a loss in chunks (lm/head.py) only the pointwise part is compiled:
unrolled, its loop would be one graph a chunk. Training, evaluation and the benchmarks share this.

No CUDA graphs (mode="reduce-overhead"): a recorded graph writes its results to the same memory
each time, and one graph that every block calls would overwrite the input of the next; torch 2.13
refuses that without gradients (pytorch issue 152887), and gradients summed over micro-batches
would lie in such memory too.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from glu_bench.compiler import compile_function
from glu_bench.lm.decoder import Decoder, call_block
from glu_bench.lm.head import choose_loss, score_chunk
from glu_bench.lm.recompute import recompute_blocks

Nats = Callable[[Tensor, Tensor], Tensor]


def compile_decoder(model: Decoder, recompute: bool = False) -> Nats:
    """A function equal to `model.nats`, compiled for the first shape it meets, with and without gradients.

    Another shape, a switch between train() and eval(), or between gradients and none compiles
    once more; after torch's limit of eight graphs a further shape runs eager. The model itself
    stays as it is. `recompute` as in lm/recompute.py.
    """
    block = compile_function(call_block, lean=model.fast)
    block = recompute_blocks(block) if recompute else block
    tail = compile_function(_call_tail, lean=model.fast)
    score = compile_function(score_chunk, lean=model.fast)

    def nats(tokens_BT: Tensor, targets_BT: Tensor) -> Tensor:
        x_BTD = model.stream(tokens_BT, block)
        if choose_loss(targets_BT.numel(), model.vocab_size, model.fast) == "chunked":
            return model.nats_from(x_BTD, targets_BT, score)
        loss_BT: Tensor = tail(model, x_BTD, targets_BT)
        return loss_BT

    return nats


def _call_tail(model: Decoder, x_BTD: Tensor, targets_BT: Tensor) -> Tensor:
    return model.nats_from(x_BTD, targets_BT)
