"""Gates replaced from the outside: what each replacement must cost, and what it must not."""

from __future__ import annotations

import pytest
import torch

from glu_bench.errors import ConfigError, DataError
from glu_bench.evaluate.ablation import _shuffle, ablate_run, check_kind, fit_lines, measure_loss
from glu_bench.evaluate.run import evaluate_run
from glu_bench.lm.decoder import Decoder
from glu_bench.lm.hidden import list_ffns
from glu_bench.runs.folder import Run
from tests.evaluate.made import make_head, make_small


def cost(model: Decoder, kind: str, layers: list[int], chunk_tokens: int = 4096) -> float:
    head = make_head(chunk_tokens=chunk_tokens)
    lines = None if kind == "shuffled" else fit_lines(model, head, constant=kind == "constant")
    return measure_loss(model, head, layers, lines) - measure_loss(model, head, [], lines)


def make_loud(name: str) -> Decoder:
    """A model whose blocks matter: untrained ones hardly move the loss."""
    model = make_small(name)
    with torch.no_grad():
        for ffn in list_ffns(model):
            ffn.down.weight.mul_(20)
    return model


def test_no_block_replaced_is_the_model_itself() -> None:
    model = make_small("swiglu")
    (batch,) = make_head().batches()
    with torch.no_grad():
        expected = model.nats(batch.tokens_BT, batch.targets_BT)[batch.real_BT].mean().item()
    assert measure_loss(model, make_head(), [], None) == pytest.approx(expected, rel=1e-6)


def test_the_identity_loses_nothing_by_its_line_and_all_by_its_mean() -> None:
    model = make_loud("bilinear")
    assert cost(model, "linear", [0, 1, 2]) == pytest.approx(0, abs=1e-5)
    assert abs(cost(model, "constant", [0, 1, 2])) > 1e-3
    lines = fit_lines(model, make_head(), constant=False)
    for line in lines:
        torch.testing.assert_close(line.slope, torch.ones(12))
        torch.testing.assert_close(line.offset, torch.zeros(12), rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", ["constant", "shuffled", "linear"])
def test_a_gate_that_is_constant_loses_nothing(kind: str) -> None:
    """A gate without input, sigma(0) = 1/2 for every token, is what each kind puts in its place."""
    model = make_loud("glu")
    with torch.no_grad():
        for ffn in list_ffns(model):
            ffn.hidden.in_proj.weight[:12] = 0.0
    assert cost(model, kind, [0, 1, 2]) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("kind", ["constant", "shuffled", "linear"])
@pytest.mark.parametrize("name", ["relu", "swiglu", "swiglu_oai", "reglu2_norm", "swiglu_mult", "solu"])
def test_a_gate_that_matters_is_missed_block_by_block(name: str, kind: str) -> None:
    model = make_loud(name)
    each = [cost(model, kind, [layer]) for layer in range(3)]
    assert all(abs(lost) > 1e-4 for lost in each)
    assert len(set(each)) == 3


def test_lines_are_those_of_least_squares() -> None:
    model = make_loud("swiglu")
    gates: list[torch.Tensor] = []
    (batch,) = make_head().batches()
    ffn = list_ffns(model)[0]
    with torch.no_grad():
        hook = ffn.register_forward_pre_hook(lambda _module, args: gates.append(ffn.hidden.in_proj(args[0])))
        model(batch.tokens_BT)
        hook.remove()
    gate_N = gates[0][batch.real_BT][:, 5].double()
    design = torch.stack([gate_N, torch.ones_like(gate_N)], 1)
    slope, offset = torch.linalg.lstsq(design, torch.nn.functional.silu(gate_N)[:, None]).solution[:, 0]
    line = fit_lines(model, make_head(), constant=False)[0]
    assert line.slope[5].item() == pytest.approx(slope.item(), rel=1e-4)
    assert line.offset[5].item() == pytest.approx(offset.item(), rel=1e-4)
    mean = fit_lines(model, make_head(), constant=True)[0]
    assert mean.slope.abs().max() == 0
    assert mean.offset[5].item() == pytest.approx(torch.nn.functional.silu(gate_N).mean().item(), rel=1e-4)


@pytest.mark.parametrize("kind", ["constant", "linear"])
def test_means_and_lines_do_not_depend_on_the_batches(kind: str) -> None:
    model = make_loud("geglu")
    whole = cost(model, kind, [0, 1, 2])
    assert cost(model, kind, [0, 1, 2], chunk_tokens=1) == pytest.approx(whole, rel=1e-4)


def test_shuffling_is_the_same_every_time_and_keeps_filling_out() -> None:
    model = make_loud("swiglu")
    assert cost(model, "shuffled", [0, 1, 2]) == cost(model, "shuffled", [0, 1, 2])
    value = torch.arange(24.0).view(2, 4, 3)
    real = torch.tensor([[True, True, True, True], [True, True, False, False]])
    shuffled = _shuffle(value, real, 5)
    assert torch.equal(shuffled[~real], value[~real])
    assert not torch.equal(shuffled[real], value[real])
    assert sorted(shuffled[real].tolist()) == value[real].tolist()  # whole rows


@pytest.mark.parametrize("kind", ["constant", "shuffled", "linear"])
def test_a_run_is_measured_on_the_tokens_of_its_split(kind: str, finished_run: Run) -> None:
    found = ablate_run(finished_run, kind)
    assert found.tokens == finished_run.result()["n_test_tokens"]
    assert found.loss_nats == pytest.approx(evaluate_run(finished_run).loss_nats, rel=1e-6)
    assert len(found.lost_nats_per_layer) == 2
    assert all(0 < abs(lost) < 0.1 for lost in (found.lost_nats, *found.lost_nats_per_layer))
    assert ablate_run(finished_run, kind, n_tokens=40).tokens == 40


def test_a_word_that_is_no_replacement_is_refused_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean 'constant'"):
        check_kind("konstant")


def test_one_token_cannot_be_shuffled(finished_run: Run) -> None:
    with pytest.raises(DataError, match="1 tokens of the test split: too few, at least 2"):
        ablate_run(finished_run, "shuffled", n_tokens=1)
