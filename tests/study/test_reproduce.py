"""Published against ours: what the verdict follows from, on losses whose answer is known."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from glu_bench.config import find_config_root
from glu_bench.errors import ConfigError, DataError
from glu_bench.files import write_json
from glu_bench.runs.record import write_record
from glu_bench.stats.concordance import Concordance
from glu_bench.study.card import Card, load_card
from glu_bench.study.plan import make_plan
from glu_bench.study.reproduce import (
    Finished,
    Reproduction,
    ScaledSweep,
    check_protocol,
    decide,
    judge_reproduction,
    make_protocol,
    read_finished,
)

SHAZEER = load_card("shazeer2020")
SHORT = {arm: row.mean for arm, row in SHAZEER.columns["short"].arms.items()}


def made(losses: dict[str, dict[int, float]], n_planned: int | None = None) -> Finished:
    return Finished(
        losses=losses,
        n_planned={arm: n_planned or len(by_seed) for arm, by_seed in losses.items()},
        tuned={},
        warnings=[],
        setting="tiny",
    )


def draw(
    means: dict[str, float], n: int = 5, sd: float = 0.0005, seed: int = 0
) -> dict[str, dict[int, float]]:
    """Losses about these means: a part of each seed that arms share, and a part of each run."""
    rng = np.random.default_rng(seed)
    shared = rng.normal(0, 0.01, n)
    return {
        arm: {at: mean + float(shared[at] + rng.normal(0, sd)) for at in range(n)}
        for arm, mean in means.items()
    }


def judge(means: dict[str, float], n: int = 5, sd: float = 0.0005, column: str = "short") -> Reproduction:
    return judge_reproduction(SHAZEER, column, made(draw(means, n, sd)))


def test_the_published_order_is_reproduced() -> None:
    found = judge(SHORT)
    assert found.verdict == "reproduced"
    assert (found.concordance.agree, found.concordance.of) == (17, 17)
    assert {row.arm: row.letters for row in found.published.arms} == {
        **{"geglu": "a", "swiglu": "ab", "reglu": "ab", "bilinear": "b"},
        **dict.fromkeys(["glu", "gelu", "swish", "relu"], "c"),
    }
    assert found.contradicted_pairs == []
    assert found.ours.gap is not None
    assert found.ours.gap.difference_nats == pytest.approx(-0.0351, abs=0.001)
    assert found.published.gap is not None
    assert found.published.gap.difference_nats == pytest.approx(-0.03513, abs=1e-5)


def test_the_unit_of_ours_does_not_matter() -> None:
    found = judge({arm: 0.1 + 3 * mean for arm, mean in SHORT.items()})
    assert (found.verdict, found.concordance.agree) == ("reproduced", 17)


def test_each_side_has_its_differences_to_the_same_baseline() -> None:
    losses = {arm: by_seed for arm, by_seed in draw({**SHORT, "geglu": 1.9}, sd=0).items() if arm != "gelu"}
    found = judge_reproduction(SHAZEER, "short", made(losses))
    assert (found.published.baseline, found.ours.baseline) == ("relu", "relu")
    published = {row.arm: row.difference_nats for row in found.published.arms}
    ours = {row.arm: row.difference_nats for row in found.ours.arms}
    assert published["geglu"] == pytest.approx(1.942 - 1.997)
    assert published["gelu"] == pytest.approx(1.983 - 1.997)
    assert ours["geglu"] == pytest.approx(1.9 - 1.997)
    assert "gelu" not in ours


def test_a_missing_seed_turns_no_pair() -> None:
    """bilinear lacks the seed that is hard for all: its mean is below geglu's, its losses are above."""
    losses = draw(SHORT, sd=0.0002)
    hardest = max(losses["relu"], key=lambda seed: losses["relu"][seed])
    losses["bilinear"] = {seed: loss - 0.0165 for seed, loss in losses["bilinear"].items() if seed != hardest}
    means = {arm: sum(by_seed.values()) / len(by_seed) for arm, by_seed in losses.items()}
    assert means["bilinear"] < means["geglu"]
    found = judge_reproduction(SHAZEER, "short", made(losses, n_planned=5))
    assert found.contradicted_pairs == []
    assert (found.verdict, found.concordance.agree) == ("reproduced", 17)


