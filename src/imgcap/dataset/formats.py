"""Caption files in the formats that people have: one reader a format, and the detection of the format.

A reader turns a file or folder into its captions, in order. A row that cannot be used becomes a `LeftOut` in its place;
only a file that is wrong as a whole raises `ImgcapError`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from imgcap.dataset.parquet import read_parquet
from imgcap.dataset.records import Entry, LeftOut
from imgcap.dataset.rows import RowError, entries_of_object, entries_of_row, name_of, split_of, texts_of
from imgcap.dataset.splits import known_split
from imgcap.errors import ImgcapError, listing
from imgcap.files import parse_json_line, read_json, read_text
from imgcap.images.discovery import is_image_name
from imgcap.text.columns import DETECTED, Columns, cell_captions
from imgcap.text.tables import BadRow, from_cell, scan_table

_DELIMITERS = ",\t;|"
_NUMBERED_LINE = re.compile(r"[^\t]+#\d+\t")
_LINES_TO_DETECT = 20
"""Lines of a text that are looked at, so that a broken first line hides no format."""


def read_flickr8k(file: Path) -> Iterator[Entry | LeftOut]:
    """Lines `NAME.jpg#K<TAB>caption`, as in Flickr8k.token.txt (Hodosh et al. 2013), or `NAME.jpg<TAB>caption`."""
    lines = [(number, line) for number, line in enumerate(read_text(file).split("\n"), 1) if line.strip()]
    numbered = any(_NUMBERED_LINE.match(line) for _, line in lines)
    for number, line in lines:
        place, (name, tab, caption) = f"{file.name}, line {number}", line.partition("\t")
        match = re.fullmatch(r"(.+)#\d+", name)
        if not tab or not name or (numbered and not match):
            yield LeftOut(place, f"is not NAME.jpg{'#K' if numbered else ''}<TAB>caption")
        else:
            yield Entry(match[1] if numbered and match else name, caption, place=place)


def read_csv(file: Path, columns: Columns = DETECTED) -> Iterator[Entry | LeftOut]:
    """A table with a header: an image column, a caption column or several, perhaps a split column."""
    yield from _table_entries(file, columns, file.name)


def _table_entries(file: Path, columns: Columns, label: str) -> Iterator[Entry | LeftOut]:
    names, rows = scan_table(read_text(file), file)
    image, captions = columns.find_image(names), columns.find_captions(names)
    _check_columns(file, columns, names)
    if image is None or not captions:
        what = "image" if image is None else "caption"
        raise ImgcapError(
            f"{file} has no {what} column; its header is {listing([name[:40] for name in names]) or 'empty'}.",
            f"Name the column with --{what}-column.",
        )
    written_by_imgcap = "error_kind" in names
    for line, row in rows:
        place = f"{label}, line {line}"
        if isinstance(row, BadRow):
            yield LeftOut(place, row.reason)
            continue
        cells = {name: from_cell(cell) for name, cell in row.items()} if written_by_imgcap else row
        texts = [text for name in captions if cells[name].strip() for text in cell_captions(cells[name])]
        yield from entries_of_row(place, cells[image].strip(), texts or [""], cells.get("split"))


def _check_columns(file: Path, columns: Columns, names: list[str]) -> None:
    """Raise `ImgcapError` if a column that the user has named is not among `names`."""
    if missing := columns.missing_from(names):
        raise ImgcapError(
            f"{file} has no column {missing[0]!r}; its header is {listing([name[:40] for name in names])}."
        )


def read_jsonl(file: Path, columns: Columns = DETECTED) -> Iterator[Entry | LeftOut]:
    """JSON Lines: objects with an image, a caption or several, and perhaps a split."""
    yield from _json_line_entries(file, columns, file.name)


def _json_line_entries(file: Path, columns: Columns, label: str) -> Iterator[Entry | LeftOut]:
    for number, line in enumerate(read_text(file).split("\n"), 1):
        if line.strip():
            place = f"{label}, line {number}"
            try:
                row = parse_json_line(file, number, line)
            except ImgcapError as error:
                yield LeftOut(place, str(error).removeprefix(f"{file}, line {number} ").rstrip("."))
            else:
                yield from entries_of_object(place, row, columns)


def read_json_array(file: Path, columns: Columns = DETECTED) -> Iterator[Entry | LeftOut]:
    """A JSON array of objects like those of JSON Lines."""
    data = read_json(file)
    if not isinstance(data, list):
        raise ImgcapError(f"{file} is not a JSON array.")
    for i, row in enumerate(data):
        yield from entries_of_object(f"{file.name}, item {i + 1}", row, columns)


def read_coco(file: Path) -> Iterator[Entry | LeftOut]:
    """COCO captions JSON: `images` with id, file_name; `annotations` with image_id, caption (Chen et al. 2015)."""
    data, names = read_json(file), dict[str, str]()
    for place, image in _objects(data, "images", file):
        try:
            image_id = name_of(_value(image, "id"), "id")
            names[image_id] = name_of(_value(image, "file_name"), "file_name")
        except RowError as error:
            yield LeftOut(place, str(error))
    unlisted = set()
    for place, annotation in _objects(data, "annotations", file):
        try:
            image_id = name_of(_value(annotation, "image_id"), "image_id")
            texts = texts_of({"caption": _value(annotation, "caption")}, ["caption"])
        except RowError as error:
            yield LeftOut(place, str(error))
            continue
        if image_id in names:
            yield from entries_of_row(place, names[image_id], texts, None)
        elif image_id not in unlisted:  # once an image: a subset of COCO may leave out hundreds of thousands
            unlisted.add(image_id)
            yield LeftOut(place, f"is of the image {image_id}, which is not in images")


def read_karpathy(file: Path) -> Iterator[Entry | LeftOut]:
    """Karpathy's split JSON: `images` with filename, split and sentences (Karpathy and Fei-Fei 2015)."""
    for place, image in _objects(read_json(file), "images", file):
        try:
            name, sentences, split = _name_sentences_split(image)
        except RowError as error:
            yield LeftOut(place, str(error))
            continue
        for j, sentence in enumerate(sentences):
            raw = sentence.get("raw") if isinstance(sentence, dict) else sentence
            if isinstance(raw, str):
                yield Entry(name, raw, split, f"{place}.sentences[{j}]")
            else:
                yield LeftOut(f"{place}.sentences[{j}]", "has no 'raw' text")


