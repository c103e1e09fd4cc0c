"""Images in Parquet files, as Hugging Face writes them: read in place, a few rows at a time.

The images are a column of bytes, or of `bytes` and `path`. Needs pyarrow, which is imported when a file is opened.
"""

from __future__ import annotations

import io
import os
import re
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from threading import Lock
from typing import TYPE_CHECKING, Any

from imgcap.errors import ImgcapError, listing
from imgcap.images.archived import MOST_BYTES, Archive, ArchivedFile, OpenArchive, open_archive, opened
from imgcap.images.errors import ImageError
from imgcap.images.remote import why
from imgcap.text.columns import FILE_NAMES

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

_IMAGE_COLUMNS = (*FILE_NAMES, "jpg", "jpeg", "png", "webp", "image_bytes", "bytes")
"""Names of columns of images, the preferred ones first."""
_BUFFER = 1 << 20
"""Bytes of a column that are read at once."""
_BATCH_BYTES, _FEWEST_ROWS, _MOST_ROWS = 1 << 24, 16, 1024
"""Rows of images that are decoded at once have about so many bytes, but are no fewer and no more than this."""
_BATCHES = 2
"""Batches to keep: threads ask for rows almost in order."""
_ROWS_LISTED = 1024
_OPEN_FILES = 2
_LFS_POINTER = b"version https://git-lfs"

Choose = Callable[["pa.Schema"], Sequence[str]]
"""Takes columns from a schema; may raise `ImgcapError`."""


@dataclass(frozen=True)
class ParquetImage(ArchivedFile):
    """An image in a row of a Parquet file; `offset` is the number of the row."""

    original: str | None = None
    """The file name in the row, if it has one."""

    def read(self) -> bytes:
        """Its content. Raises `ImageError`. Thread-safe."""
        try:
            content = _reader(self.archive).read(self.offset)
        except ImgcapError:
            raise
        except Exception as error:  # on damaged files pyarrow raises all kinds of exceptions
            raise ImageError(f"{self.name} cannot be read: {why(error)}.", path=self.name) from None
        if not content:
            raise ImageError(f"{self.name} has no image in its row.", kind="missing", path=self.name)
        if len(content) > MOST_BYTES:
            what = f"has {len(content):,} bytes, more than the {MOST_BYTES:,} that are read from an archive"
            raise ImageError(f"{self.name} {what}.", kind="too large", path=self.name)
        return content


def images_in_rows(location: str, wanted: Callable[[str], bool]) -> Iterator[ArchivedFile | ImageError]:
    """The images in a Parquet file whose names are `wanted`, in their order; a file that cannot be read is an error."""
    try:
        yield from (image for image, _ in parquet_rows(location) if wanted(image.member))
    except ImageError as error:
        yield error


def parquet_rows(location: str, choose: Choose = lambda _schema: ()) -> Iterator[tuple[ParquetImage, dict[str, Any]]]:
    """Each image of a Parquet file, with the values of the columns that `choose` takes; reads no image.

    An image is named by the file name in its row if those of all rows differ, else by the number of the row. Raises
    `ImageError` if the file cannot be read or has no images, and what `choose` raises.
    """
    archive, found = open_archive(location)
    try:
        table = _open_table(location, found)
        column = _find_images(location, table)
        count = table.metadata.num_rows
        names = list(_file_names(table, column))
        are_unique = None not in names and len(set(names)) == count
        others = choose(table.schema_arrow)
        values = _values(table, others) if others else iter([{}] * count)
        for row, (name, chosen) in enumerate(zip(names, values, strict=True)):
            member = name if name and are_unique else f"{row:0{len(str(count))}}"
            yield ParquetImage(archive, member, row, None, name), chosen
    except ImgcapError:
        raise
    except Exception as error:  # on damaged files pyarrow raises all kinds of exceptions
        raise ImageError(f"The archive {location} cannot be read: {why(error)}.", path=location) from None


