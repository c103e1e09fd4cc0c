"""Tables: read with their line numbers, and written so that no spreadsheet calculates."""

from __future__ import annotations

from pathlib import Path

import pytest

from imgcap.errors import ImgcapError
from imgcap.text.tables import BadRow, from_cell, parse_table, scan_table, to_cell


@pytest.mark.parametrize(
    ("text", "columns", "rows"),
    [
        ("a,B\n1,2\n\n3,4\n", ["a", "b"], [(2, {"a": "1", "b": "2"}), (4, {"a": "3", "b": "4"})]),
        ('"a", b\n"x\ny, z", 2\n,\n3,4', ["a", "b"], [(2, {"a": "x\ny, z", "b": "2"}), (5, {"a": "3", "b": "4"})]),
        ("a;b\n1,5;2,5\n", ["a", "b"], [(2, {"a": "1,5", "b": "2,5"})]),
        ('a\tb\n1\t"2\t""3"""\n', ["a", "b"], [(2, {"a": "1", "b": '2\t"3"'})]),
        ('a| b\n1| "2" and 3\n', ["a", "b"], [(2, {"a": "1", "b": '"2" and 3'})]),
        (",,a\n1,2,3,,\n", ["", "", "a"], [(2, {"": "2", "a": "3"})]),
        ("a\n", ["a"], []),
        ("", [], []),
    ],
)
def test_tables_are_read_with_the_number_of_each_rows_first_line(
    text: str, columns: list[str], rows: list[tuple[int, dict[str, str]]]
) -> None:
    found, lines = parse_table(text, Path("table.csv"))
    assert (found, list(lines)) == (columns, rows)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("a,b,A\n1,2,3\n", "table.csv, line 1 names the column 'a' twice."),
        ('a,"b\n1,2\n', "table.csv, line 1 is not valid CSV: unexpected end of data."),
        ('a,b\n1,2\n\n3,"4\n5,6\n', "table.csv, line 4 is not valid CSV: unexpected end of data."),
        ('a,b\n"1\n",2\n3\n', "table.csv, line 4 has 1 of 2 columns."),
        ("a,b\n1,2,3\n", "table.csv, line 2 has 3 columns, but the header 2."),
    ],
)
def test_tables_that_are_broken_are_one_sentence(text: str, sentence: str) -> None:
    with pytest.raises(ImgcapError) as caught:
        list(parse_table(text, Path("table.csv"))[1])
    assert str(caught.value) == sentence


@pytest.mark.parametrize(
    ("value", "cell"),
    [
        ("a dog", "a dog"),
        ("=1+1", "'=1+1"),
        ("-dog", "'-dog"),
        ("@dog", "'@dog"),
        ("'dog'", "''dog'"),
        ("a;=1;'=2; 3;b", "a;'=1;''=2; 3;b"),
        ("a\n-1\r\n\t@b", "a\n'-1\r\n\t'@b"),
        ("a,=1 -2", "a,=1 -2"),
        (["a;=1"], r'["a\u003b=1"]'),
        (-0.5, "-0.5"),
        (None, ""),
        (False, ""),
        (True, "true"),
        (["a", "\u00e9"], '["a", "\u00e9"]'),
    ],
)
def test_a_cell_is_no_formula_and_its_text_comes_back(value: object, cell: str) -> None:
    assert to_cell(value) == cell
    if isinstance(value, str):
        assert from_cell(cell) == value


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("a,b\n1\n2,3\n", [(2, BadRow("has 1 of 2 columns")), (3, {"a": "2", "b": "3"})]),
        (
            "a,b\n1,2,3\n4,5\n",
            [
                (2, BadRow("has 3 columns, but the header 2", "Perhaps a cell holds a ',' without quotes around it.")),
                (3, {"a": "4", "b": "5"}),
            ],
        ),
        (
            'a,b\n1,"2\n3,4\n',
            [(2, BadRow("is not valid CSV: unexpected end of data")), (3, {"a": "3", "b": "4"})],
        ),
        (
            'a,b\n\n"x\ny",1\n2,"3" 4\n5,6\n',
            [
                (3, {"a": "x\ny", "b": "1"}),
                (5, BadRow("is not valid CSV: ',' expected after '\"'")),
                (6, {"a": "5", "b": "6"}),
            ],
        ),
    ],
)
def test_a_bad_row_hides_none_of_the_others(text: str, rows: list[tuple[int, object]]) -> None:
    assert list(scan_table(text, Path("table.csv"))[1]) == rows
