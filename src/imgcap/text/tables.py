"""Read tables (CSV and similar) with line numbers, and write cells that no spreadsheet takes for formulas."""

from __future__ import annotations

import csv
import io
import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from imgcap.errors import ImgcapError

_FORMULA = re.compile(r"^(?=['=+\-@\t\r\n\0])|(?<=[;\t\r\n])(?=['=+\-@\0])")
"""Positions where a spreadsheet may see a formula: the start of a cell, and positions inside it that start a cell if
the spreadsheet expects another separator, or ignores quotation marks."""
_SHIELD = re.compile(r"^'(?=['=+\-@\t\r\n\0])|(?<=[;\t\r\n])'(?=['=+\-@\0])")
"""Apostrophes at these positions."""
_HALF = re.compile("[\ud800-\udc7f\udd00-\udfff]")
"""Surrogates, which no encoding can write, except those that stand for a byte of a file name."""


@dataclass(frozen=True)
class BadRow:
    """A row that does not fit the header, and why: "has 2 of 3 columns" continues a sentence that names the line."""

    reason: str
    hint: str = ""


Row = dict[str, str]
"""The cells of a row, by column."""


def parse_table(text: str, path: Path) -> tuple[list[str], Iterator[tuple[int, Row]]]:
    """Lower-case column names, and the rows that are not blank, each with the number of its first line.

    `text` is the content of `path`: a header and rows, with cells separated by commas, tabs, semicolons or bars.
    Raises `ImgcapError` naming the first bad row.
    """
    columns, scanned = scan_table(text, path)

    def rows() -> Iterator[tuple[int, Row]]:
        for line, row in scanned:
            if isinstance(row, BadRow):
                raise ImgcapError(f"{path}, line {line} {row.reason}.", row.hint)
            yield line, row

    return columns, rows()


def scan_table(text: str, path: Path) -> tuple[list[str], Iterator[tuple[int, Row | BadRow]]]:
    """Like `parse_table`, with a `BadRow` in the place of a bad row. Raises `ImgcapError` for a bad header."""
    header = text.partition("\n")[0]
    delimiter = max(",\t;|", key=header.count)
    records = _records(text, delimiter)
    line, cells = next(records, (1, []))
    if isinstance(cells, BadRow):
        raise ImgcapError(f"{path}, line {line} {cells.reason}.", cells.hint)
    columns = [name.strip().lower() for name in cells]
    doubled = [name for name, count in Counter(columns).items() if name and count > 1]
    if doubled:
        raise ImgcapError(f"{path}, line 1 names the column {doubled[0]!r} twice.", "Give each column its own name.")
    found = ((line, cells) for line, cells in records if isinstance(cells, BadRow) or any(cells))
    return columns, ((line, _row(cells, columns, delimiter)) for line, cells in found)


def _row(cells: list[str] | BadRow, columns: list[str], delimiter: str) -> Row | BadRow:
    if isinstance(cells, BadRow):
        return cells
    if len(cells) < len(columns):
        return BadRow(f"has {len(cells)} of {len(columns)} columns")
    if any(cells[len(columns) :]):
        hint = f"Perhaps a cell holds a {delimiter!r} without quotes around it."
        return BadRow(f"has {len(cells)} columns, but the header {len(columns)}", hint)
    return dict(zip(columns, cells, strict=False))


def _records(text: str, delimiter: str) -> Iterator[tuple[int, list[str] | BadRow]]:
    """The first line number and the cells of each record. After a broken record, a new one starts at the next line."""
    # Flickr30k's table, separated by bars, has quotation marks inside captions but none around them.
    quoting: Literal[0, 3] = csv.QUOTE_NONE if delimiter == "|" else csv.QUOTE_MINIMAL
    lines = list(io.StringIO(text, newline=""))
    begin = 0
    while begin < len(lines):
        rest = map(lines.__getitem__, range(begin, len(lines)))
        reader = csv.reader(rest, delimiter=delimiter, quoting=quoting, strict=True, skipinitialspace=True)
        done = 0
        try:
            for cells in reader:
                yield begin + done + 1, cells
                done = reader.line_num
            begin = len(lines)
        except csv.Error as error:
            yield begin + done + 1, BadRow(f"is not valid CSV: {error}")
            begin += done + 1


def to_cell(value: object) -> str:
    """`value` as a CSV cell that no spreadsheet takes for a formula: text as it is, other values as JSON.

    An apostrophe is put before what looks like a formula. Surrogates that cannot be written become U+FFFD.
    """
    if value is None or value is False:
        return ""
    if isinstance(value, str):
        return _FORMULA.sub("'", _HALF.sub("\ufffd", value))
    return _HALF.sub("\ufffd", json.dumps(value, ensure_ascii=False)).replace(";", r"\u003b")


def from_cell(text: str) -> str:
    """The text from which `to_cell` made the cell."""
    return _SHIELD.sub("", text)
