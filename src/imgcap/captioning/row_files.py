"""Files of rows: written as text, JSON Lines, JSON or CSV, and read again from JSON Lines and CSV."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any, ClassVar, Literal, TextIO

from imgcap.captioning.rows import Row
from imgcap.errors import ImgcapError, UsageError, is_unicode, printable
from imgcap.files import SURROGATES, make_folder, read_json_lines, read_text, replacing, writing
from imgcap.text.tables import from_cell, to_cell


class RowWriter:
    """Writes rows to an open text stream; subclasses define the format."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    def begin(self) -> None:
        """Write what comes before the first row; not called when rows are appended."""

    def write(self, row: Row) -> None:
        raise NotImplementedError

    def end(self) -> None:
        """Write what comes after the last row."""


class TextWriter(RowWriter):
    """Path, tab and caption, one line for each caption; an image without a caption has no line."""

    def __init__(self, stream: TextIO, bare: bool = False) -> None:
        super().__init__(stream)
        self.bare = bare
        """Leave out the path."""

    def write(self, row: Row) -> None:
        captions = [row.get("caption"), *(other["caption"] for other in row.get("alternatives", ()))]
        start = "" if self.bare else printable(row["path"]) + "\t"
        lines = [f"{start}{printable(caption)}" for caption in captions if caption]
        if not lines:
            return
        if row.get("words"):
            lines.append("  words: " + ", ".join(f"{printable(word)} {p:.2f}" for word, p in row["words"]))
        if "nearest" in row:
            nearest = ", ".join(f"{printable(name)} {similarity:.2f}" for name, similarity in row["nearest"])
            lines.append(f"  nearest in the model's training data: {nearest}")
            if row["verbatim"]:
                lines.append("  this caption stands verbatim in the training captions")
            if "warning" in row:
                lines.append(f"  {row['warning']}")
            elif row["percentile"] is not None:
                lines.append(f"  farther from the training images than {row['percentile']:.0%} of the val images")
        self.stream.writelines(line + "\n" for line in lines)


class JsonLinesWriter(RowWriter):
    """One JSON object a line."""

    def write(self, row: Row) -> None:
        self.stream.write(json.dumps(row, ensure_ascii=False) + "\n")


class JsonWriter(RowWriter):
    """One JSON array, with one object a line."""

    def begin(self) -> None:
        self.stream.write("[")
        self._separator = "\n"

    def write(self, row: Row) -> None:
        self.stream.write(self._separator + json.dumps(row, ensure_ascii=False))
        self._separator = ",\n"

    def end(self) -> None:
        self.stream.write("\n]\n")


class CsvWriter(RowWriter):
    """Comma-separated values as in RFC 4180; lists are JSON in their cells.

    An apostrophe precedes what a spreadsheet would take for a formula; `read_rows` removes it.
    """

    COLUMNS: ClassVar = (
        *("path", "caption", "confidence", "log_probability", "withheld", "error", "error_kind", "words"),
        *("alternatives", "nearest", "verbatim", "distance", "percentile", "warning", "description"),
        *("model", "model_hash", "settings", "bytes", "modified", "sha256"),
    )

    def begin(self) -> None:
        csv.writer(self.stream).writerow(self.COLUMNS)

    def write(self, row: Row) -> None:
        csv.writer(self.stream).writerow([to_cell(row.get(name)) for name in self.COLUMNS])


_SAVE_AS_UTF8 = "Save it as UTF-8; in a spreadsheet, choose the file type CSV UTF-8."

FORMATS: dict[str, type[RowWriter]] = {
    "text": TextWriter,
    "jsonl": JsonLinesWriter,
    "json": JsonWriter,
    "csv": CsvWriter,
}

_BY_ENDING = {"": "text", ".txt": "text", ".tsv": "text", ".jsonl": "jsonl", ".json": "json", ".csv": "csv"}
PAGE_ENDINGS = (".htm", ".html")


