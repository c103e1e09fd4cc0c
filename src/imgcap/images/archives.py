"""Images in tar archives, as in WebDataset: on disk or behind a URL, read in place, never unpacked."""

from __future__ import annotations

import os
import re
import stat
import tarfile
import weakref
from collections import Counter
from collections.abc import Callable, Container, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from threading import Lock
from typing import IO, BinaryIO, cast

from imgcap.errors import ImgcapError
from imgcap.images.discovery import EVERYTHING, Selection, count_unreadable, is_hidden, is_image_name
from imgcap.images.errors import ImageError, Kind
from imgcap.images.locations import has_wildcards, is_url
from imgcap.images.remote import open_url, url_stamp, why

MOST_BYTES = 1_000_000_000
"""Size of the largest member that is read."""

_COMPRESSED = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd")
_LARGEST_HEADER = 1 << 20
"""Bytes of the longest header; without a limit, a name could have any length."""
_MISSING = "The archive {} does not exist."
_GONE = (403, 404, 410)
"""HTTP statuses of a missing file. For other failures, too, fsspec raises `FileNotFoundError`."""
_OPEN_ARCHIVES = 8
_TABLES = 256


@dataclass(frozen=True)
class Archive:
    """A tar archive in the state in which it was listed."""

    location: str
    """Its path or URL."""
    stamp: tuple[str, ...]
    """What changes when the archive is replaced: size, time, ETag."""


@dataclass(frozen=True)
class ArchivedFile:
    """A file in a tar archive: an image, or its captions."""

    archive: Archive
    member: str
    """Its name in the archive."""
    offset: int
    """Start of its content in the archive, in bytes."""
    size: int

    @property
    def name(self) -> str:
        """ARCHIVE/MEMBER, as in rows."""
        return f"{self.archive.location}/{self.member}"

    def read(self) -> bytes:
        """Its content. Raises `ImageError`. Thread-safe."""
        if self.size > MOST_BYTES:
            what = f"has {self.size:,} bytes, more than the {MOST_BYTES:,} that are read from an archive"
            raise ImageError(f"{self.name} {what}.", kind="too large", path=self.name)
        try:
            content = _opened(self.archive).read(self.offset, self.size)
        except ImgcapError:
            raise
        except Exception as error:  # each of fsspec's file systems has errors of its own
            sentence = f"{self.name} cannot be read: {why(error)}."
            raise ImageError(sentence, kind="unreadable", path=self.name) from None
        if len(content) < self.size:
            raise ImageError(f"{self.name} is cut off: its archive ends before.", path=self.name)
        return content


def images_in(
    location: str, selection: Selection = EVERYTHING, unreadable: Counter[str] | None = None
) -> Iterator[ArchivedFile | ImageError]:
    """The images in an archive that `selection` takes, in their order, without reading any.

    Hidden ones are skipped; `unreadable` is that of `find_images`. An image that cannot be used, and an archive that
    cannot be read or has no image, each yield an `ImageError` in their place.
    """

    def wanted(member: str) -> bool:
        parts = tuple(member.split("/"))
        if unreadable is not None:
            count_unreadable(parts, selection, unreadable)
        return is_image_name(member) and (selection.recursive or len(parts) == 1) and selection.takes(parts)

    empty = True
    for found in archived_files(location, wanted):
        empty = False
        yield found
    if empty:
        hint = "Members with an image's file name count; --include and --exclude select among them."
        yield ImageError(f"The archive {location} holds no images.", hint, "empty folder", location)


def find_image(name: str, locations: Container[str]) -> ArchivedFile:
    """The image named ARCHIVE/MEMBER, where ARCHIVE is one of `locations`. Raises `ImageError`."""
    for slash in re.finditer("/", name):
        location, member = name[: slash.start()], name[slash.end() :]
        if location in locations and (found := _table(location).get(member)):
            return found
    raise ImageError(f"{name} does not exist.", kind="missing", path=name)


@lru_cache(_TABLES)
def _table(location: str) -> dict[str, ArchivedFile]:
    """The images of an archive by name. Raises `ImageError` if there are none."""
    found = list(images_in(location))
    table = {image.member: image for image in found if isinstance(image, ArchivedFile)}
    if not table:
        raise next(error for error in found if isinstance(error, ImageError))
    return table


def archived_files(location: str, wanted: Callable[[str], bool]) -> Iterator[ArchivedFile | ImageError]:
    """The files in an archive whose names are `wanted`, in their order, without hidden ones; reads only headers.

    A file that cannot be used, and an archive or its remainder that cannot be read, each yield an `ImageError`.
    """
    try:
        archive, opened = _open(location)
    except ImageError as error:
        yield error
        return
    seen: set[str] = set()
    try:
        for entry in _entries(opened):
            member = re.sub(r"^(\./+)+", "", entry.name)
            if entry.isdir() or _is_hidden(member) or not wanted(member):
                continue
            file = ArchivedFile(archive, member, entry.offset_data, entry.size)
            refusal = _refusal(entry, member, seen)
            seen.add(member)
            if refusal:
                kind, what = refusal
                yield ImageError(f"{file.name} {what}.", kind=kind, path=file.name)
            else:
                yield file
    except Exception as error:  # on damaged archives tarfile raises all kinds of exceptions
        yield ImageError(f"The rest of the archive {location} cannot be read: {why(error)}.", path=location)