def _name_sentences_split(image: Any) -> tuple[str, list[Any], str | None]:
    """What an item of Karpathy's `images` says. Raises `RowError`."""
    name, folder = name_of(_value(image, "filename"), "filename"), image.get("filepath")
    sentences = _value(image, "sentences")
    if not isinstance(sentences, list):
        raise RowError("has 'sentences' that are not a list")
    return f"{folder}/{name}" if isinstance(folder, str) and folder else name, sentences, split_of(image.get("split"))


def _objects(data: Any, key: str, file: Path) -> Iterator[tuple[str, Any]]:
    """Place and value of each item of `data[key]`. Raises `ImgcapError` if that is no list."""
    if not isinstance(data, dict) or key not in data:
        raise ImgcapError(f"{file} has no {key!r}.")
    if not isinstance(data[key], list):
        raise ImgcapError(f"{file}: {key!r} is not a list.")
    return ((f"{file.name}, {key}[{i}]", value) for i, value in enumerate(data[key]))


def _value(row: Any, key: str) -> Any:
    if not isinstance(row, dict) or key not in row:
        raise RowError(f"has no {key!r}")
    return row[key]


def read_imagefolder(folder: Path, columns: Columns = DETECTED) -> Iterator[Entry | LeftOut]:
    """Hugging Face's imagefolder: metadata.csv or metadata.jsonl in the folder or in one sub-folder for each split."""
    for metadata in metadata_files(folder):
        path = metadata.relative_to(folder)
        prefix, split = path.parent.as_posix(), known_split(path.parts[0])
        read = _table_entries if metadata.suffix == ".csv" else _json_line_entries
        for entry in read(metadata, columns, path.as_posix()):
            if isinstance(entry, LeftOut):
                yield entry
            else:
                name = entry.name if prefix == "." else f"{prefix}/{entry.name}"
                yield Entry(name, entry.caption, entry.split or split, entry.place)


def metadata_files(folder: Path) -> list[Path]:
    """The metadata files of an imagefolder, sorted."""
    names = ("metadata.csv", "metadata.jsonl")
    return sorted(p for name in names for p in (*folder.glob(name), *folder.glob(f"*/{name}")))


READERS: dict[str, Callable[[Path], Iterator[Entry | LeftOut]]] = {
    "flickr8k": read_flickr8k,
    "coco": read_coco,
    "karpathy": read_karpathy,
}
"""Readers of formats whose names are fixed."""
COLUMN_READERS: dict[str, Callable[[Path, Columns], Iterator[Entry | LeftOut]]] = {
    "csv": read_csv,
    "jsonl": read_jsonl,
    "json": read_json_array,
    "parquet": read_parquet,
    "imagefolder": read_imagefolder,
}
"""Readers of formats whose columns the user can name."""
SIDECARS = "sidecars"
FORMATS = ("flickr8k", "csv", "coco", "karpathy", "jsonl", "json", "parquet", SIDECARS, "imagefolder")
"""Names of all formats. Sidecars belong to images, so their reader needs those too: see `sidecars`."""


def detect_format(captions: Path, columns: Columns = DETECTED) -> str:
    """The name in `FORMATS` that fits a file or folder, by its name and its content. Raises `ImgcapError`."""
    if captions.is_dir():
        return "imagefolder" if metadata_files(captions) else SIDECARS
    suffix = captions.suffix.lower()
    if suffix in (".jsonl", ".ndjson"):
        return "jsonl"
    if suffix in (".csv", ".tsv"):
        return "csv"
    if suffix == ".parquet":
        return "parquet"
    found = _detect_json(read_json(captions)) if suffix == ".json" else _detect_text(read_text(captions), columns)
    if not found:
        raise ImgcapError(
            f"The format of {captions} cannot be detected from its content.",
            f"Name it with --format: {', '.join(FORMATS)}.",
        )
    return found


def _detect_json(data: Any) -> str | None:
    if isinstance(data, dict):
        return "coco" if "annotations" in data else "karpathy" if "images" in data else None
    return "json" if isinstance(data, list) and any(isinstance(row, dict) for row in data) else None


def _detect_text(text: str, columns: Columns) -> str | None:
    lines = list(islice((line for line in text.split("\n") if line.strip()), _LINES_TO_DETECT))
    for delimiter in _DELIMITERS if lines else "":
        cells = [cell.strip(' "') for cell in lines[0].split(delimiter)]
        if len(cells) > 1 and columns.find_image(cells) and columns.find_captions(cells):
            return "csv"
    for line in lines:
        if _NUMBERED_LINE.match(line) or ("\t" in line and is_image_name(line.partition("\t")[0])):
            return "flickr8k"
        if line.lstrip().startswith("{"):
            return "jsonl"
    return None
