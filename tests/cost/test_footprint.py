"""Peak memory of a step, in bytes that were asked for."""

from __future__ import annotations

import pytest
import torch

from glu_bench.cost.footprint import measure_peak_bytes


def test_what_is_alive_at_once_counts() -> None:
    """1000 and 500 numbers live together, 400 more only after the 1000 are gone."""
    kept_before = torch.ones(10_000)

    def step() -> None:
        a = torch.ones(1000)
        b = torch.ones(500)
        del a
        c = torch.ones(400)
        assert len(kept_before) + len(b) + len(c) == 10_900

    assert measure_peak_bytes(step, "cpu") == 4 * 1500
    assert measure_peak_bytes(step, "cpu") == 4 * 1500


def test_nothing_is_said_on_stderr(capfd: pytest.CaptureFixture[str]) -> None:
    measure_peak_bytes(lambda: None, "cpu")
    assert capfd.readouterr().err == ""
