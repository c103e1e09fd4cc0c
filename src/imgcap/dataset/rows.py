"""Rows of caption files, whatever the format: an image name, captions, and perhaps a split."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from imgcap.dataset.records import Entry, LeftOut
from imgcap.dataset.splits import SPLITS, known_split
from imgcap.text.columns import Columns, caption_texts


class RowError(Exception):
    """A row that cannot be used; the message follows its place: "is not a JSON object"."""


def entries_of_object(place: str, row: Any, columns: Columns) -> Iterator[Entry | LeftOut]:
    try:
        name, texts = _name_and_texts(row, columns)
    except RowError as error:
        yield LeftOut(place, str(error))
    else:
        yield from entries_of_row(place, name, texts, row.get("split"))


def _name_and_texts(row: Any, columns: Columns) -> tuple[str, list[str | None]]:
    """The image name and the captions of a JSON object. Raises `RowError`."""
    if not isinstance(row, dict):
        raise RowError("is not a JSON object")
    image, captions = columns.find_image(tuple(row)), caption_keys(row, columns)
    if image is None:
        raise RowError("has no image name")
    if not captions:
        raise RowError("has no caption")
    return name_of(row[image], image), texts_of(row, captions)


def caption_keys(row: dict[str, Any], columns: Columns) -> list[str]:
    """The keys of the captions in a JSON object, those with a value if there are any."""
    return columns.find_captions([key for key in row if row[key]]) or columns.find_captions(tuple(row))


def entries_of_row(place: str, name: str, texts: Sequence[str | None], split: object) -> Iterator[Entry | LeftOut]:
    """One entry for each text; a null text, or an empty name or unknown split of the row, is left out."""
    try:
        known = split_of(split)
    except RowError as error:
        yield LeftOut(place, str(error))
        return
    if not name:
        yield LeftOut(place, "has no image name")
        return
    for text in texts:
        yield Entry(name, text, known, place) if text is not None else LeftOut(place, f"has no caption for {name}")


def name_of(value: object, key: str) -> str:
    """The image name, or the image id, in a JSON value. Raises `RowError`."""
    if isinstance(value, float) and value.is_integer():  # as pandas writes ids next to missing ones
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        raise RowError(f"has an invalid {key!r}: neither text nor a whole number")
    return str(value).strip()


def texts_of(row: dict[str, Any], keys: list[str]) -> list[str | None]:
    """The captions under `keys`; None for null. Of several keys, empty ones do not count. Raises `RowError`."""
    values = [row[key] for key in keys if len(keys) == 1 or row[key]]
    try:
        return [text for value in values for text in caption_texts(value)] or [None]
    except ValueError:
        raise RowError("has a caption that is not text") from None


def split_of(value: object) -> str | None:
    """The split in a cell or a JSON value; None if that is empty. Raises `RowError`."""
    if value is None or value == "":
        return None
    if not isinstance(value, str):
        raise RowError("has a split that is not text")
    if value.strip() and known_split(value) is None:
        raise RowError(f"has the unknown split {value.strip()!r}; known are {', '.join(SPLITS)}")
    return known_split(value)
