"""Files in archives, on disk or behind a URL, and the open archives that they are read from."""

from __future__ import annotations

import os
import stat
import weakref
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from threading import Lock
from typing import BinaryIO

from imgcap.errors import ImgcapError
from imgcap.images.discovery import is_image_name
from imgcap.images.errors import ImageError
from imgcap.images.locations import has_wildcards, is_url
from imgcap.images.remote import open_url, url_stamp, why

MOST_BYTES = 1_000_000_000
"""Size of the largest member that is read."""

_MISSING = "The archive {} does not exist."
_GONE = (403, 404, 410)
"""HTTP statuses of a missing file. For other failures, too, fsspec raises `FileNotFoundError`."""
_OPEN_ARCHIVES = 8


@dataclass(frozen=True)
class Archive:
    """An archive in the state in which it was listed."""

    location: str
    """Its path or URL."""
    stamp: tuple[str, ...]
    """What changes when the archive is replaced: size, time, ETag."""


@dataclass(frozen=True)
class ArchivedFile:
    """A file in an archive: an image, or its captions."""

    archive: Archive
    member: str
    """Its name in the archive."""
    offset: int
    """Start of its content in the archive, in bytes; in a Parquet file, its row."""
    size: int | None
    """In bytes; None if it is not known before it is read."""

    @property
    def name(self) -> str:
        """ARCHIVE/MEMBER, as in rows."""
        return f"{self.archive.location}/{self.member}"

    def read(self) -> bytes:
        """Its content. Raises `ImageError`. Thread-safe."""
        size = self.size or 0
        if size > MOST_BYTES:
            what = f"has {size:,} bytes, more than the {MOST_BYTES:,} that are read from an archive"
            raise ImageError(f"{self.name} {what}.", kind="too large", path=self.name)
        try:
            content = opened(self.archive).read(self.offset, size)
        except ImgcapError:
            raise
        except Exception as error:  # each of fsspec's file systems has errors of its own
            sentence = f"{self.name} cannot be read: {why(error)}."
            raise ImageError(sentence, kind="unreadable", path=self.name) from None
        if len(content) < size:
            raise ImageError(f"{self.name} is cut off: its archive ends before.", path=self.name)
        return content


def open_archive(location: str) -> tuple[Archive, OpenArchive]:
    """The archive as it is now. Raises `ImageError` if it cannot be read."""
    if is_url(location) and is_image_name(location.partition("?")[0]):
        sentence = f"{location} is the URL of an image; imgcap reads URLs of .tar and .parquet files only."
        raise ImageError(sentence, "Download it first: curl -L URL | imgcap caption -", "unsupported", location)
    try:
        archive = Archive(location, stamp(location))
        found = opened(archive)
        found.read(0, 1)  # some file systems open what they cannot read
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
    return archive, found


class OpenArchive:
    """The bytes of an archive. Thread-safe."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._lock = file, Lock()
        self.size = file.seek(0, os.SEEK_END)
        weakref.finalize(self, file.close)

    def read(self, offset: int, size: int) -> bytes:
        """`size` bytes, or fewer at the end; takes memory only for bytes that exist."""
        with self._lock:
            self._file.seek(offset)
            return self._file.read(max(0, min(size, self.size - offset)))


@lru_cache(_OPEN_ARCHIVES)
def opened(archive: Archive) -> OpenArchive:
    """The bytes of an archive. Raises `ImageError` if it has changed, or any error of the file system."""
    if stamp(archive.location) != archive.stamp:  # the offsets are wrong now
        sentence = f"The archive {archive.location} has changed since it was listed."
        raise ImageError(sentence, kind="unreadable", path=archive.location)
    if not is_url(archive.location):
        return OpenArchive(Path(archive.location).open("rb"))
    return OpenArchive(open_url(archive.location))


def stamp(location: str) -> tuple[str, ...]:
    """See `Archive.stamp`. Raises `ImageError` if it is not a file, or any error of the file system."""
    if is_url(location):
        return url_stamp(location)
    state = Path(location).stat()
    if not stat.S_ISREG(state.st_mode):  # opening a pipe would block until somebody writes into it
        raise ImageError(f"{location} is not a file.", kind="not an image", path=location)
    return str(state.st_size), str(state.st_mtime_ns)
