"""Text from strangers in tables: a spreadsheet shows it and never calculates it."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imgcap.captioning.row_files import open_rows, read_rows
from imgcap.scoring.evaluation import evaluate
from imgcap.scoring.image_scores import image_rows, write_image_rows
from imgcap.text.tables import from_cell, to_cell

FORMULAS = [
    "=cmd|' /C calc'!A0",
    "+1+1",
    "-2+3",
    "@SUM(A1)",
    "\t=1",
    "\r=1",
    "\n=1",
    "\0=1",
    '=HYPERLINK("http://x","y")',
    "'=1",
]
LATER_FORMULAS = ["a;=1", "a;'=1", "a;\t;-1", "two\n+1", "a\r@b", "a\r\n=1", "a\t=1", ";\0=1"]
"""Formulas to a spreadsheet that splits at semicolons or tabs, or ends the row inside of quotation marks."""
everything = settings(max_examples=100, derandomize=True, database=None, deadline=None)
texts = st.text(st.characters(codec=None, categories=None), max_size=40)


@pytest.mark.parametrize("formula", FORMULAS, ids=ascii)
def test_no_cell_of_rows_is_a_formula(tmp_path: Path, formula: str) -> None:
    row = {"path": formula, "caption": formula, "error": formula, "warning": formula, "model": formula}
    with open_rows(tmp_path / "a.csv", "csv") as writer:
        writer.write({**row, "words": [[formula, 0.5]], "confidence": -0.5})
    with (tmp_path / "a.csv").open(encoding="utf-8", newline="") as file:
        names, cells = csv.reader(file)
    for name, cell in zip(names, cells, strict=True):
        assert name == "confidence" or not cell.startswith(("=", "+", "-", "@", "\t", "\r", "\n", "\0"))
    if "\0" not in formula:  # which no file of text holds
        [found] = read_rows(tmp_path / "a.csv")
        assert found["caption"] == found["path"] == formula


def splits(text: str) -> set[str]:
    """Every part that a spreadsheet could take for a cell, with whatever separator."""
    return {part for separator in (",", ";", "\t", "\r", "\n", "[;\t\r\n]") for part in re.split(separator, text)}


@pytest.mark.parametrize("formula", LATER_FORMULAS, ids=ascii)
def test_no_other_separator_makes_a_formula(tmp_path: Path, formula: str) -> None:
    with open_rows(tmp_path / "a.csv", "csv") as writer:
        writer.write({"path": formula, "caption": formula, "words": [[formula, 0.5]], "confidence": 0.5})
    text = (tmp_path / "a.csv").read_bytes().decode()
    assert not [part for part in splits(text) if part.startswith(("=", "+", "-", "@", "\0"))]
    if "\0" not in formula:
        [found] = read_rows(tmp_path / "a.csv")
        assert found["caption"] == found["path"] == formula
        assert json.loads(found["words"]) == [[formula, 0.5]]


def test_no_cell_of_scores_is_a_formula(tmp_path: Path) -> None:
    references = [["a dog", formula] for formula in FORMULAS]
    rows = image_rows(FORMULAS, FORMULAS, references, evaluate(FORMULAS, references))
    write_image_rows(tmp_path / "a.csv", rows)
    with (tmp_path / "a.csv").open(encoding="utf-8", newline="") as file:
        _, *lines = csv.reader(file)
    assert len(lines) == len(FORMULAS)
    assert all(re.match("[^=+@\t\r\n\0-]|-?[0-9.]+$", cell) for cells in lines for cell in cells if cell)


@everything
@given(texts)
def test_any_text_comes_back_from_a_cell_but_for_half_characters(text: str) -> None:
    assert from_cell(to_cell(text)) == re.sub("[\ud800-\udc7f\udd00-\udfff]", "\ufffd", text)


def test_half_characters_do_not_stop_a_table(tmp_path: Path) -> None:
    with open_rows(tmp_path / "a.csv", "csv") as writer:
        writer.write({"path": "\udcff.jpg", "caption": "a \ud83d dog", "nearest": [["\udfff.jpg", 0.5]]})
    assert b"\xff.jpg,a \xef\xbf\xbd dog," in (tmp_path / "a.csv").read_bytes()
    [row] = read_rows(tmp_path / "a.csv")
    assert row["path"] == "\udcff.jpg"  # as the file is named