def test_a_reversed_order_contradicts() -> None:
    found = judge({arm: 4 - mean for arm, mean in SHORT.items()})
    assert found.verdict == "contradicted"
    assert found.concordance.agree == 0
    assert len(found.contradicted_pairs) == 17
    assert "the gap of gated to ungated arms has the other sign" in found.sentence


def test_one_separable_pair_turned_contradicts_and_is_named() -> None:
    found = judge({**SHORT, "bilinear": 1.930})
    assert found.concordance.agree == 16
    assert found.verdict == "contradicted"
    assert found.contradicted_pairs == [("geglu", "bilinear")]
    assert "geglu below bilinear" in found.sentence


def test_a_pair_turned_within_the_noise_does_not() -> None:
    found = judge({**SHORT, "bilinear": 1.9415}, sd=0.004)
    assert found.concordance.opposite == [("geglu", "bilinear")]
    assert found.verdict == "reproduced"


def test_noise_that_hides_the_order_is_not_separable() -> None:
    same = dict.fromkeys(SHORT, 2.0)
    found = judge(same, sd=0.01)
    assert found.concordance.p_at_least > 0.05
    assert found.concordance.p_at_most > 0.05
    assert found.verdict == "not_separable"


def test_one_seed_has_an_order_which_is_no_finding() -> None:
    found = judge(SHORT, n=1, sd=0.0)
    assert found.concordance.agree == 17
    assert found.verdict == "not_separable"
    assert "0 of them separable here" in found.sentence
    assert found.ours.gap is not None
    assert found.ours.gap.ci95 is None


def test_arms_without_a_finished_run_are_left_out_and_named() -> None:
    losses = {arm: by_seed for arm, by_seed in draw(SHORT).items() if arm not in ("relu", "swish")}
    found = judge_reproduction(SHAZEER, "short", made(losses))
    # 17 less the four pairs of relu and the four of swish
    assert (found.concordance.agree, found.concordance.of) == (9, 9)
    assert "without relu, swish: no finished run" in found.warnings
    assert found.published.gap is not None
    # the same arms on both sides: gelu alone is ungated
    assert found.published.gap.difference_nats == pytest.approx(1.9562 - 1.983, abs=1e-12)
    with pytest.raises(ConfigError, match="fewer than two arms of column short"):
        judge_reproduction(SHAZEER, "short", made({"relu": {0: 1.0}}))


@pytest.mark.parametrize(("name", "column"), [("shazeer2020", "long"), ("narang2021", "final")])
def test_an_assumed_noise_separates_what_holms_t_does(name: str, column: str) -> None:
    card = load_card(name)
    means = {arm: row.mean for arm, row in card.columns[column].arms.items()}
    pairs = list(itertools.combinations(means, 2))
    p = {pair: 2 * stats.t.sf(abs(means[pair[0]] - means[pair[1]]) / (0.0055 * 2**0.5), 24) for pair in pairs}
    expected = 0
    for rank, pair in enumerate(sorted(pairs, key=lambda pair: p[pair])):
        if p[pair] * (len(pairs) - rank) > 0.05:
            break
        expected += 1
    found = judge_reproduction(card, column, made(draw(means)))
    assert found.concordance.of == expected
    assert found.verdict == "reproduced"
    assert any("published noise assumed, sd 0.0055" in line for line in found.warnings)


def without_noise() -> Card:
    card = load_card("narang2021")
    card.columns["final"].noise = None
    return card


