"""The paragraph for a paper: what was trained, how arms were kept alike, what was tested, on what machine."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from glu_bench.errors import show_controls
from glu_bench.schema import Config
from glu_bench.show.latex_table import escape_latex
from glu_bench.show.markdown_table import escape_markdown
from glu_bench.show.numbers import p_text
from glu_bench.study.bibliography import Paper, find_papers
from glu_bench.study.compare import Comparison
from glu_bench.study.methods import Methods

Part = str | list[Paper]  # words, or the papers cited after them
Sentence = list[Part]
OPTIMISERS = {"adamw": "AdamW", "muon": "Muon", "adafactor": "Adafactor"}
SPREAD = "the arms do not vary alike"  # how the warning of a failed check begins


def write_methods(comparison: Comparison, methods: Methods, form: str = "table") -> str:
    """One paragraph, cited as the form does: `\\cite{key}` in latex, names and numbers elsewhere."""
    escape: Callable[[str], str] = {"latex": escape_latex, "markdown": escape_markdown}.get(
        form, show_controls
    )

    def write(part: Part) -> str:
        if isinstance(part, str):
            return escape(part)
        return _cite_latex(part) if form == "latex" else escape(_cite(part))

    sentences = [*_say_arms(comparison, methods), *_say_runs(comparison, methods)]
    sentences += [*_say_tests(comparison), *_say_machine(methods)]
    return " ".join("".join(map(write, sentence)) for sentence in sentences) + "\n"


def list_papers(tables: Sequence[tuple[Comparison, Methods]]) -> tuple[list[Paper], list[str]]:
    """The papers that the paragraphs of these tables cite, and the arms whose source is no paper."""
    papers: list[Paper] = []
    unlisted: dict[str, None] = {}
    for comparison, methods in tables:
        sentences = [*_say_runs(comparison, methods), *_say_tests(comparison)]
        papers += [
            paper for sentence in sentences for part in sentence if isinstance(part, list) for paper in part
        ]
        for name, source in methods.sources.values():
            found = find_papers(source)
            papers += found
            if not found:
                unlisted[f"{name}: {source}"] = None
    return papers, list(unlisted)


def _cite(papers: list[Paper]) -> str:
    cited = [paper.short + (f", arXiv {paper.eprint}" if paper.eprint else "") for paper in papers]
    return f" ({'; '.join(cited)})" if cited else ""


def _cite_latex(papers: list[Paper]) -> str:
    return rf"~\cite{{{','.join(paper.key for paper in papers)}}}" if papers else ""


def _say_arms(comparison: Comparison, methods: Methods) -> Iterator[Sentence]:
    """Who is compared, each with its papers, or the words of its source where no paper is known."""
    sentence: Sentence = [f"We compare {len(comparison.arms)} feed-forward activations: "]
    for at, arm in enumerate(comparison.arms):
        sentence.append((", " if at else "") + arm.arm)
        if arm.arm in methods.sources:
            source = methods.sources[arm.arm][1]
            papers = find_papers(source)
            sentence.append(papers or f" ({source})")
    yield [*sentence, f"; the baseline is {comparison.baseline}."]


def _say_runs(comparison: Comparison, methods: Methods) -> Iterator[Sentence]:
    """The protocol, from the runs' own records."""
    if not methods.configs:
        yield [f"The losses are those of {comparison.setting}; this tool did not train the models."]
        return
    configs, results = methods.configs, methods.results
    model = _same(
        f"{c.model.n_layers} blocks of width {c.model.d_model} and {c.model.n_heads} heads" for c in configs
    )
    n_params, n_ffn_params = (_span(results, name) for name in ("n_params", "n_ffn_params"))
    size = f"{n_params} parameters, {n_ffn_params} of them in the feed-forward blocks"
    yield [
        f"Each is trained in a decoder-only transformer of {model} ({size}; rotary positions, RMSNorm first)."
    ]
    yield [_say_match(configs, results)]
    text = _same(c.data.corpus for c in configs)
    tokenizer = _same("UTF-8 bytes" if c.tokenizer.kind == "byte" else c.tokenizer.kind for c in configs)
    batch = _same(f"{c.train.batch_size} sequences of {c.model.seq_len}" for c in configs)
    yield [f"Text: {text}, tokenised as {tokenizer}, split into training, validation and test."]
    precision = _same(c.train.precision for c in configs)
    steps = f"{_span(results, 'steps')} steps of {batch} tokens in {precision}"
    yield [f"Budget: {_span(results, 'tokens')} training tokens, {steps}."]
    yield from _say_optimiser(comparison, configs)
    same = "the order of the data and the initial value of every weight that arms share"
    yield [f"One seed fixes {same}, so runs of one seed are paired."]
    yield [f"Hidden matrices start {_same(_say_init(c) for c in configs)}."]
    n_tokens = f" of {_span(results, 'n_test_tokens')} tokens" if comparison.split == "test" else ""
    windows = f"windows of {_span(results, 'window')}, stride {_span(results, 'stride')}"
    yield [f"The loss is the mean over the next tokens of the {comparison.split} split{n_tokens}, in nats."]
    yield [f"It is measured after the last step, not at the best one, in one pass ({windows})."]


