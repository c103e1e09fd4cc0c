"""Tables as text: CSV and its kin, read with the line of each row, and cells that no spreadsheet calculates."""

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
"""Places before which a spreadsheet may begin a formula: the start of a cell, and inside it what another separator than
the comma, or a quotation mark that is not understood, makes the start of one."""
_SHIELD = re.compile(r"^'(?=['=+\-@\t\r\n\0])|(?<=[;\t\r\n])'(?=['=+\-@\0])")
"""The apostrophes that stand there."""
_HALF = re.compile("[\ud800-\udc7f\udd00-\udfff]")
"""Halves of characters, but those that stand for a byte of a file name: no encoding can write them."""


@dataclass(frozen=True)
class BadRow:
    """A row that does not fit the header; the reason follows the line's name: "has 2 of 3 columns"."""

    reason: str
    hint: str = ""


Row = dict[str, str]
"""The cells of a row, by column."""


def parse_table(text: str, path: Path) -> tuple[list[str], Iterator[tuple[int, Row]]]:
    """Lower-case column names, then the first line's number and the cells of each row that is not blank.

    `text` is the content of `path`, a header and rows with commas, tabs, semicolons or bars between the cells. Raises
    `ImgcapError` naming the first bad row.
    """
    columns, scanned = scan_table(text, path)

    def rows() -> Iterator[tuple[int, Row]]:
        for line, row in scanned:
            if isinstance(row, BadRow):
                raise ImgcapError(f"{path}, line {line} {row.reason}.", row.hint)
            yield line, row

    return columns, rows()


def scan_table(text: str, path: Path) -> tuple[list[str], Iterator[tuple[int, Row | BadRow]]]:
    """Like `parse_table`, but a bad row takes its place among the others. Raises `ImgcapError` for a bad header."""
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
    """The number of the first line and the cells of each record; after a broken record, the next line begins one."""
    # Flickr30k's table, the one with bars, has quotation marks in its captions and none around them.
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
    """`value` as a CSV cell: text as it is, all else as JSON, and nothing that a spreadsheet takes for a formula.

    An apostrophe stands before what it would take for one. Half a character, which only a damaged or hostile file
    holds, becomes U+FFFD.
    """
    if value is None or value is False:
        return ""
    if isinstance(value, str):
        return _FORMULA.sub("'", _HALF.sub("\ufffd", value))
    return _HALF.sub("\ufffd", json.dumps(value, ensure_ascii=False)).replace(";", r"\u003b")


def from_cell(text: str) -> str:
    """The text that `to_cell` made the cell of."""
    return _SHIELD.sub("", text)