def test_a_column_without_any_noise_counts_every_unequal_pair() -> None:
    card = without_noise()
    means = {arm: row.mean for arm, row in card.columns["final"].arms.items()}
    found = judge_reproduction(card, None, made(draw(means)))
    assert found.concordance.of == 12 * 11 / 2 - 1  # relu and gelu are equal
    assert found.verdict == "reproduced"
    turned = judge_reproduction(card, None, made(draw({**means, "swiglu": 1.795})))
    assert turned.contradicted_pairs == []
    assert turned.verdict == "reproduced"


def test_two_arms_reproduce_by_being_separable(tmp_path: Path) -> None:
    """One pair comes out right by chance half the time; what is left is the test of the pair."""
    card = load_card("shazeer2020")
    card.columns["short"].arms = {arm: card.columns["short"].arms[arm] for arm in ("relu", "geglu")}
    means = {"relu": 2.0, "geglu": 1.9}
    assert judge_reproduction(card, None, made(draw(means))).verdict == "reproduced"
    assert judge_reproduction(card, None, made(draw(means, n=1))).verdict == "not_separable"


def concordance(agree: int, of: int, p_at_least: float, p_at_most: float) -> Concordance:
    return Concordance(
        agree=agree,
        of=of,
        chance_level=of / 2,
        p_at_least=p_at_least,
        p_at_most=p_at_most,
        is_exact=True,
        opposite=[],
    )


@pytest.mark.parametrize(
    ("counted", "n_separated", "contradicted", "signs", "verdict"),
    [
        (concordance(15, 17, 0.05, 0.99), 1, [], (-1, 0), "reproduced"),
        (concordance(17, 17, 0.007, 1.0), 0, [], (-1, -1), "not_separable"),
        (concordance(14, 17, 0.051, 0.99), 13, [], (-1, -1), "not_separable"),
        (concordance(3, 3, 0.17, 1.0), 3, [], (0, 0), "reproduced"),
        (concordance(3, 3, 0.17, 1.0), 2, [], (0, 0), "not_separable"),
        (concordance(16, 17, 0.02, 0.99), 9, [("a", "b")], (-1, -1), "contradicted"),
        (concordance(17, 17, 0.01, 1.0), 9, [], (-1, 1), "contradicted"),
        (concordance(2, 17, 0.99, 0.05), 0, [], (-1, 0), "contradicted"),
        (concordance(3, 17, 0.99, 0.051), 0, [], (-1, 0), "not_separable"),
        (concordance(0, 0, 1.0, 1.0), 0, [], (0, 0), "not_separable"),
    ],
)
def test_the_rules(
    counted: Concordance,
    n_separated: int,
    contradicted: list[tuple[str, str]],
    signs: tuple[int, int],
    verdict: str,
) -> None:
    assert decide(counted, n_separated=n_separated, contradicted=contradicted, signs=signs)[0] == verdict


def test_a_scale_is_a_sweep() -> None:
    protocol = make_protocol(SHAZEER, "nano", SHAZEER.scales["nano"])
    assert protocol.name == "shazeer2020-nano"
    assert protocol.words == [
        "variant=relu,gelu,swish,glu,bilinear,geglu,swiglu,reglu",
        "seed=0,1,2,3,4",
        "model=nano",
        "train.tokens=4096000",
        "data=stdlib",
    ]
    assert (protocol.tune, protocol.tune_seeds) == (["optim.lr=0.001,0.002,0.004,0.008"], [100])


def test_quick_takes_the_middle_of_the_grid() -> None:
    pico, nano = (make_protocol(SHAZEER, at, SHAZEER.scales[at], quick=True) for at in ("pico", "nano"))
    assert (pico.name, pico.tune, pico.tune_seeds) == ("shazeer2020-pico-quick", [], [])
    assert "optim.lr=0.008" in pico.words
    assert "optim.lr=0.002" in nano.words