def format_of(file: Path, given: str | None = None) -> str:
    """The format of rows in `file`: the `given` one, or what its ending stands for.

    Raises `UsageError` for a folder, for the ending of a page, which rows are in no format, and for one that stands for
    no format.
    """
    if file.is_dir():
        raise UsageError(f"{file} is a folder, but --output writes a file.", f"For example -o {file / 'captions.csv'}.")
    ending = file.suffix.lower()
    if ending in PAGE_ENDINGS:
        raise UsageError(
            f"{file} would be a web page, but --output writes rows.",
            f"Write a page with --html {file}, or rows to a file such as {file.with_suffix('.csv')}.",
        )
    if given:
        return given
    if ending not in _BY_ENDING:
        known = ", ".join(filter(None, _BY_ENDING))
        raise UsageError(
            f"The ending of {file} stands for no format of rows.",
            f"Use one of {known}, or say what to write with --format {'|'.join(FORMATS)}.",
        )
    return _BY_ENDING[ending]


@contextmanager
def open_rows(
    output: Path | TextIO, format_name: str, *, bare: bool = False, append: bool = False, overwrite: bool = False
) -> Iterator[RowWriter]:
    """A writer of rows to a stream or a file. Raises `ImgcapError` if the file exists already or cannot be written.

    Rows reach the file as they are written, except that a JSON array appears when it is complete. With `append`, rows
    follow those in the file.
    """
    exists = isinstance(output, Path) and os.path.exists(output)  # noqa: PTH110 (a Path raises for names too long)
    if exists and not (append or overwrite):
        raise ImgcapError(f"{output} already exists.", "Continue it with --resume (JSON Lines), or add --overwrite.")
    opened: AbstractContextManager[TextIO] = (
        _open(output, format_name, append) if isinstance(output, Path) else nullcontext(output)
    )
    with opened as stream:
        writer = TextWriter(stream, bare) if format_name == "text" else FORMATS[format_name](stream)
        if not append:
            writer.begin()
        try:
            yield writer
        finally:
            writer.end()


@contextmanager
def _open(file: Path, format_name: str, append: bool) -> Iterator[TextIO]:
    make_folder(file.absolute().parent)
    errors = "surrogateescape" if format_name == "csv" else SURROGATES
    # A JSON array is valid only as a whole; in the other formats each line is valid on its own.
    target = replacing(file) if format_name == "json" else nullcontext(file)
    mode: Literal["a", "w"] = "a" if append else "w"
    with writing(file), target as path, path.open(mode, encoding="utf-8", errors=errors, newline="") as stream:
        yield stream


def read_rows(file: Path) -> Iterator[Row]:
    """Rows of a .jsonl or .csv file, which may have been edited. Raises `ImgcapError` naming an invalid line.

    Paths may have bytes that are not UTF-8, as file names may; captions may not.
    """
    suffix = file.suffix.lower()
    if suffix == ".csv":
        rows: Iterator[tuple[int, Any]] = _read_csv(file)
    elif suffix == ".jsonl":
        rows = read_json_lines(file)
    else:
        raise UsageError(f"{file} is neither .jsonl nor .csv.", "Write captions with `imgcap caption -o FILE.jsonl`.")
    for number, row in rows:
        if not isinstance(row, dict) or not isinstance(row.get("path"), str):
            raise ImgcapError(f"{file}, line {number} has no path.")
        caption = row.get("caption") or ""
        if not isinstance(caption, str):
            raise ImgcapError(f"{file}, line {number} has a caption that is not text.")
        if not is_unicode(caption):
            raise ImgcapError(f"{file}, line {number} has a caption that is not UTF-8 text.", _SAVE_AS_UTF8)
        yield row


def _read_csv(file: Path) -> Iterator[tuple[int, Row]]:
    lines = io.StringIO(read_text(file, errors="surrogateescape", newline=""), newline="")
    delimiter = max(",;\t", key=lines.readline().count)  # a spreadsheet saves with the delimiter of its language
    lines.seek(0)
    reader = csv.DictReader(lines, delimiter=delimiter)
    try:
        if "path" not in (reader.fieldnames or ()) or "caption" not in (reader.fieldnames or ()):
            raise ImgcapError(f"{file} has no columns `path` and `caption`.", "Keep the first line as imgcap wrote it.")
        for row in reader:
            yield reader.line_num, {name: from_cell(value) for name, value in row.items() if isinstance(value, str)}
    except csv.Error as error:
        raise ImgcapError(f"{file}, line {reader.line_num} is not valid CSV: {error}.") from None