def _say_match(configs: list[Config], results: list[dict[str, Any]]) -> str:
    modes = {config.match.mode for config in configs}
    worst = max(abs(result["match_residual"]) for result in results)
    if modes == {"params"}:
        expansion = _same(f"{config.match.expansion:g}" for config in configs)
        return (
            "The feed-forward width is solved so that the block's parameters, learned scalars included, "
            f"equal those of an ungated block of {expansion} times the model's width (largest residual "
            f"{worst:.2%}), which makes the matrix-multiply FLOPs equal too."
        )
    if modes == {"width"}:
        return (
            "All arms have the same hidden width, so gated arms have more parameters and FLOPs (up to "
            f"{worst:.0%} more in the feed-forward blocks)."
        )
    return f"Parameters are not matched for all arms (they differ by up to {worst:.0%} from the baseline's)."


def _say_optimiser(comparison: Comparison, configs: list[Config]) -> Iterator[Sentence]:
    names = {config.optim.name: None for config in configs}
    sentence: Sentence = ["Optimiser: "]
    for at, name in enumerate(names):
        sentence += [(" or " if at else "") + OPTIMISERS[name], find_papers(name)]
    rate = _same(f"{config.optim.lr:g}" for config in configs)
    schedule = _same(
        f"{config.optim.schedule} schedule after a warm-up over {config.optim.warmup_share:.0%} of the steps"
        for config in configs
    )
    decay = _same(f"{config.optim.weight_decay:g}" for config in configs)
    clip = _same(f"{config.optim.clip_norm:g}" for config in configs)
    rest = f"{schedule}, weight decay {decay} on matrices, gradients clipped at norm {clip}"
    if comparison.tuned:
        keys = " and ".join(comparison.tuned)
        chosen = "; ".join(f"{a.arm} {c.optim.lr:g}" for a, c in _with_runs(comparison, configs))
        rates = f" (learning rates: {chosen})" if "optim.lr" in comparison.tuned else ""
        tuning = (
            f"{keys} chosen for each arm on the validation split, from the same grid and seeds for all "
            f"({comparison.tuning}){rates}"
        )
        yield [*sentence, f", {tuning}; {rest}."]
        if edged := [arm.arm for arm in comparison.arms if arm.edges]:
            yield [f"The best value of {', '.join(edged)} lay at the end of the grid."]
    else:
        alike = "the same for all arms, not tuned for any" if len(_distinct_rates(configs)) == 1 else "by arm"
        yield [*sentence, f", peak learning rate {rate}, {alike}; {rest}."]


def _with_runs(comparison: Comparison, configs: list[Config]) -> Iterator[tuple[Any, Config]]:
    return zip((arm for arm in comparison.arms if arm.runs), configs, strict=True)


def _distinct_rates(configs: list[Config]) -> set[float]:
    return {config.optim.lr for config in configs}


def _say_init(config: Config) -> str:
    normal = "normal with standard deviation 1/sqrt(fan-in)"
    if config.init == "fan_in":
        return normal
    return f"{normal}, the block's output projection divided by sqrt(E[hidden^2]) too"