def parquet_table(location: str, choose: Choose) -> Iterator[dict[str, Any]]:
    """The values of the columns that `choose` takes, row by row; of a column of images, their file names.

    Raises `ImageError` if the file cannot be read, and what `choose` raises.
    """
    _, found = open_archive(location)
    try:
        table = _open_table(location, found)
        columns = list(choose(table.schema_arrow))
        images = [name for name in columns if _has_bytes(table.schema_arrow.field(name).type)]
        for row in _values(table, [f"{name}.path" if name in images else name for name in columns]):
            yield row | {name: (row.get(name) or {}).get("path") for name in images}
    except ImgcapError:
        raise
    except Exception as error:  # on damaged files pyarrow raises all kinds of exceptions
        raise ImageError(f"{location} cannot be read: {why(error)}.", path=location) from None


@dataclass(frozen=True)
class _Column:
    """The column of the images."""

    name: str
    content: str
    """The part of it that has their bytes."""
    has_names: bool
    """Whether it has their file names."""


def _find_images(location: str, table: pq.ParquetFile) -> _Column:
    """Raises `ImageError` if there are no images."""
    schema = table.schema_arrow
    with_bytes = [field.name for field in schema if _has_bytes(field.type)]
    plain = [field.name for field in schema if _is_bytes(field.type) and field.name.lower() in _IMAGE_COLUMNS]
    if not with_bytes and not plain:
        named = [field.name for field in schema if field.name.lower() in FILE_NAMES and _is_text(field.type)]
        if named:
            raise _only_names(location, named[0])
        columns = listing(schema.names) or "none"
        sentence = f"{location} has no column of images; its columns: {columns}."
        raise ImageError(sentence, "Images are a column of bytes, or of bytes and path.", "empty folder", location)
    name = min([*with_bytes, *plain], key=lambda each: _rank(each.lower()))
    if name in plain:
        return _Column(name, name, has_names=False)
    column = _Column(name, f"{name}.bytes", has_names=schema.field(name).type.get_field_index("path") >= 0)
    if table.metadata.num_rows and _nulls(table, column.content) == table.metadata.num_rows:
        raise _only_names(location, name)
    return column


def _only_names(location: str, column: str) -> ImageError:
    sentence = f"{location} has no images: its column {column!r} has only their names."
    hint = "Give the folder of the images by --images, and this file by --captions."
    return ImageError(sentence, hint, "empty folder", location)


def _rank(name: str) -> int:
    return _IMAGE_COLUMNS.index(name) if name in _IMAGE_COLUMNS else len(_IMAGE_COLUMNS)


def _nulls(table: pq.ParquetFile, leaf: str) -> int:
    """Rows whose part `leaf` is null, by the statistics of the file; 0 if it has none."""
    metadata, nulls = table.metadata, 0
    for group in map(metadata.row_group, range(metadata.num_row_groups)):
        for chunk in map(group.column, range(group.num_columns)):
            if chunk.path_in_schema == leaf and chunk.statistics and chunk.statistics.has_null_count:
                nulls += chunk.statistics.null_count
    return nulls


def _is_text(kind: pa.DataType) -> bool:
    from pyarrow import types

    return bool(types.is_string(kind) or types.is_large_string(kind))


def _is_bytes(kind: pa.DataType) -> bool:
    from pyarrow import types

    return bool(types.is_binary(kind) or types.is_large_binary(kind))


def _has_bytes(kind: pa.DataType) -> bool:
    """Whether values of this type have `bytes`, as Hugging Face's images do."""
    from pyarrow import types

    return bool(types.is_struct(kind) and any(part.name == "bytes" and _is_bytes(part.type) for part in kind))


def _file_names(table: pq.ParquetFile, column: _Column) -> Iterator[str | None]:
    """The file name in each row, without folders."""
    if not column.has_names:
        yield from [None] * table.metadata.num_rows
        return
    for row in _values(table, [f"{column.name}.path"]):
        path = (row[column.name] or {}).get("path")
        yield re.split(r"[/\\]", path)[-1] or None if isinstance(path, str) else None


