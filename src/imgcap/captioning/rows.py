"""Captions as rows: what is told of each image, written as text, JSON Lines, JSON or CSV."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar, TextIO

from imgcap.captioning.captioner import Caption, Captioner, Wording
from imgcap.errors import ImgcapError, UsageError, printable
from imgcap.files import SURROGATES, make_folder, read_json_lines, read_text, reason, replacing, sha256
from imgcap.model.encoder import FLOAT32
from imgcap.model.search import SearchOptions
from imgcap.text.tables import from_cell, to_cell

Row = dict[str, Any]

STDIN = "-"
"""Path of the image that came on standard input."""
NOT_WRITTEN = "not written"
"""Kind of a failure after the caption was made."""

_DIGITS = 3
"""Digits after the point that do not depend on which images were computed together."""


@dataclass(frozen=True)
class RowOptions:
    """What rows hold. Raises `UsageError` for values that make no sense."""

    prefix: str = ""
    suffix: str = ""
    trigger: str = ""
    """A word that stands before each caption, with a comma, as fine-tuning of image generators wants it."""
    min_confidence: float = 0.0
    """Captions with less confidence are withheld."""
    words: bool = False
    """Whether each word's probability is told."""
    by_content: bool = False
    """Whether the SHA-256 of each image is told."""

    def __post_init__(self) -> None:
        if not 0 <= self.min_confidence <= 1:
            raise UsageError(f"The lowest confidence must be between 0 and 1, not {self.min_confidence}.")

    def wrap(self, text: str) -> str:
        """`text` with what the user wants around it."""
        return f"{self.trigger + ', ' if self.trigger else ''}{self.prefix}{text}{self.suffix}"


@dataclass(frozen=True)
class FileState:
    """What tells whether an image is still the one that was captioned."""

    bytes: int | None = None
    modified: int | None = None
    """Nanoseconds since 1970; None for a file in an archive, and both for what is no file that can be seen."""
    sha256: str | None = None
    """None if it was not asked for."""

    @classmethod
    def of(cls, path: str | None, by_content: bool = False) -> FileState:
        if path is None or path == STDIN:
            return cls()
        try:
            stat = Path(path).stat()
            digest = sha256(Path(path)) if by_content and Path(path).is_file() else None
        except (OSError, ValueError):  # gone, or a name that no file can have
            return cls()
        return cls(stat.st_size, stat.st_mtime_ns, digest)

    @classmethod
    def from_row(cls, row: Row) -> FileState:
        return cls(row.get("bytes"), row.get("modified"), row.get("sha256"))

    def same_image(self, other: FileState) -> bool:
        """By content where both know it, else by size and time."""
        if self.sha256 and other.sha256:
            return self.sha256 == other.sha256
        return (self.bytes, self.modified) == (other.bytes, other.modified)


def make_origin(captioner: Captioner, search: SearchOptions, options: RowOptions) -> dict[str, str]:
    """What names the model and the settings in each row; rows with equal origin can stand in one file."""
    always = {"beam_size", "length_penalty"}
    settings = {k: v for k, v in asdict(search).items() if k in always or v != getattr(SearchOptions(), k)}
    changed = {k: v for k, v in asdict(options).items() if v != getattr(RowOptions(), k)}
    if captioner.encoder.precision != FLOAT32:
        settings["precision"] = captioner.encoder.precision
    return {
        "model": captioner.model.config.name,
        "model_hash": captioner.model.hash,
        "settings": " ".join(f"{name}={json.dumps(value)}" for name, value in (settings | changed).items()),
    }


def make_row(caption: Caption, options: RowOptions, origin: dict[str, str]) -> Row:
    """The row of one image; `origin` names the model and the settings, and stands in each row."""
    row: Row = {"path": caption.path or STDIN}
    if caption.error:
        row |= {"error": str(caption.error), "error_kind": caption.error.kind}
    else:
        confidence = caption.confidence
        withheld = confidence is not None and confidence < options.min_confidence
        best, *others = caption.wordings
        row |= {"caption": "" if withheld else options.wrap(best.text), **_figures(best)}
        if withheld:
            row["withheld"] = True
        elif options.words:
            row["words"] = [[word, round(probability, _DIGITS)] for word, probability in best.words]
        if others and not withheld:
            row["alternatives"] = [{"caption": options.wrap(w.text), **_figures(w)} for w in others]
    if explanation := caption.explanation:
        row |= {
            "nearest": [[name, round(similarity, _DIGITS)] for name, similarity in explanation.nearest],
            "verbatim": explanation.verbatim,
            "distance": round(explanation.distance, _DIGITS),
            "percentile": round(explanation.percentile, _DIGITS),
        }
        if explanation.warning:
            row["warning"] = explanation.warning
    return row | origin


def _figures(wording: Wording) -> Row:
    confidence = wording.confidence
    return {
        "confidence": None if confidence is None else round(confidence, _DIGITS),
        "log_probability": round(wording.log_probability, _DIGITS),
    }


def with_state(row: Row, state: FileState) -> Row:
    """`row` with the state of its image's file, by which a later run knows the image again."""
    row = row | {"bytes": state.bytes, "modified": state.modified}
    return row | {"sha256": state.sha256} if state.sha256 else row


