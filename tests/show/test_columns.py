"""The registry of columns that every format shares."""

from __future__ import annotations

import dataclasses

import pytest

from glu_bench.errors import ConfigError
from glu_bench.show.columns import choose_columns, drop_empty, list_columns, list_defaults
from glu_bench.stats.equal_cost import EqualCost
from glu_bench.stats.speedup import Speedup
from tests.show.made import make_comparison


def test_keys_are_those_of_the_json() -> None:
    equal_cost = dataclasses.asdict(EqualCost(difference_nats=0.0, ci95=None))
    arm = dataclasses.asdict(make_comparison().arms[0])
    speedup = {entry.name for entry in dataclasses.fields(Speedup)}
    for key in list_columns():
        name, _, rest = key.partition(".")
        assert key == "n" or (name in arm and (not rest or rest in {*speedup, *equal_cost})), key


def test_every_number_of_the_interface_has_a_column() -> None:
    fixed = (
        "arm n_finished n_planned n_diverged mean_loss_nats sd_loss_nats ci95 perplexity bits_per_byte "
        "difference_nats difference_ci95 p_raw p_holm verdict letters n_params n_ffn_params match_residual "
        "flops_per_token forward_flops_per_token "
        "ffn_saved_bytes_per_token tokens_per_s peak_bytes speedup.compute speedup.compute_ci95 speedup.wall "
        "speedup.wall_ci95 equal_flops.difference_nats equal_flops.ci95 equal_time.difference_nats "
        "equal_time.ci95 n"
    )
    assert set(list_columns()) == set(fixed.split())


def test_columns_come_in_the_order_asked_for_and_once() -> None:
    chosen = choose_columns("letters, arm,letters")
    assert [column.key for column in chosen] == ["letters", "arm"]


def test_all_holds_each_value_once() -> None:
    parts = [part for column in choose_columns("all") for part in column.parts]
    assert len(parts) == len(set(parts))
    assert {"n_finished", "n_planned", "n_diverged", "ci95_low", "speedup.wall_ci95_high"} <= set(parts)


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("arm,mean_los_nats", "did you mean 'mean_loss_nats'"),
        ("zzz", "known: all, arm, n"),
        (" ,", "no column"),
    ],
)
def test_an_unknown_column_is_refused_in_one_line(text: str, part: str) -> None:
    with pytest.raises(ConfigError, match=part) as caught:
        choose_columns(text)
    assert "\n" not in str(caught.value)


def test_columns_that_no_arm_fills_are_left_out() -> None:
    table = make_comparison()
    keys = [column.key for column in list_defaults(table)]
    assert {"arm", "n", "mean_loss_nats", "letters", "p_holm", "tokens_per_s"} <= set(keys)
    assert not {"speedup.wall", "bits_per_byte", "peak_bytes"} & set(keys)
    one = dataclasses.replace(table.arms[0], peak_bytes=0)  # nothing is not zero
    keys = [
        column.key
        for column in drop_empty(
            choose_columns("all"), dataclasses.replace(table, arms=[one, *table.arms[1:]])
        )
    ]
    assert "peak_bytes" in keys
    assert "speedup.compute_ci95" not in keys


def test_what_training_keeps_of_a_token_is_shown_unasked() -> None:
    """The cost that a choice of activation has in memory; beside the tokens/s it is bought with."""
    table = make_comparison()
    arms = [dataclasses.replace(arm, ffn_saved_bytes_per_token=4096) for arm in table.arms]
    keys = [column.key for column in list_defaults(dataclasses.replace(table, arms=arms))]
    assert keys[keys.index("tokens_per_s") + 1] == "ffn_saved_bytes_per_token"
    assert cells("ffn_saved_bytes_per_token", ffn_saved_bytes_per_token=4096) == ("4.1kB", (4096,))


def test_a_speedup_that_only_repeats_the_difference_is_not_shown_unasked() -> None:
    table = make_comparison()
    at_own_budget = Speedup(
        compute=None, compute_ci95=None, wall=None, wall_ci95=None, compute_bounds=(1.0, None)
    )
    for changes, shown in (
        ({"tokens_bounds": (1.0, None)}, False),
        ({"tokens_bounds": (2.0, None)}, True),
        ({"tokens_bounds": (1.0, None), "method": "law"}, True),
    ):
        speedup = dataclasses.replace(at_own_budget, **changes)  # type: ignore[arg-type]
        arms = [dataclasses.replace(arm, speedup=speedup) for arm in table.arms]
        keys = [column.key for column in list_defaults(dataclasses.replace(table, arms=arms))]
        assert ("speedup.compute" in keys) == shown


def cells(key: str, **changes: object) -> tuple[str, tuple[object, ...]]:
    table = make_comparison()
    arm = dataclasses.replace(table.arms[0], **changes)  # type: ignore[arg-type]
    column = list_columns()[key]
    return column.write(arm, table), column.read(arm)


def test_cells_for_people_are_rounded_and_those_for_files_are_not() -> None:
    assert cells("mean_loss_nats", mean_loss_nats=1.23456789) == ("1.2346", (1.23456789,))
    assert cells("difference_ci95", difference_ci95=(-0.5, 0.25)) == ("-0.5000 to +0.2500", (-0.5, 0.25))
    assert cells("difference_ci95", difference_ci95=None) == ("-", (None, None))
    assert cells("p_holm", p_holm=0.0004) == ("<0.001", (0.0004,))
    assert cells("match_residual", match_residual=-0.0012) == ("-0.12%", (-0.0012,))
    assert cells("verdict", verdict="not_separable") == ("not separable", ("not_separable",))
    assert cells("peak_bytes", peak_bytes=777_000_000) == ("777MB", (777_000_000,))
    fast = Speedup(compute=1.2345, compute_ci95=(1.1, 1.4), wall=None, wall_ci95=None)
    assert cells("speedup.compute", speedup=fast) == ("1.23x", (1.2345, None, None))
    assert cells("speedup.compute_ci95", speedup=fast) == ("1.1x to 1.4x", (1.1, 1.4))
    assert cells("speedup.wall", speedup=fast) == ("-", (None, None, None))
    assert cells("speedup.wall", speedup=None) == ("-", (None, None, None))
    bound = Speedup(compute=None, compute_ci95=None, wall=None, wall_ci95=None, compute_bounds=(1.2, None))
    assert cells("speedup.compute", speedup=bound) == (">1.2x", (None, 1.2, None))
    both = dataclasses.replace(bound, wall_bounds=(0.5, 2.0))
    assert cells("speedup.wall", speedup=both) == (">0.5x <2x", (None, 0.5, 2.0))
    dearer = EqualCost(difference_nats=-0.01234, ci95=(-0.02, 0.01))
    assert cells("equal_time.difference_nats", equal_time=dearer) == ("-0.0123", (-0.01234,))
    assert cells("equal_flops.ci95", equal_flops=dearer) == ("-0.0200 to +0.0100", (-0.02, 0.01))


def test_no_lost_run_is_hidden() -> None:
    assert cells("n", n_finished=2, n_planned=4, n_diverged=1) == ("2/4 (1 diverged)", (2, 4, 1))
    assert cells("n") == ("3", (3, 3, 0))


def test_a_perplexity_that_overflows_is_told_from_none() -> None:
    assert cells("perplexity", mean_loss_nats=800.0, perplexity=None)[0] == ">1e308"
    assert cells("perplexity", mean_loss_nats=None, perplexity=None)[0] == "-"
