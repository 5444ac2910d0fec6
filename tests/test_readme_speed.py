"""The page on speed, and what the README says of it, against the measurements that are kept beside it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.conftest import REPO

PAGE = (REPO / "outputs/reference/bench/README.md").read_text(encoding="utf-8")
README = (REPO / "README.md").read_text(encoding="utf-8")
PRESETS = {"nano model.d_model=128 model.n_heads=2": "128 × 4", "nano": "nano", "micro": "micro"}
CORE = ("swiglu", "geglu", "reglu", "glu", "bilinear", "relu", "gelu", "swish")


def read(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((REPO / "outputs/reference/bench" / f"{name}.json").read_text())
    return found


def list_cells(first: str) -> list[str]:
    """Cells of the one line of the page that begins with this one."""
    (line,) = [line for line in PAGE.splitlines() if line.startswith(f"| {first} |")]
    return [cell.strip() for cell in line.strip("|").split("|")]


def thousands(rate: float) -> str:
    return f"{rate / 1e3:.1f}k" if rate >= 1e4 else f"{rate / 1e3:.2f}k"


@pytest.mark.parametrize("preset", PRESETS)
def test_step(preset: str) -> None:
    """Against the fastest setting that ran."""
    rows = [row for row in read("step")["rows"] if row["preset"] == preset and row["peer"]]
    best = max(rows, key=lambda row: float(row["peer"]))
    cells = list_cells(PRESETS[preset])
    assert cells[1:4] == [thousands(best["ours"]), thousands(best["peer"]), f"{best['ratio']:.2f}"]
    assert cells[5] == f"{best['ours_share_of_peak']:.0%}".replace("%", " %")


@pytest.mark.parametrize("variant", CORE)
def test_feedforward(variant: str) -> None:
    rows = {row["setting"]: row for row in read("ffn")["rows"] if row["block"] == variant}
    compiled = rows["compiled"]
    assert list_cells(variant)[1:] == [
        f"{compiled['elapsed_ms']:.1f}",
        f"{compiled['share_of_peak']:.0%}".replace("%", " %"),
        f"{compiled['time_to_swiglu']:.2f}",
        f"{compiled['saved_bytes_per_token']:,.0f}",
        f"{compiled['bound_bytes_per_token']:,}",
        f"{rows['plain']['saved_bytes_per_token']:,.0f}",
    ]


def test_variants_beyond_a_tenth_are_named() -> None:
    rows = [row for row in read("variants")["rows"] if row["pointwise"]]
    beyond = [row for row in rows if row["ratio"] > 1.1]
    assert f"{len(rows) - len(beyond)} of {len(rows)} pointwise variants are within 10 %" in PAGE
    for row in beyond:
        assert f"{row['variant']} {row['ratio']:.2f}" in PAGE


def test_memory() -> None:
    rows = {row["name"]: row for row in read("memory")["rows"]}
    for seq_len in (1024, 4096):
        row = rows[f"pico, T={seq_len}, kept for backward"]
        assert f"{row['ours']:,.0f}" in PAGE
        assert f"{row['peer']:,.0f}" in PAGE
    for precision in ("bf16", "fp32"):
        ratio = rows[f"head, V=32,768, {precision}, peak"]["ratio"]
        assert ratio <= 0.4
        assert f"{ratio:.2f}" in PAGE.partition("the loss takes")[2].partition("\n")[0]


def test_light_diagnostics() -> None:
    (row,) = read("gates")["rows"]
    assert row["ratio"] < 1.02
    assert f"light costs {100 * (row['ratio'] - 1):.1f} % of a step of {row['name']}" in README


def test_profile() -> None:
    """Shares of a step by operator, and what the products alone would take."""
    found = read("profile")["profile"]
    shares = {operator["name"]: operator["share"] for operator in found["operators"]}
    weights, attention = shares["aten::mm"] + shares["aten::addmm"], shares["aten::bmm"]
    graphs = sum(share for name, share in shares.items() if "CompiledFxGraph" in name)
    step_ms = 1e3 * found["step_s"]
    for text in (
        f"({step_ms:.0f} ms,",
        f"take {weights:.0%}",
        f"products {attention:.0%}",
        f"calls {graphs:.0%}",
    ):
        assert text.replace("%", " %") in PAGE
    assert f"alone are {step_ms * (weights + attention):.0f} ms" in PAGE


def test_the_readme_says_the_same_in_short() -> None:
    ratios = []
    for preset, name in PRESETS.items():
        rows = [row for row in read("step")["rows"] if row["preset"] == preset and row["peer"]]
        ratios.append(f"{max(rows, key=lambda row: float(row['peer']))['ratio']:.2f} at {name}")
    assert f"{', '.join(ratios[:-1])} and {ratios[-1]}" in README
    rows = {row["name"]: row["ratio"] for row in read("memory")["rows"]}
    assert f"{rows['head, V=32,768, bf16, peak']:.2f} of plain PyTorch's peak" in README
