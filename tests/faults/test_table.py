"""The published table says what the tests say, and no row is missing."""

from __future__ import annotations

from tests.faults.table import GROUPS, TABLE, read_rows, read_table, row_of

N_ROWS = {"A": 12, "B": 21, "C": 11, "D": 9, "E": 15, "F": 11, "G": 14}


def test_every_row_of_the_matrix_has_a_test() -> None:
    assert set(N_ROWS) == set(GROUPS)
    expected = {f"{group}{number + 1}" for group, n_rows in N_ROWS.items() for number in range(n_rows)}
    assert expected <= {row.name for row in read_rows()}


def test_the_table_is_what_the_tests_say() -> None:
    said = [(row.name, row.injection.replace("|", "¦"), row.outcome.replace("|", "¦")) for row in read_rows()]
    assert read_table(TABLE) == said


def test_a_tests_name_gives_its_row() -> None:
    assert row_of("test_b12_a_flipped_byte[7]") == "B12"
    assert row_of("test_the_table_is_what_the_tests_say") is None
