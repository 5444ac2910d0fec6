"""The claims that are made of gates, each with its source and with what measures it.

A contrast sets arms against arms: the mean of the first minus the mean of the second, averaged
over its strata, such as each gated arm beside the ungated one of the same function.
"""

from __future__ import annotations

from dataclasses import dataclass

from glu_bench.study import facts, measures
from glu_bench.study.facts import FindFact
from glu_bench.study.measures import Measure

GLU = "Gated Linear Units (GLU) and their Variants, section"
SWIGLU = "SwiGLU, Swish-Gated Linear Unit, section"
BOTH = ("params", "width")
DEEP = 32  # layers of model=deep

Stratum = tuple[tuple[str, ...], tuple[str, ...]]
GATING: tuple[Stratum, ...] = ((("reglu",), ("relu",)), (("geglu",), ("gelu",)), (("swiglu",), ("swish",)))
SMOOTH_GATE: tuple[Stratum, ...] = ((("geglu", "swiglu"), ("reglu",)),)
SMOOTH: tuple[Stratum, ...] = (*SMOOTH_GATE, (("gelu", "swish"), ("relu",)))
RELU: tuple[Stratum, ...] = ((("reglu",), ("geglu", "swiglu")), (("relu",), ("gelu", "swish")))
SWISH: tuple[Stratum, ...] = ((("swish",), ("relu",)),)


@dataclass(frozen=True, kw_only=True)
class FactClaim:
    """A claim that arithmetic settles."""

    claim: str
    source: str
    measurement: str
    unit: str
    find: FindFact
    matches: tuple[str | None, ...] = (None,)


@dataclass(frozen=True, kw_only=True)
class RunClaim:
    """A claim on which runs have a say: it predicts the sign of a contrast."""

    claim: str
    source: str
    measurement: str
    unit: str  # ratio: the contrast is one of logarithms
    measure: Measure
    strata: tuple[Stratum, ...]  # an empty second side: against the level
    above: bool  # the predicted side of the level, or of a ratio of 1
    level: float = 0.0
    matches: tuple[str | None, ...] = BOTH  # None: whichever there is
    exact: bool = False  # arithmetic on configurations, the same at every seed
    relative: bool = False  # values depend on which arms are looked at together
    over_lr: bool = False  # takes the runs of all learning rates
    deep: bool = False  # above all in very deep networks
    on_machine: bool = False  # depends on what trains, not only on what is trained
    compiled: str | None = None  # "true" or "false": takes such runs alone
    epochs: float = 0.0  # passes over the text at the least
    words: str = ""  # what a sweep that measures it takes besides arms and seeds

    @property
    def arms(self) -> tuple[str, ...]:
        """All arms of the contrast."""
        return tuple(dict.fromkeys(arm for first, second in self.strata for arm in (*first, *second)))


Claim = FactClaim | RunClaim