class RowWriter:
    """Writes rows to an open text stream, each whole as soon as it is there."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    def begin(self) -> None:
        """Write what stands before the rows; not called where a file goes on."""

    def write(self, row: Row) -> None:
        raise NotImplementedError

    def end(self) -> None:
        """Write what stands after the rows."""


class TextWriter(RowWriter):
    """Path, tab, caption for people and for `cut`; images without a caption leave no line."""

    def __init__(self, stream: TextIO, bare: bool = False) -> None:
        super().__init__(stream)
        self.bare = bare
        """Whether the path is left out."""

    def write(self, row: Row) -> None:
        captions = [row.get("caption"), *(other["caption"] for other in row.get("alternatives", ()))]
        start = "" if self.bare else printable(row["path"]) + "\t"
        lines = [f"{start}{printable(caption)}" for caption in captions if caption]
        if row.get("words"):
            lines.append("  words: " + ", ".join(f"{printable(word)} {p:.2f}" for word, p in row["words"]))
        if "nearest" in row:
            nearest = ", ".join(f"{printable(name)} {similarity:.2f}" for name, similarity in row["nearest"])
            lines.append(f"  nearest training images: {nearest}")
            if row["verbatim"]:
                lines.append("  this caption stands verbatim in the training captions")
            distance = f"farther from them than {row['percentile']:.0%} of the val images"
            lines.append(f"  {row.get('warning', distance)}")
        self.stream.writelines(line + "\n" for line in lines)


class JsonLinesWriter(RowWriter):
    """One JSON object a line."""

    def write(self, row: Row) -> None:
        self.stream.write(json.dumps(row, ensure_ascii=False) + "\n")


class JsonWriter(RowWriter):
    """One JSON array, an object a line."""

    def begin(self) -> None:
        self.stream.write("[")
        self._separator = "\n"

    def write(self, row: Row) -> None:
        self.stream.write(self._separator + json.dumps(row, ensure_ascii=False))
        self._separator = ",\n"

    def end(self) -> None:
        self.stream.write("\n]\n")


class CsvWriter(RowWriter):
    """Comma-separated values as in RFC 4180; lists stand in their cells as JSON.

    Before what a spreadsheet would take for a formula stands an apostrophe, which `read_rows` takes away again.
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


FORMATS: dict[str, type[RowWriter]] = {
    "text": TextWriter,
    "jsonl": JsonLinesWriter,
    "json": JsonWriter,
    "csv": CsvWriter,
}


@contextmanager
def open_rows(
    output: Path | TextIO, format_name: str, *, bare: bool = False, append: bool = False, overwrite: bool = False
) -> Iterator[RowWriter]:
    """A writer of rows to a stream or a file. Raises `ImgcapError` if the file is there already or cannot be written.

    Rows reach the file as they come, but a JSON array appears when it is whole. With `append`, rows go on after those
    that are there.
    """
    there = isinstance(output, Path) and os.path.exists(output)  # noqa: PTH110 (a Path raises for names too long)
    if there and not (append or overwrite):
        raise ImgcapError(
            f"{output} is there already.", "Go on with --resume (JSON Lines), replace it with --overwrite."
        )
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
    try:
        # A whole JSON array or none; of the other formats each line stands for itself.
        with replacing(file) if format_name == "json" else nullcontext(file) as path:  # noqa: SIM117
            with path.open("a" if append else "w", encoding="utf-8", errors=errors, newline="") as stream:
                yield stream
    except OSError as error:
        raise ImgcapError(f"{file} cannot be written: {reason(error)}.") from None


def read_rows(file: Path) -> Iterator[Row]:
    """Rows of a .jsonl or .csv file, perhaps corrected by hand. Raises `ImgcapError` naming a broken one."""
    ending = file.suffix.lower()
    if ending == ".csv":
        rows: Iterator[tuple[int, Any]] = _read_csv(file)
    elif ending == ".jsonl":
        rows = read_json_lines(file)
    else:
        raise UsageError(f"{file} is neither .jsonl nor .csv.", "Write captions with `imgcap caption -o FILE.jsonl`.")
    for number, row in rows:
        if not isinstance(row, dict) or not isinstance(row.get("path"), str):
            raise ImgcapError(f"{file}, line {number} names no path.")
        if not isinstance(row.get("caption") or "", str):
            raise ImgcapError(f"{file}, line {number} has a caption that is no text.")
        yield row


def _read_csv(file: Path) -> Iterator[tuple[int, Row]]:
    lines = io.StringIO(read_text(file, errors="surrogateescape", newline=""), newline="")
    delimiter = max(",;\t", key=lines.readline().count)  # spreadsheets save with the one of their language
    lines.seek(0)
    reader = csv.DictReader(lines, delimiter=delimiter)
    try:
        if "path" not in (reader.fieldnames or ()) or "caption" not in (reader.fieldnames or ()):
            raise ImgcapError(f"{file} has no columns `path` and `caption`.", "Keep the first line as it was written.")
        for row in reader:
            yield reader.line_num, {name: from_cell(value) for name, value in row.items() if isinstance(value, str)}
    except csv.Error as error:
        raise ImgcapError(f"{file}, line {reader.line_num} is not valid CSV: {error}.") from None
