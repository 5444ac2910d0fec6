"""Widths that make arms equal, and what the receipt says of them."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from glu_bench import schema
from glu_bench.errors import ConfigError
from glu_bench.ffn.feedforward import FeedForward
from glu_bench.ffn.formula import list_variants, load_variant
from glu_bench.ffn.matching import MAX_RESIDUAL, Receipt, check_receipt, count_ffn_params, match_width
from glu_bench.runs.record import write_record
from glu_bench.study import sweep
from glu_bench.study.plan import Plan, PlannedRun
from glu_bench.study.slots import Slot
from tests.conftest import Command, Train

SPECS = {name: load_variant(name).spec for name in list_variants()}

GATED = {
    *("bilinear", "double_swiglu", "drelu", "elu_glu", "fatreglu", "geglu", "geglu_tanh", "glu", "gtu"),
    *("hard_swiglu", "leaky_reglu", "miglu", "quick_geglu", "reglu", "reglu2", "reglu2_norm", "situ_glu"),
    *("softplus_glu", "swiglu", "swiglu_beta", "swiglu_clamp", "swiglu_mult", "swiglu_oai", "swiglu_step"),
    *("tanh_glu", "xatglu", "xgeglu", "xswiglu"),
}
# learned numbers of one layer: (as they are, as many a hidden unit)
LEARNED = {
    **dict.fromkeys(("swish_beta", "swiglu_beta"), (1, 0)),
    **dict.fromkeys(("xatlu", "xatglu", "xgelu", "xgeglu", "xsilu", "xswiglu"), (1, 0)),
    **dict.fromkeys(("xielu", "xiprelu"), (2, 0)),
    **dict.fromkeys(("polyrelu", "polynorm"), (4, 0)),
    **dict.fromkeys(("swiglu_mult", "reglu2_norm"), (0, 1)),  # a factor, a gain
    "solu": (0, 2),  # gain and bias of its norm
}


def count_by_hand(name: str, d_model: int, d_ff: int, bias: bool) -> int:
    """Parameters of one block: matrices, biases, learned numbers."""
    n_in = 2 if name in GATED else 1
    learned, per_unit = LEARNED.get(name, (0, 0))
    matrices = (n_in + 1) * d_model * d_ff
    return matrices + (n_in * d_ff + d_model if bias else 0) + learned + per_unit * d_ff


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("name", list_variants())
def test_the_count_is_that_of_a_real_block_and_of_the_formula(name: str, bias: bool) -> None:
    block = FeedForward(load_variant(name), 24, 20, bias=bias)
    real = sum(parameter.numel() for parameter in block.parameters())
    assert count_ffn_params(SPECS[name], 24, 20, bias) == real == count_by_hand(name, 24, 20, bias)


@settings(max_examples=400)
@example(name="swiglu", d_model=48, bias=False, multiple_of=64, expansion=2.0)
@example(name="swiglu", d_model=4096, bias=False, multiple_of=1, expansion=8.0)
@example(name="solu", d_model=49, bias=True, multiple_of=64, expansion=2.0)
@given(
    name=st.sampled_from(list_variants()),
    d_model=st.integers(48, 4096),
    bias=st.booleans(),
    multiple_of=st.sampled_from([1, 8, 64]),
    expansion=st.one_of(st.sampled_from([2.0, 4.0, 8.0]), st.floats(2, 8)),
)
def test_no_neighbouring_width_comes_nearer_to_the_baseline(
    name: str, d_model: int, bias: bool, multiple_of: int, expansion: float
) -> None:
    rule = schema.Match(mode="params", expansion=expansion, multiple_of=multiple_of, d_ff=None)
    receipt = match_width(SPECS[name], d_model, rule, bias)
    d_ff, width = receipt.d_ff, round(expansion * d_model)
    n_baseline = 2 * d_model * width + (width + d_model if bias else 0)
    assert d_ff > 0
    assert d_ff % multiple_of == 0
    assert receipt.n_baseline_params == n_baseline
    assert receipt.n_ffn_params == count_by_hand(name, d_model, d_ff, bias)
    assert receipt.residual == pytest.approx(receipt.n_ffn_params / n_baseline - 1, abs=1e-15)
    assert receipt.flops_per_token == 2 * (3 if name in GATED else 2) * d_model * d_ff
    own = abs(receipt.n_ffn_params - n_baseline)
    for neighbour in (d_ff - multiple_of, d_ff + multiple_of):
        if neighbour > 0:
            assert own <= abs(count_by_hand(name, d_model, neighbour, bias) - n_baseline)
    # half a step of F is at most (3D + 4)/2 of 2D * 2D parameters: below 0.5 % from D = 77 on
    if multiple_of == 1 and d_model >= 77:
        assert abs(receipt.residual) <= MAX_RESIDUAL
        check_receipt(receipt)


@pytest.mark.parametrize("name", ["relu", "swiglu"])
def test_a_width_is_never_zero(name: str) -> None:
    """Not even where nothing would come nearer than the least multiple."""
    rule = schema.Match(mode="params", expansion=1.0, multiple_of=64, d_ff=None)
    receipt = match_width(SPECS[name], 8, rule, bias=False)
    assert receipt.d_ff == 64
    assert receipt.residual > 1


@pytest.mark.parametrize("d_model", [48, 96, 192, 384, 768])
@pytest.mark.parametrize("name", ["glu", "bilinear", "reglu", "geglu", "swiglu"])
def test_a_width_divisible_by_three_matches_exactly(name: str, d_model: int) -> None:
    rule = schema.Match(mode="params", expansion=4.0, multiple_of=1, d_ff=None)
    receipt = match_width(SPECS[name], d_model, rule, bias=False)
    assert (receipt.d_ff, receipt.residual) == (8 * d_model // 3, 0)


@pytest.mark.parametrize("name", ["relu", "swiglu", "swiglu_mult", "xielu"])
def test_the_other_modes_take_the_width_as_it_is(name: str) -> None:
    wide = schema.Match(mode="width", expansion=4.0, multiple_of=64, d_ff=None)
    assert match_width(SPECS[name], 50, wide, bias=True).d_ff == 200
    given_width = schema.Match(mode="none", expansion=4.0, multiple_of=64, d_ff=77)
    receipt = match_width(SPECS[name], 50, given_width, bias=True)
    assert (receipt.d_ff, receipt.n_ffn_params) == (77, count_by_hand(name, 50, 77, True))
    check_receipt(receipt)  # it promises nothing


def receipt_off_by(residual: float, mode: str = "params") -> Receipt:
    return Receipt(
        mode=mode, d_ff=8, n_ffn_params=1, n_baseline_params=1, residual=residual, flops_per_token=1
    )


@pytest.mark.parametrize("residual", [0.00501, -0.00501, 0.5])
def test_a_receipt_above_half_a_percent_is_refused(residual: float) -> None:
    with pytest.raises(ConfigError, match=re.escape(f"{residual:+.2%}")):
        check_receipt(receipt_off_by(residual))
    check_receipt(receipt_off_by(residual), allow_unmatched=True)
    check_receipt(receipt_off_by(residual, "width"))


@pytest.mark.parametrize("residual", [0.0, 0.00499, -0.00499, 0.005])
def test_a_receipt_within_half_a_percent_passes(residual: float) -> None:
    check_receipt(receipt_off_by(residual))


UNMATCHED = ("variant=swiglu", "match.multiple_of=96")  # 96 or 192 where 128 would match


@pytest.mark.parametrize("verb", ["train", "sweep"])
def test_the_command_line_refuses_an_unmatched_arm_unless_told(
    verb: str,
    call_command: Command,
    tiny_words: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told: list[tuple[str, ...]] = []

    def start(plan: Plan, planned: PlannedRun, slot: Slot, extra_words: tuple[str, ...]) -> Any:
        """A run of the sweep that is done at once."""
        told.append(extra_words)
        path = plan.run(planned).path
        path.mkdir(parents=True)
        write_record(path / "result.json", {"test_loss_nats": 1.0, "tokens_per_s": 1.0})
        return subprocess.Popen(["true"], start_new_session=True)

    monkeypatch.setattr(sweep, "_start", start)
    words = (verb, *UNMATCHED, *tiny_words, "--output-dir", str(tmp_path), "-q")
    ended = call_command(*words)
    assert ended.code == 2
    (line,) = ended.err.splitlines()
    for part in ("F=96", "-25.00%", "match.multiple_of", "--allow-unmatched"):
        assert part in line
    assert not (tmp_path / "runs").exists()
    assert told == []
    ended = call_command(*words, "--allow-unmatched")
    assert ended.code == 0, ended.err
    assert told == ([("--allow-unmatched",)] if verb == "sweep" else [])  # its runs are let through, too


def test_the_record_tells_what_was_allowed(train: Train) -> None:
    record = train(*UNMATCHED, "train.steps=1", allow_unmatched=True)
    assert (record["d_ff"], record["match_residual"]) == (96, -0.25)