def _open(location: str) -> tuple[Archive, _OpenArchive]:
    """Raises `ImageError` if the archive cannot be read."""
    if is_url(location) and is_image_name(location.partition("?")[0]):
        sentence = f"{location} is the URL of an image; imgcap reads URLs of .tar archives only."
        raise ImageError(sentence, "Download it first: curl -L URL | imgcap caption -", "unsupported", location)
    try:
        archive = Archive(location, _stamp(location))
        opened = _opened(archive)
        compressed = opened.read(0, 6).startswith(_COMPRESSED)
    except ImageError:
        raise
    except FileNotFoundError as error:
        cause = error.__cause__
        if cause and location.startswith("http") and getattr(cause, "status", None) not in _GONE:
            sentence = f"The archive {location} cannot be read: {why(cause)}."
            raise ImageError(sentence, kind="unreadable", path=location) from None
        sentence = f"No archive matches {location}." if has_wildcards(location) else _MISSING.format(location)
        raise ImageError(sentence, kind="missing", path=location) from None
    except Exception as error:  # each of fsspec's file systems has errors of its own
        sentence = f"The archive {location} cannot be read: {why(error)}."
        raise ImageError(sentence, kind="unreadable", path=location) from None
    if compressed:
        sentence = f"The archive {location} is compressed, so single images cannot be read from it."
        hint = "Decompress it to a .tar first, for example with gunzip."
        raise ImageError(sentence, hint, "unsupported", location)
    return archive, opened


def _is_hidden(member: str) -> bool:
    return any(is_hidden(part) and part != ".." for part in member.split("/"))


def _refusal(entry: tarfile.TarInfo, member: str, seen: set[str]) -> tuple[Kind, str] | None:
    """Why a member is not used: the rest of a sentence that starts with its name."""
    if member.startswith("/") or ".." in member.split("/"):
        return "unsupported", "has a name that leads out of its archive"
    if entry.issparse():
        return "unsupported", "is stored as a sparse file"
    if not entry.isreg():
        return "not an image", "is a link or a device, not a file"
    if member in seen:
        return "unsupported", "has the same name as an earlier file in its archive"
    return None


def _entries(opened: _OpenArchive) -> Iterator[tarfile.TarInfo]:
    """The headers of an archive, one at a time. Raises any exception of tarfile's if one is damaged."""
    headers = cast(IO[bytes], _Headers(opened))
    with tarfile.open(fileobj=headers, mode="r:", encoding="utf-8", errors="surrogateescape") as tar:
        before = 0
        while entry := tar.next():
            if entry.size < 0 or tar.offset <= before:
                raise tarfile.ReadError("a file has a size below 0")
            before = tar.offset
            tar.members.clear()  # type: ignore[attr-defined]  # tarfile would keep them all
            yield entry
        if opened.read(tar.offset, tarfile.BLOCKSIZE).strip(b"\0"):
            raise tarfile.ReadError("the header of a file is damaged")


class _Headers:
    """The file methods that tarfile reads headers with; refuses headers that are too long."""

    def __init__(self, opened: _OpenArchive) -> None:
        self._opened, self._place = opened, 0

    def tell(self) -> int:
        return self._place

    def seek(self, place: int) -> int:
        self._place = place
        return place

    def read(self, size: int) -> bytes:
        if not 0 <= size <= _LARGEST_HEADER:
            raise tarfile.ReadError(f"a header has {size:,} bytes")
        content = self._opened.read(self._place, size)
        self._place += len(content)
        return content


class _OpenArchive:
    """The bytes of an archive. Thread-safe."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._lock = file, Lock()
        self._size = file.seek(0, os.SEEK_END)
        weakref.finalize(self, file.close)

    def read(self, offset: int, size: int) -> bytes:
        """`size` bytes, or fewer at the end; takes memory only for bytes that exist."""
        with self._lock:
            self._file.seek(offset)
            return self._file.read(max(0, min(size, self._size - offset)))


@lru_cache(_OPEN_ARCHIVES)
def _opened(archive: Archive) -> _OpenArchive:
    if _stamp(archive.location) != archive.stamp:  # the offsets are wrong now
        sentence = f"The archive {archive.location} has changed since it was listed."
        raise ImageError(sentence, kind="unreadable", path=archive.location)
    if not is_url(archive.location):
        return _OpenArchive(Path(archive.location).open("rb"))
    return _OpenArchive(open_url(archive.location))


def _stamp(location: str) -> tuple[str, ...]:
    """See `Archive.stamp`. Raises `ImageError` if it is not a file, or any error of the file system."""
    if is_url(location):
        return url_stamp(location)
    state = Path(location).stat()
    if not stat.S_ISREG(state.st_mode):  # opening a pipe would block until somebody writes into it
        raise ImageError(f"{location} is not a file.", kind="not an image", path=location)
    return str(state.st_size), str(state.st_mtime_ns)