CLAIMS: tuple[Claim, ...] = (
    FactClaim(
        claim="gating doubles the parameters of the projection into the block",
        source=f"{GLU} 4.2",
        measurement="input weights, gated over ungated",
        unit="ratio",
        find=facts.count_input_weights,
        matches=BOTH,
    ),
    FactClaim(
        claim="gating doubles the parameters of the feed-forward layer",
        source=f"{GLU} 4.2",
        measurement="parameters of the whole block, gated over ungated",
        unit="ratio",
        find=facts.count_block_weights,
        matches=BOTH,
    ),
    FactClaim(
        claim="gating raises the computation of a layer",
        source=f"{GLU} 4.2",
        measurement="FLOPs of the block, gated over ungated",
        unit="ratio",
        find=facts.count_block_flops,
        matches=BOTH,
    ),
    RunClaim(
        claim="gating raises the computation of a layer",
        source=f"{GLU} 4.2",
        measurement="FLOPs/token of the model, gated over ungated",
        unit="ratio",
        measure=measures.of_record("flops_per_token"),
        strata=GATING,
        above=True,
        exact=True,
    ),
    RunClaim(
        claim="gating raises the computation of a layer",
        source=f"{GLU} 4.2",
        measurement="time of a training step, gated over ungated",
        unit="ratio",
        measure=measures.measure_step_time,
        strata=GATING,
        above=True,
        on_machine=True,
    ),
    RunClaim(
        claim="gating takes more memory",
        source=f"{GLU} 4.2",
        measurement="bytes kept for the backward pass by all blocks, gated over ungated",
        unit="ratio",
        measure=measures.of_record("ffn_saved_bytes_per_token"),
        strata=GATING,
        above=True,
        exact=True,
    ),
    RunClaim(
        claim="gating takes more memory",
        source=f"{GLU} 4.2",
        measurement="peak memory of training, gated over ungated",
        unit="ratio",
        measure=measures.of_record("peak_bytes"),
        strata=GATING,
        above=True,
        on_machine=True,
    ),
    *(
        RunClaim(
            claim="ReLU is the cheapest gate",
            source=f"{GLU} 3.3, 3.4",
            measurement=f"time of a training step, {kind}, ReLU gate over GELU, Swish and sigmoid gates",
            unit="ratio",
            measure=measures.measure_step_time,
            strata=((("reglu",), ("geglu", "swiglu", "glu")),),
            above=False,
            on_machine=True,
            compiled=compiled,
            words=f"train.compile={compiled}",
        )
        for kind, compiled in (("compiled", "true"), ("eager", "false"))
    ),
    *(
        RunClaim(
            claim=claim,
            source=f"{GLU} 4.1",
            measurement=f"{what}, {who}",
            unit=unit,
            measure=measure,
            strata=strata,
            above=False,
            relative=measure is measures.measure_tokens_to_level,
        )
        for claim, who, strata in (
            ("smooth gates converge faster", "GELU and Swish gates against ReLU's", SMOOTH_GATE),
            ("gating converges faster", "gated against ungated", GATING),
        )
        for what, unit, measure in (
            ("tokens to the loss the last of them ends with", "ratio", measures.measure_tokens_to_level),
            (
                "mean held-out loss from its first measurement on (area under the curve)",
                "nats",
                measures.measure_area,
            ),
        )
    ),
    FactClaim(
        claim="GELU gives small values, not 0, for negatives",
        source=f"{SWIGLU} 2",
        measurement="least value; below |x|/2 and never 0",
        unit="value",
        find=facts.find_gelu_negatives,
    ),
    FactClaim(
        claim="GELU's tanh form is close to it",
        source=f"{GLU} 3.2",
        measurement="greatest difference",
        unit="value",
        find=facts.find_tanh_error,
    ),
    RunClaim(
        claim="smooth activations have better gradient flow, above all in very deep networks",
        source=f"{GLU} 3.1, 3.4, 4.1",
        measurement="largest over smallest gradient norm of blocks, smooth against ReLU",
        unit="ratio",
        measure=measures.of_inspection("gradient_norm_spread"),
        strata=SMOOTH,
        above=False,
        deep=True,
        words="model=deep",
    ),
    RunClaim(
        claim="smooth activations have better gradient flow, above all in very deep networks",
        source=f"{GLU} 3.1, 3.4, 4.1",
        measurement="gradient entries that are exactly 0, smooth minus ReLU",
        unit="share",
        measure=measures.of_inspection("zero_gradient_share"),
        strata=SMOOTH,
        above=False,
        deep=True,
        words="model=deep",
    ),
    *(
        RunClaim(
            claim="ReLU gates die and stay at zero",
            source=f"{GLU} 3.3",
            measurement=f"units that are 0 for every token {when}, ReLU minus smooth",
            unit="share",
            measure=measure,
            strata=RELU,
            above=True,
        )
        for when, measure in (
            ("of the run's own sample, first step", measures.of_diagnostics("dead_share", 0.0)),
            ("of the run's own sample, half way", measures.of_diagnostics("dead_share", 0.5)),
            ("of the run's own sample, last step", measures.of_diagnostics("dead_share", 1.0)),
            ("that was inspected, at the end", measures.of_inspection("dead_share")),
        )
    ),
    RunClaim(
        claim="fewer units die with Swish than with ReLU",
        source=f"{SWIGLU} 3",
        measurement="dead units at the end, Swish minus ReLU",
        unit="share",
        measure=measures.of_inspection("dead_share"),
        strata=SWISH,
        above=False,
        matches=(None,),
    ),
    RunClaim(
        claim="the gate's output depends on the data",
        source=f"{GLU} 2.2, 4.1",
        measurement="variance of a gate over tokens, as a share of its mean square: more than 5 %",
        unit="share",
        measure=measures.of_inspection("gate_varying_share"),
        strata=((("glu", "reglu", "geglu", "swiglu"), ()),),
        above=True,
        level=0.05,
    ),
    RunClaim(
        claim="gating selects more, by the data, than an activation alone",
        source=f"{GLU} 2.2, 4.1",
        measurement="variance of hidden over tokens as a share of its mean square, gated minus ungated",
        unit="share",
        measure=measures.of_inspection("hidden_varying_share"),
        strata=GATING,
        above=True,
    ),
    RunClaim(
        claim="gating selects more, by the data, than an activation alone",
        source=f"{GLU} 2.2, 4.1",
        measurement="saturated gates (slope at most 0.19 of the steepest), gated minus ungated",
        unit="share",
        measure=measures.of_inspection("saturation"),
        strata=GATING,
        above=True,
    ),
    *(
        RunClaim(
            claim="the sigmoid gate opens and closes",
            source=f"{GLU} 2.2",
            measurement=f"gates {where}: more than 1 %",
            unit="share",
            measure=measures.of_inspection(name),
            strata=((("glu",), ()),),
            above=True,
            level=0.01,
        )
        for where, name in (("above 0.95", "saturation_high"), ("below 0.05", "saturation_low"))
    ),
    RunClaim(
        claim="a ReLU gate makes the hidden state sparse",
        source=f"{GLU} 3.3",
        measurement="hidden numbers that are exactly 0, ReLU gate minus GELU and Swish gates",
        unit="share",
        measure=measures.of_inspection("zero_share"),
        strata=((("reglu",), ("geglu", "swiglu")),),
        above=True,
    ),
    FactClaim(
        claim="Swish is bounded below by about -0.278 and unbounded above",
        source=f"{SWIGLU} 3",
        measurement="least value",
        unit="value",
        find=facts.find_swish_bound,
    ),
    FactClaim(
        claim="Swish is not monotone",
        source=f"{GLU} 3.1, 3.4",
        measurement="how far it falls before it rises",
        unit="value",
        find=facts.find_swish_descent,
    ),
    FactClaim(
        claim="Swish is smooth",
        source=f"{SWIGLU} 3",
        measurement="greatest step of its slope over 1e-4",
        unit="value",
        find=facts.find_swish_smoothness,
    ),
    FactClaim(
        claim="GELU is smooth, unlike ReLU",
        source=f"{SWIGLU} 2; {GLU} 3.4",
        measurement="greatest step of its slope over 1e-4",
        unit="value",
        find=facts.find_gelu_smoothness,
    ),
    RunClaim(
        claim="gating regularises implicitly",
        source=f"{GLU} 4.1",
        measurement="held-out minus training loss at equal training loss, gated minus ungated",
        unit="nats",
        measure=measures.measure_gap_at_level,
        strata=GATING,
        above=False,
        relative=True,
        epochs=2.0,
        words="train.epochs=8",
    ),
    *(
        RunClaim(
            claim=claim,
            source=source,
            measurement=f"{what}, {who}",
            unit=unit,
            measure=measure,
            strata=strata,
            above=above,
            over_lr=over_lr,
            words=words,
        )
        for claim, source, who, strata in (
            (
                "smooth gates train more stably",
                f"{GLU} 3.4, 4.1",
                "GELU and Swish gates against ReLU's",
                SMOOTH_GATE,
            ),
            (
                "SwiGLU trains stably",
                f"{SWIGLU} 4",
                "SwiGLU against ReLU",
                ((("swiglu",), ("relu",)),),
            ),
        )
        for what, unit, measure, above, over_lr, words in (
            ("loss spikes a run", "count", measures.count_spikes, False, False, ""),
            (
                "99th percentile of gradient norms over their median",
                "ratio",
                measures.measure_gradient_tail,
                False,
                False,
                "",
            ),
            (
                "highest stable learning rate",
                "ratio",
                measures.find_highest_stable_lr,
                True,
                True,
                "optim.lr=0.032,0.128,0.512,2.048,8.192",
            ),
        )
    ),
    *(
        RunClaim(
            claim=claim,
            source=source,
            measurement=f"test loss, {who}",
            unit="nats",
            measure=measures.of_record("test_loss_nats"),
            strata=((first, second),),
            above=False,
            matches=matches,
            deep=deep,
            words="model=deep" if deep else "",
        )
        for claim, source, who, first, second, matches, deep in (
            (
                "SwiGLU and GeGLU have the better perplexity",
                f"{GLU} 3.4, 4.1; {SWIGLU} 4",
                "these minus ReLU and GELU",
                ("swiglu", "geglu"),
                ("relu", "gelu"),
                BOTH,
                False,
            ),
            (
                "SwiGLU is better than simpler blocks",
                f"{GLU} 3.1",
                "SwiGLU minus ReLU and GELU",
                ("swiglu",),
                ("relu", "gelu"),
                BOTH,
                False,
            ),
            (
                "SwiGLU is better than GLU",
                f"{GLU} 3.1",
                "SwiGLU minus GLU",
                ("swiglu",),
                ("glu",),
                BOTH,
                False,
            ),
            (
                "GELU is better than ReLU, above all in deeper networks",
                f"{GLU} 3.2; {SWIGLU} 5",
                "GELU minus ReLU",
                ("gelu",),
                ("relu",),
                (None,),
                True,
            ),
            (
                "Swish is better than ReLU in deep networks",
                f"{SWIGLU} 3",
                "Swish minus ReLU",
                ("swish",),
                ("relu",),
                (None,),
                True,
            ),
        )
    ),
)