def _say_tests(comparison: Comparison) -> Iterator[Sentence]:
    """Counts, the test made, families, and what it could see."""
    counts = [arm.n_finished for arm in comparison.arms]
    runs = f"{counts[0]} runs" if min(counts) == max(counts) else f"{min(counts)} to {max(counts)} runs"
    seeds = sorted({seed for arm in comparison.arms for seed in arm.losses})
    listed = ""
    if seeds:
        listed = f" (seeds {', '.join(map(str, seeds))})" if len(seeds) <= 12 else f" ({len(seeds)} seeds)"
    yield [f"Each arm has {runs}{listed}; the seed is the unit of analysis."]
    for arm in comparison.arms:
        if arm.n_finished < arm.n_planned:
            lost = f"{arm.n_planned - arm.n_finished} of {arm.n_planned} runs of {arm.arm} did not finish"
            yield [f"{lost} ({arm.n_diverged} diverged); its mean is over the others."]
    made = [pair for pair in comparison.pairs if pair.p_raw is not None]
    if not made:
        yield ["No test was made: nothing measures chance here."]
        return
    if comparison.test.startswith("seed-blocked"):
        _, _, detail = comparison.test.partition(", ")
        model = f"loss = arm + seed + residual, one residual variance for all; {detail}"
        sentence: Sentence = [
            f"Differences are tested, two-sided, in the seed-blocked two-way model ({model}"
        ]
        sentence += [find_papers("Welch 1947") if "Welch" in detail else "", ")"]
    else:
        sentence = ["Differences are tested, two-sided, by Welch's t", find_papers("Welch 1947")]
    n_arms = sum(arm.p_raw is not None for arm in comparison.arms)
    if len(made) == 1:
        yield [*sentence, "; with one pair there is nothing to adjust."]
    else:
        families = f"{n_arms} arms against the baseline and all {len(made)} pairs"
        yield [
            *sentence,
            "; p-values are adjusted by Holm's method",
            find_papers("Holm 1979"),
            f" within two families, {families}, at a family-wise error of 5 %.",
        ]
    yield [
        "Arms that share a letter",
        find_papers("Piepho 2004"),
        " are not separable; intervals are 95 % t intervals, not adjusted.",
    ]
    if comparison.seed_correlation is not None:
        yield [f"Runs of one seed correlate {comparison.seed_correlation:.2f} over arms."]
    for warning in comparison.warnings:
        if warning.startswith(SPREAD):
            yield [_say_spread(warning, comparison)]
    if comparison.detectable_nats is not None:
        yield [
            f"The seeds see differences of {comparison.detectable_nats:.4f} nats and more with 80 % power."
        ]


def _say_spread(warning: str, comparison: Comparison) -> str:
    """The failed check, and the paired t tests against the baseline that stand beside it."""
    paired = [
        f"{pair.a if pair.b == comparison.baseline else pair.b} p = {p_text(pair.p_paired)}"
        for pair in comparison.pairs
        if pair.p_paired is not None and comparison.baseline in (pair.a, pair.b)
    ]
    beside = f" Paired t against {comparison.baseline}, not adjusted: {', '.join(paired)}." if paired else ""
    return f"A check found that {warning.rstrip('.')}.{beside}"


def _say_machine(methods: Methods) -> Iterator[Sentence]:
    """Hardware and versions, all that the runs were made with."""
    found = methods.environments
    if not found:
        return
    machines = _same(map(_say_device, found))
    versions = [
        _same(f"{name} {version}" for env in found if (version := env.get("versions", {}).get(name)))
        for name in ("glu-bench", "torch", "numpy", "scipy")
    ]
    python = _same(f"Python {env['python']}" for env in found if env.get("python"))
    commits = _same(
        f"commit {env['git_commit'][:10]}{' with changes' if env.get('git_dirty') else ''}"
        for env in found
        if env.get("git_commit")
    )
    software = ", ".join(part for part in (*versions, python, commits) if part)
    if machines:
        yield [f"Hardware: {machines}."]
    if software:
        yield [f"Software: {software}."]


def _say_device(environment: dict[str, Any]) -> str:
    """The device of a run; empty where it was not recorded."""
    if environment.get("gpu"):
        cuda = environment.get("cuda")
        return str(environment["gpu"]) + (f" (CUDA {cuda})" if cuda else "")
    cpu = environment.get("cpu")
    n_threads = environment.get("n_threads")
    return (
        f"{cpu}" + (f", {n_threads} thread{'s' if n_threads > 1 else ''} a run" if n_threads else "")
        if cpu
        else ""
    )


def _same(values: Iterable[str]) -> str:
    """What all say, or all that is said."""
    return " or ".join(dict.fromkeys(value for value in values if value))


def _span(results: list[dict[str, Any]], name: str) -> str:
    """A number of the records: one, or from the least to the greatest."""
    values = sorted(result[name] for result in results if result.get(name) is not None)
    if not values:
        return "an unrecorded number"
    ends = dict.fromkeys(f"{value:,}" for value in (values[0], values[-1]))
    return " to ".join(ends)