def test_given_words_replace_the_cards() -> None:
    scale = SHAZEER.scales["nano"]
    given = ["train.steps=10", "seed=7", "data=text", "optim.lr=1e-3"]
    protocol = make_protocol(SHAZEER, "nano", scale, given=given)
    assert protocol.words == [
        "variant=relu,gelu,swish,glu,bilinear,geglu,swiglu,reglu",
        "model=nano",
        *given,
    ]
    assert protocol.tune == []
    assert protocol.name.startswith("shazeer2020-nano-")
    assert protocol.name != make_protocol(SHAZEER, "nano", scale, given=["seed=7"]).name


def test_a_name_in_use_for_other_runs_is_refused_and_more_seeds_are_not(
    tiny_words: list[str], tmp_path: Path
) -> None:
    words = [*tiny_words, "variant=gelu,swiglu"]
    make_plan([*words, "seed=0"], tmp_path, name="mine")

    def check(*given: str) -> None:
        check_protocol(ScaledSweep(name="mine", words=list(given), tune=[], tune_seeds=[]), tmp_path)

    check(*words, "seed=0,1")
    check(*tiny_words, "seed=0", "variant=gelu,swiglu,relu")
    with pytest.raises(ConfigError, match=r"sweep mine has other runs \(.*variant=gelu.*another --name"):
        check(*words, "seed=0", "model.ffn_bias=true")
    with pytest.raises(ConfigError, match=r"variant=swiglu"):
        check(*tiny_words, "variant=gelu", "seed=0")


def test_what_a_plan_has_given_so_far(tiny_words: list[str], tmp_path: Path) -> None:
    plan = make_plan([*tiny_words, "variant=gelu,swiglu", "seed=0,1,2"], tmp_path, name="mine")
    for planned in plan.runs:
        arm, seed = planned.identity["variant.name"], planned.identity["seed"]
        path = plan.run(planned).path
        path.mkdir(parents=True)
        if (arm, seed) == ("swiglu", 1):
            write_json(path / "failure.json", {"status": "diverged", "step": 3, "reason": "loss is nan"})
        elif (arm, seed) != ("swiglu", 2):
            write_record(path / "result.json", {"test_loss_nats": 2.0 + seed, "tokens_per_s": 1.0})
    found = read_finished(plan)
    assert found.losses == {"gelu": {0: 2.0, 1: 3.0, 2: 4.0}, "swiglu": {0: 2.0}}
    assert found.n_planned == {"gelu": 3, "swiglu": 3}
    assert found.warnings == ["swiglu: 1 of 3 runs finished, 1 diverged"]
    assert found.tuned == {"gelu": {}, "swiglu": {}}


def test_a_sweep_of_several_settings_has_no_one_answer(tiny_words: list[str], tmp_path: Path) -> None:
    plan = make_plan([*tiny_words, "variant=gelu,swiglu", "match=params,width"], tmp_path, name="mine")
    with pytest.raises(ConfigError, match="mine has several runs of gelu at seed 0"):
        read_finished(plan)


def test_a_record_of_tuning_that_another_tool_wrote_is_refused(tiny_words: list[str], tmp_path: Path) -> None:
    plan = make_plan([*tiny_words, "variant=gelu,swiglu"], tmp_path, name="mine")
    write_record(plan.folder / "tuning.json", {"schema_version": 1, "best": {"optim.lr": 0.1}})
    with pytest.raises(DataError, match=r"mine/tuning\.json: has no runs"):
        read_finished(plan)


def test_a_run_that_was_tuned_over_what_its_words_do_not_set_is_refused(
    tiny_words: list[str], tmp_path: Path
) -> None:
    plan = make_plan([*tiny_words, "variant=gelu"], tmp_path, name="mine")
    made = {plan.runs[0].run_id: {"keys": [], "edges": {"optim.eps": "low"}}}
    write_record(plan.folder / "tuning.json", {"runs": made, "tuned": {}, "seeds": [], "arms": []})
    with pytest.raises(DataError, match=r"was tuned over optim\.eps, which no word of it sets"):
        read_finished(plan)


def test_the_cards_lie_where_the_package_finds_them() -> None:
    assert (find_config_root() / "reproduce" / "shazeer2020.yaml").is_file()
