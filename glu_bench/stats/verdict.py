"""Findings in words, as ready to say "not separable" as to name a winner."""

from __future__ import annotations

from collections.abc import Sequence

from glu_bench.stats.findings import Estimate, Findings


def say_verdict(findings: Findings) -> str:
    """Three sentences at most: the best arms, how all stand to the baseline, what the seeds can see."""
    if len(findings.estimates) < 2:
        return "fewer than two arms have a finished run: nothing to compare yet"
    tested = [pair for pair in findings.pairs if pair.p_raw is not None]
    if not tested:
        return _say_order(findings)
    parts = [_say_best(findings, len(tested)), _say_baseline(findings), _say_power(findings)]
    return " ".join(part for part in parts if part)


def _say_order(findings: Findings) -> str:
    """Nothing was tested: one seed, or no noise to test against."""
    best, second = findings.estimates[:2]
    gap = second.adjusted_loss_nats - best.adjusted_loss_nats
    one = (
        "one seed gives no measure of chance"
        if all(e.n == 1 for e in findings.estimates)
        else ("nothing measures chance here")
    )
    return (
        f"{best.arm} has the least mean loss, {gap:.4f} nats below {second.arm}; {one}, so this is an order, "
        "not a finding."
    )


def _say_best(findings: Findings, n_pairs: int) -> str:
    """The best of the arms that could be tested, and what could not be."""
    tested = [row.arm for row in findings.estimates if row.letters]
    untested = [row.arm for row in findings.estimates if not row.letters]
    best = tested[0]
    of_best = {
        (pair.b if pair.a == best else pair.a): pair for pair in findings.pairs if best in (pair.a, pair.b)
    }
    against = {arm: of_best[arm] for arm in tested[1:]}
    behind = [arm for arm, pair in against.items() if pair.separable and pair.a == best]
    tied = [arm for arm in against if arm not in behind]
    if not any(pair.separable for pair in findings.pairs):
        who = f"no two of the {len(tested)} arms differ by more"
        if len(tested) == 2:
            who = f"{best} and {tested[1]} differ by no more"
        said = f"Not separable at this budget: {who} than chance would explain."
    elif not tied:
        pair = against[behind[0]]
        low, high = pair.ci95 or (0.0, 0.0)
        said = (
            f"{best} is the best: {-pair.difference_nats:.4f} nats below {pair.b} "
            f"(95 % interval {-high:.4f} to {-low:.4f}), separable from every other arm."
        )
    else:
        said = f"{best} has the least mean loss, but {_list(tied)} {_be(tied)} not separable from it" + (
            f"; {_list(behind)} {_be(behind)} worse." if behind else "."
        )
    if untested:
        said = f"{_list(untested)} could not be tested: too few runs. Of the others: {said}"
    return said + (f" (Holm over {n_pairs} pairs.)" if n_pairs > 1 else "")


def _say_baseline(findings: Findings) -> str:
    """Every arm against the baseline, unless that would repeat the first sentence."""
    rows = [row for row in findings.estimates if row.verdict in ("better", "worse", "not_separable")]
    if len(findings.estimates) < 3 or not rows:
        return ""
    names = {"better": "better", "not_separable": "not separable", "worse": "worse"}
    found = []
    for verdict, word in names.items():
        those = [row for row in rows if row.verdict == verdict]
        if those:
            found.append(f"{word}: {', '.join(_with_difference(those))}")
    family = f" alone (Holm over {len(rows)} arms)" if len(rows) > 1 else ""
    return f"Against {findings.baseline}{family}, {'; '.join(found)}."


def _with_difference(rows: Sequence[Estimate]) -> list[str]:
    return [f"{row.arm} ({row.difference_nats:+.4f})" for row in rows]


def _say_power(findings: Findings) -> str:
    if findings.detectable_nats is None:
        return ""
    said = f"These seeds see differences of {findings.detectable_nats:.4f} nats and more with 80 % power"
    if findings.nearest_tie is None:
        return said + "."
    a, b = findings.nearest_tie
    if findings.n_more_seeds is None:
        return f"{said}; not even 1,000 seeds would settle {a} and {b}, if they differ as measured."
    seeds = f"{findings.n_more_seeds} more seed{'s' if findings.n_more_seeds > 1 else ''} an arm"
    return f"{said}; {seeds} would settle {a} and {b}, if they differ as measured."


def _list(arms: Sequence[str]) -> str:
    return arms[0] if len(arms) == 1 else f"{', '.join(arms[:-1])} and {arms[-1]}"


def _be(arms: Sequence[str]) -> str:
    return "is" if len(arms) == 1 else "are"
