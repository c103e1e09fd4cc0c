"""Parquet files as Hugging Face writes them: images with their captions, or captions alone."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from imgcap.dataset.records import Entry, LeftOut, Sample
from imgcap.dataset.rows import RowError, entries_of_object, split_of, texts_of
from imgcap.dataset.splits import known_split
from imgcap.errors import ImgcapError, listing
from imgcap.images.parquet import parquet_rows, parquet_table
from imgcap.text.columns import CAPTIONS, DETECTED, Columns

if TYPE_CHECKING:
    import pyarrow as pa

_SPLIT = "split"


def parquet_samples(location: str, columns: Columns) -> Iterator[Sample | LeftOut]:
    """The samples in a Parquet file: captions are text, or lists of text or of objects with a text (`raw`).

    The split is that of the row if it has one, else that in the name of the file or its folder. Raises `ImgcapError` if
    the file cannot be read, or has no images or no captions.
    """
    names: list[str] = []

    def choose(schema: pa.Schema) -> list[str]:
        names.extend(_caption_columns(location, schema, columns))
        return [*names, *_split_column(schema)]

    of_file = split_in_name(location)
    for image, row in parquet_rows(location, choose):
        try:
            texts, split = texts_of(row, names), split_of(row.get(_SPLIT)) or of_file
        except RowError as error:
            yield LeftOut(image.name, str(error))
        else:
            yield Sample(image, [text for text in texts if text is not None], split)


def read_parquet(file: Path, columns: Columns = DETECTED) -> Iterator[Entry | LeftOut]:
    """A table with an image column, of names or of images with names, and captions; perhaps a split column."""

    def choose(schema: pa.Schema) -> list[str]:
        captions, image = _caption_columns(str(file), schema, columns), columns.find_image(schema.names)
        if image is None or columns.image in columns.missing_from(schema.names):
            raise ImgcapError(
                f"{file} has no {f'column {columns.image!r}' if columns.image else 'image column'}; its columns: "
                f"{listing(schema.names)}.",
                "Name it with --image-column.",
            )
        return [image, *captions, *_split_column(schema)]

    for number, row in enumerate(parquet_table(str(file), choose), 1):
        yield from entries_of_object(f"{file.name}, row {number}", row, columns)


def _split_column(schema: pa.Schema) -> list[str]:
    return [_SPLIT] if _SPLIT in schema.names and _holds_text(schema.field(_SPLIT).type) else []


def _caption_columns(location: str, schema: pa.Schema, columns: Columns) -> list[str]:
    """Raises `ImgcapError` if no column holds captions."""
    names = columns.find_captions(schema.names)
    if not names or columns.caption in columns.missing_from(schema.names):
        what = f"column {columns.caption!r}" if columns.caption else "caption column"
        raise ImgcapError(
            f"{location} has no {what}; its columns: {listing(schema.names)}.",
            "Name it with --caption-column, or give a caption file by --captions.",
        )
    for name in names:
        if not _holds_text(schema.field(name).type):
            raise ImgcapError(
                f"{location} has no captions: its column {name!r} holds {schema.field(name).type}, not text.",
                "Name another column with --caption-column, or give a caption file by --captions.",
            )
    return names


def _holds_text(kind: pa.DataType) -> bool:
    """Whether values of this type are text, lists of text, or objects with a text."""
    from pyarrow import types

    if types.is_list(kind) or types.is_large_list(kind) or types.is_dictionary(kind):
        return _holds_text(kind.value_type)
    if types.is_struct(kind):
        return any(part.name.lower() in CAPTIONS and _holds_text(part.type) for part in kind)
    return bool(types.is_string(kind) or types.is_large_string(kind))


def split_in_name(location: str) -> str | None:
    """The split that the name of a file has between other parts (`train-00000-of-00002.parquet`), else its folder's."""
    *folders, name = location.split("?")[0].split("/")
    words = (word for part in (name, *folders[-1:]) for word in re.split(r"[-._ 0-9]+", part))
    return next((split for word in words if (split := known_split(word))), None)
