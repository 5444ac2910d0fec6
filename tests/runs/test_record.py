"""metrics.jsonl and result.json."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from glu_bench.errors import DataError
from glu_bench.runs.record import append_row, drop_rows_after, is_number, read_record, read_rows, write_record

RECORD = {"run_id": "r", "test_loss_nats": 1.25, "speed": None, "nested": {"a": [1, 2]}}


def test_a_record_comes_back_without_its_checksum(tmp_path: Path) -> None:
    write_record(tmp_path / "result.json", RECORD)
    assert read_record(tmp_path / "result.json") == RECORD


@pytest.mark.parametrize(("old", "new"), [("1.25", "1.24"), ('"r"', '"s"'), ("null", "0"), ("1,", "1, 3,")])
def test_an_edited_record_is_refused(old: str, new: str, tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    write_record(path, RECORD)
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(DataError, match="checksum"):
        read_record(path)


def test_a_record_without_checksum_or_with_an_added_key_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    path.write_text(json.dumps(RECORD))
    with pytest.raises(DataError, match="checksum"):
        read_record(path)
    write_record(path, RECORD)
    path.write_text(json.dumps({**json.loads(path.read_text()), "more": 1}))
    with pytest.raises(DataError, match="checksum"):
        read_record(path)


def test_reformatting_a_record_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    write_record(path, RECORD)
    path.write_text(json.dumps(json.loads(path.read_text()), sort_keys=True))
    assert read_record(path) == RECORD


def test_rows_come_back_in_order(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    assert read_rows(path) == []
    for step in range(3):
        append_row(path, {"step": step, "text": "ü\n\u2028"})
    assert read_rows(path) == [{"step": step, "text": "ü\n\u2028"} for step in range(3)]


@pytest.mark.parametrize("torn", ['{"step": 3, "lo', "{", '{"step"', '{"step": 3, "loss_nats": 1.', "nu"])
def test_a_torn_last_row_is_left_out_and_a_torn_middle_row_refused(torn: str, tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    append_row(path, {"step": 1})
    with path.open("a") as file:
        file.write(torn)
    assert read_rows(path) == [{"step": 1}]
    with path.open("a") as file:
        file.write("\n")
    append_row(path, {"step": 4})
    with pytest.raises(DataError, match=r"metrics\.jsonl:2"):
        read_rows(path)


def test_a_row_torn_inside_a_letter_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    append_row(path, {"step": 1})
    with path.open("ab") as file:
        file.write('{"text": "ü'.encode()[:-1])
    assert read_rows(path) == [{"step": 1}]


def test_nan_is_not_written_to_a_row(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        append_row(tmp_path / "metrics.jsonl", {"loss_nats": float("nan")})


@pytest.mark.parametrize(
    "line",
    [
        "5",
        "[1]",
        '{"loss_nats": 1}',
        '{"step": 1.5}',
        '{"step": 2, "x": NaN}',
        "[" * 5000,
        '{"a": "\\ud800"}',
    ],
)
def test_a_line_that_is_no_row_is_refused(line: str, tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    append_row(path, {"step": 1})
    path.write_text(path.read_text() + line + "\n")
    with pytest.raises(DataError, match=r"metrics\.jsonl:2"):
        read_rows(path)


def test_rows_after_a_step_are_dropped_and_the_torn_one_with_them(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    for step in range(1, 6):
        append_row(path, {"step": step})
    with path.open("a") as file:
        file.write('{"step": 6')
    drop_rows_after(path, 3)
    append_row(path, {"step": 4})
    assert [row["step"] for row in read_rows(path)] == [1, 2, 3, 4]


def test_dropping_rows_of_a_file_that_is_not_there_makes_none(tmp_path: Path) -> None:
    drop_rows_after(tmp_path / "metrics.jsonl", 0)
    assert not (tmp_path / "metrics.jsonl").exists()


BEYOND = {"huge": 10**400, "low": -(10**400), "square": 1e200, "nan": float("nan"), "inf": float("inf")}
OTHER = {"bool": True, "text": "1", "null": None, "list": [1]}


@pytest.mark.parametrize("name", [*BEYOND, *OTHER])
def test_what_cannot_be_computed_with_is_no_number(name: str) -> None:
    assert not is_number((BEYOND | OTHER)[name])


@pytest.mark.parametrize("value", [0, -3, 2.5, 1e38])
def test_a_number_is_one(value: float) -> None:
    assert is_number(value)
