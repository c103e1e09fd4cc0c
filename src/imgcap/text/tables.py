"""Tables as text: CSV and its kin, read with the line of each row, and cells that no spreadsheet calculates."""

from __future__ import annotations

import csv
import io
import json
import re
from collections import Counter
from collections.abc import Iterator
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


def parse_table(text: str, path: Path) -> tuple[list[str], Iterator[tuple[int, dict[str, str]]]]:
    """Lower-case column names, then the first line's number and the cells of each row that is not blank.

    `text` is the content of `path`, a header and rows with commas, tabs, semicolons or bars between the cells. Raises
    `ImgcapError` naming the line that is broken.
    """
    header = text.partition("\n")[0]
    delimiter = max(",\t;|", key=header.count)
    records = _records(text, delimiter, path)
    columns = [name.strip().lower() for name in next(records, (1, []))[1]]
    doubled = [name for name, count in Counter(columns).items() if name and count > 1]
    if doubled:
        raise ImgcapError(f"{path}, line 1 names the column {doubled[0]!r} twice.", "Give each column its own name.")

    def rows() -> Iterator[tuple[int, dict[str, str]]]:
        for line, cells in records:
            if not any(cells):
                continue
            if len(cells) < len(columns):
                raise ImgcapError(f"{path}, line {line} has {len(cells)} of {len(columns)} columns.")
            if any(cells[len(columns) :]):
                raise ImgcapError(
                    f"{path}, line {line} has {len(cells)} columns, but the header {len(columns)}.",
                    f"Perhaps a cell holds a {delimiter!r} without quotes around it.",
                )
            yield line, dict(zip(columns, cells, strict=False))

    return columns, rows()


def _records(text: str, delimiter: str, path: Path) -> Iterator[tuple[int, list[str]]]:
    # Flickr30k's table, the one with bars, has quotation marks in its captions and none around them.
    quoting: Literal[0, 3] = csv.QUOTE_NONE if delimiter == "|" else csv.QUOTE_MINIMAL
    lines = io.StringIO(text, newline="")
    reader = csv.reader(lines, delimiter=delimiter, quoting=quoting, strict=True, skipinitialspace=True)
    line = 1
    try:
        for cells in reader:
            yield line, cells
            line = reader.line_num + 1
    except csv.Error as error:
        raise ImgcapError(f"{path}, line {line} is not valid CSV: {error}.") from None


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