def _values(table: pq.ParquetFile, columns: Sequence[str]) -> Iterator[dict[str, Any]]:
    for batch in table.iter_batches(_ROWS_LISTED, columns=list(columns), use_threads=False):
        yield from batch.to_pylist()


class _Reader:
    """Reads the images of a Parquet file, a batch of rows at a time. Thread-safe."""

    def __init__(self, location: str, found: OpenArchive) -> None:
        self._table = _open_table(location, found)
        self._column = _find_images(location, self._table)
        metadata = self._table.metadata
        groups = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
        self._starts = [0, *accumulate(groups)]
        """First row of each group of rows, and the number of all rows."""
        self._group = -1
        self._ahead: Iterator[pa.RecordBatch] = iter(())
        """The remaining batches of this group."""
        self._batches: list[tuple[int, pa.Array]] = []
        """First row and images of the latest batches of this group."""
        self._lock = Lock()

    def read(self, row: int) -> bytes | None:
        """The bytes in a row. Rows are best read in order: an earlier row costs all before it in its group."""
        with self._lock:
            group = bisect_right(self._starts, row) - 1
            if group != self._group or (self._batches and row < self._batches[0][0]):
                self._start(group)
            while not self._batches or row >= self._batches[-1][0] + len(self._batches[-1][1]):
                self._advance()
            start, images = next(batch for batch in reversed(self._batches) if batch[0] <= row)
            value = images[row - start].as_py()
        return value.get("bytes") if isinstance(value, dict) else value

    def _start(self, group: int) -> None:
        about = self._table.metadata.row_group(group)
        chunks = map(about.column, range(about.num_columns))
        size = next(chunk.total_uncompressed_size for chunk in chunks if chunk.path_in_schema == self._column.content)
        rows = min(max(_BATCH_BYTES * about.num_rows // max(size, 1), _FEWEST_ROWS), _MOST_ROWS)
        self._ahead = self._table.iter_batches(rows, [group], [self._column.content], use_threads=False)
        self._group, self._batches = group, []

    def _advance(self) -> None:
        start = self._starts[self._group]
        if self._batches:
            start = self._batches[-1][0] + len(self._batches[-1][1])
        del self._batches[: 1 - _BATCHES]  # before the next one is decoded
        self._batches.append((start, next(self._ahead).column(0)))


@lru_cache(_OPEN_FILES)
def _reader(archive: Archive) -> _Reader:
    return _Reader(archive.location, opened(archive))


def _open_table(location: str, found: OpenArchive) -> pq.ParquetFile:
    """Raises `ImageError` without pyarrow, and if it is not a Parquet file."""
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        sentence = f"{location} needs pyarrow, which is missing."
        raise ImageError(sentence, "pip install 'imgcap-cli[parquet]'", "unsupported", location) from None
    try:
        return pq.ParquetFile(pa.PythonFile(_Bytes(found), "r"), buffer_size=_BUFFER, pre_buffer=False)
    except (pa.ArrowException, OSError):
        hint = ""
        if found.read(0, len(_LFS_POINTER)) == _LFS_POINTER:
            hint = "It is a pointer of Git LFS; fetch the file itself: git lfs pull"
        raise ImageError(f"{location} is not a Parquet file, or is damaged.", hint, "damaged", location) from None


class _Bytes(io.RawIOBase):
    """An open archive as the file that pyarrow reads."""

    def __init__(self, found: OpenArchive) -> None:
        super().__init__()
        self._found, self._place = found, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._place

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._place, os.SEEK_END: self._found.size}[whence]
        self._place = start + offset
        return self._place

    def read(self, size: int | None = -1) -> bytes:
        content = self._found.read(self._place, self._found.size if size is None or size < 0 else size)
        self._place += len(content)
        return content
