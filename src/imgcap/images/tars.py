"""The files in tar archives, as in WebDataset: read in place, never unpacked."""

from __future__ import annotations

import re
import tarfile
from collections.abc import Callable, Iterator
from typing import IO, cast

from imgcap.images.archived import ArchivedFile, OpenArchive, open_archive
from imgcap.images.discovery import is_hidden
from imgcap.images.errors import ImageError, Kind
from imgcap.images.remote import why

_COMPRESSED = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd")
_LARGEST_HEADER = 1 << 20
"""Bytes of the longest header; without a limit, a name could have any length."""


def archived_files(location: str, wanted: Callable[[str], bool]) -> Iterator[ArchivedFile | ImageError]:
    """The files in an archive whose names are `wanted`, in their order, without hidden ones; reads only headers.

    A file that cannot be used, and an archive or its remainder that cannot be read, each yield an `ImageError`.
    """
    try:
        archive, opened = open_archive(location)
        _check_uncompressed(location, opened)
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


def _check_uncompressed(location: str, opened: OpenArchive) -> None:
    """Raises `ImageError`."""
    if opened.read(0, 6).startswith(_COMPRESSED):
        sentence = f"The archive {location} is compressed, so single images cannot be read from it."
        hint = "Decompress it to a .tar first, for example with gunzip."
        raise ImageError(sentence, hint, "unsupported", location)


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


def _entries(opened: OpenArchive) -> Iterator[tarfile.TarInfo]:
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

    def __init__(self, opened: OpenArchive) -> None:
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
