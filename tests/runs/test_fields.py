"""What may stand in a record's fields."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from glu_bench.errors import DataError
from glu_bench.runs.fields import (
    COMPARED,
    ENVIRONMENT,
    FAILURE,
    RESULT,
    SHOWN,
    STATE,
    TUNING,
    check_fields,
)
from glu_bench.runs.folder import Run

HERE = Path("record.json")


@pytest.mark.parametrize(
    "kinds", [RESULT, ENVIRONMENT, FAILURE, STATE], ids=["result", "place", "end", "state"]
)
def test_no_field_takes_what_nobody_can_compute_with(kinds: dict[str, Any]) -> None:
    for name in kinds:
        for value in ([{"a": 1}], {"a": [1]}, 10**400, -1e200, float("nan")):
            with pytest.raises(DataError, match=rf"record\.json: {name} is "):
                check_fields(HERE, {name: value}, kinds)


@pytest.mark.parametrize(
    ("name", "value"),
    [("tokens", 0), ("tokens", True), ("tokens", 1.5), ("seed", -1), ("tokens_per_s", 0.0), ("exact", 1)],
)
def test_a_number_of_another_kind_is_refused(name: str, value: object) -> None:
    with pytest.raises(DataError, match=name):
        check_fields(HERE, {name: value}, RESULT)


@pytest.mark.parametrize("name", [*COMPARED, *SHOWN])
def test_a_field_that_is_needed_must_be_there(name: str, finished_run: Run) -> None:
    record = finished_run.result((*COMPARED, *SHOWN))
    del record[name]
    with pytest.raises(DataError, match=f"has no {name}"):
        check_fields(HERE, record, RESULT, (*COMPARED, *SHOWN))


@pytest.mark.parametrize(
    "runs", [{"r": 1}, {"r": {"keys": ["optim.lr"]}}, {"r": {"keys": "optim.lr", "edges": {}}}, ["r"]]
)
def test_a_tuning_that_is_none_is_refused(runs: object) -> None:
    with pytest.raises(DataError, match="runs"):
        check_fields(HERE, {"runs": runs}, TUNING)


def test_fields_that_nobody_knows_are_let_be() -> None:
    check_fields(HERE, {"later": [1, {"a": None}]}, RESULT)
