"""Images in tar archives, as WebDataset keeps them: on disk or behind a URL, read where they are, never unpacked."""

from __future__ import annotations

import os
import re
import stat
import tarfile
import weakref
from collections.abc import Callable, Container, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from threading import Lock
from typing import IO, Any, BinaryIO, cast

from imgcap.errors import ImgcapError, UsageError
from imgcap.files import reason
from imgcap.images.discovery import EVERYTHING, Selection, is_image_name
from imgcap.images.errors import ImageError, Kind

MOST_BYTES = 1_000_000_000
"""Size of the largest member that is read."""
MOST_ARCHIVES = 1_000_000
"""Most archives that a pattern stands for."""

_ENDINGS = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")
_COMPRESSED = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd")
_MOST_HEADER = 1 << 20
"""Bytes of the longest header, which may hold a name of any length."""
_OPEN_ARCHIVES = 8
_TABLES = 256
_BLOCK, _BLOCKS = 1 << 20, 32
"""Size and number of the parts that are kept of an open remote archive: what is listed ahead of its use is among them,
so that an archive that is read in order comes over the network once."""
_BRACES = re.compile(r"\{(?:(\d{1,12})\.\.(\d{1,12})|([^{}]*,[^{}]*))\}", re.ASCII)
_CHANGES = ("size", "mtime", "ETag", "etag", "md5Hash", "blob_id", "LastModified", "last_modified", "created")
"""What the file systems of fsspec call that which another file of the same name would have different."""


@dataclass(frozen=True)
class Archive:
    """A tar archive as it was when it was listed."""

    location: str
    """Its path or URL."""
    stamp: tuple[str, ...]
    """What would be different if it had been changed: size, time, ETag."""


@dataclass(frozen=True)
class ArchivedFile:
    """A file in a tar archive: an image, or what is said of one."""

    archive: Archive
    member: str
    """Its name in the archive."""
    offset: int
    """Where its content begins in the archive, in bytes."""
    size: int

    @property
    def name(self) -> str:
        """ARCHIVE/MEMBER, as it stands in rows."""
        return f"{self.archive.location}/{self.member}"

    def read(self) -> bytes:
        """Its content. Raises `ImageError`; can be called from any thread."""
        if self.size > MOST_BYTES:
            what = f"has {self.size:,} bytes, more than the {MOST_BYTES:,} that are read from an archive"
            raise ImageError(f"{self.name} {what}.", kind="too large", path=self.name)
        try:
            content = _opened(self.archive).read(self.offset, self.size)
        except ImgcapError:
            raise
        except Exception as error:  # each of fsspec's file systems has errors of its own
            sentence = f"{self.name} cannot be read: {_why(error)}."
            raise ImageError(sentence, kind="unreadable", path=self.name) from None
        if len(content) < self.size:
            raise ImageError(f"{self.name} is cut off: its archive ends before.", path=self.name)
        return content


def is_archive(text: str) -> bool:
    """Whether an input is a tar archive, or a pattern of several, and no image or folder."""
    return is_url(text) or (text.lower().endswith(_ENDINGS) and not os.path.isdir(text))  # noqa: PTH112 (as in `expand`)


def is_url(text: str) -> bool:
    return "://" in text


def expand_braces(pattern: str) -> list[str]:
    """The names that `pattern` stands for: "{000..999}" is a range of numbers, "{a,b}" one of several texts.

    Raises `UsageError` if they are more than `MOST_ARCHIVES`.
    """
    names = [""]
    end = 0
    for match in _BRACES.finditer(pattern):
        choices = match[3].split(",") if match[3] is not None else _numbers(match[1], match[2], pattern)
        if len(names) * len(choices) > MOST_ARCHIVES:
            raise _too_many(pattern)
        names = [name + pattern[end : match.start()] + choice for name in names for choice in choices]
        end = match.end()
    return [name + pattern[end:] for name in names]


def _numbers(first: str, last: str, pattern: str) -> list[str]:
    """As a shell counts: up or down, with leading zeros if one of the ends has them."""
    padded = any(len(number) > 1 and number.startswith("0") for number in (first, last))
    width = max(len(first), len(last)) if padded else 0
    begin, end = int(first), int(last)
    if abs(end - begin) >= MOST_ARCHIVES:
        raise _too_many(pattern)
    step = 1 if begin <= end else -1
    return [f"{number:0{width}}" for number in range(begin, end + step, step)]


def _too_many(pattern: str) -> UsageError:
    return UsageError(f"{pattern} stands for more than {MOST_ARCHIVES:,} archives.")


def images_in(location: str, selection: Selection = EVERYTHING) -> Iterator[ArchivedFile | ImageError]:
    """The images in an archive that `selection` takes, in their order; none is read.

    What is hidden is left out. In the place of an image that cannot be used, and of an archive that cannot be read or
    has no image, comes a `ImageError`. Raises `ImgcapError` if a package is missing that URLs need.
    """

    def wanted(member: str) -> bool:
        parts = tuple(member.split("/"))
        return is_image_name(member) and (selection.recursive or len(parts) == 1) and selection.takes(parts)

    empty = True
    for found in archived_files(location, wanted):
        empty = False
        yield found
    if empty:
        hint = "Members that are named like images count, and --include and --exclude choose among them."
        yield ImageError(f"The archive {location} holds no images.", hint, "empty folder", location)


def find_image(name: str, locations: Container[str]) -> ArchivedFile:
    """The image that is called ARCHIVE/MEMBER, where ARCHIVE is one of `locations`. Raises `ImageError`."""
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
    """The files in an archive whose names are `wanted`, hidden ones left out, in their order; nothing else is read.

    In the place of one that cannot be used, and of an archive or a rest of it that cannot be read, comes a
    `ImageError`. Raises `ImgcapError` if a package is missing that URLs need.
    """
    try:
        archive = Archive(location, _stamp(location))
        opened = _opened(archive)
        compressed = opened.read(0, 6).startswith(_COMPRESSED)
    except ImageError as error:
        yield error
        return
    except ImgcapError:
        raise
    except FileNotFoundError:
        yield ImageError(f"The archive {location} does not exist.", kind="missing", path=location)
        return
    except Exception as error:  # each of fsspec's file systems has errors of its own
        sentence = f"The archive {location} cannot be read: {_why(error)}."
        yield ImageError(sentence, kind="unreadable", path=location)
        return
    if compressed:
        sentence = f"The archive {location} is compressed, so that no image can be read from it on its own."
        yield ImageError(sentence, "Decompress it to a .tar first, for example with gunzip.", "unsupported", location)
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
    except Exception as error:  # on damaged archives tarfile raises whatever it stumbles over
        yield ImageError(f"The rest of the archive {location} cannot be read: {_why(error)}.", path=location)


def _is_hidden(member: str) -> bool:
    return any(part.startswith(".") and part != ".." for part in member.split("/"))


def _refusal(entry: tarfile.TarInfo, member: str, seen: set[str]) -> tuple[Kind, str] | None:
    """Why a member is not used, in words that follow its name."""
    if member.startswith("/") or ".." in member.split("/"):
        return "unsupported", "has a name that leads out of its archive"
    if entry.issparse():
        return "unsupported", "is stored as a sparse file"
    if not entry.isreg():
        return "not an image", "is a link or a device, not a file"
    if member in seen:
        return "unsupported", "has the name of a file before it in its archive"
    return None


def _entries(opened: _OpenArchive) -> Iterator[tarfile.TarInfo]:
    """The headers of an archive, one at a time. Raises whatever tarfile does if one is damaged."""
    headers = cast(IO[bytes], _Headers(opened))
    with tarfile.open(fileobj=headers, mode="r:", encoding="utf-8", errors="surrogateescape") as tar:
        before = 0
        while entry := tar.next():
            if entry.size < 0 or tar.offset <= before:
                raise tarfile.ReadError("a file has a size below 0")
            before = tar.offset
            tar.members.clear()  # type: ignore[attr-defined]  # else it would keep them all
            yield entry
        if opened.read(tar.offset, tarfile.BLOCKSIZE).strip(b"\0"):
            raise tarfile.ReadError("the header of a file is damaged")


class _Headers:
    """The part of a file's interface by which tarfile reads headers, which may not be of any length."""

    def __init__(self, opened: _OpenArchive) -> None:
        self._opened, self._place = opened, 0

    def tell(self) -> int:
        return self._place

    def seek(self, place: int) -> int:
        self._place = place
        return place

    def read(self, size: int) -> bytes:
        if not 0 <= size <= _MOST_HEADER:
            raise tarfile.ReadError(f"a header has {size:,} bytes")
        content = self._opened.read(self._place, size)
        self._place += len(content)
        return content


class _OpenArchive:
    """The bytes of an archive, for any number of threads."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._lock = file, Lock()
        self._size = file.seek(0, os.SEEK_END)
        weakref.finalize(self, file.close)

    def read(self, offset: int, size: int) -> bytes:
        """`size` bytes, or those that there are: no memory is taken for what is only declared."""
        with self._lock:
            self._file.seek(offset)
            return self._file.read(max(0, min(size, self._size - offset)))


@lru_cache(_OPEN_ARCHIVES)
def _opened(archive: Archive) -> _OpenArchive:
    if _stamp(archive.location) != archive.stamp:  # elsewhere in it are other images now
        sentence = f"The archive {archive.location} has changed since it was listed."
        raise ImageError(sentence, kind="unreadable", path=archive.location)
    if not is_url(archive.location):
        return _OpenArchive(Path(archive.location).open("rb"))
    system, path = _file_system(archive.location)
    options = {"maxblocks": _BLOCKS}
    return _OpenArchive(system.open(path, "rb", block_size=_BLOCK, cache_type="blockcache", cache_options=options))


def _stamp(location: str) -> tuple[str, ...]:
    """What `Archive.stamp` says. Raises `ImageError` for what is no file, and whatever the file system does."""
    if is_url(location):
        system, path = _file_system(location)
        about = system.info(path)
        return tuple(str(about[name]) for name in _CHANGES if about.get(name) is not None)
    state = Path(location).stat()
    if not stat.S_ISREG(state.st_mode):  # opening a pipe would wait for somebody to write into it
        raise ImageError(f"{location} is not a file.", kind="not an image", path=location)
    return str(state.st_size), str(state.st_mtime_ns)


def _file_system(url: str) -> tuple[Any, str]:
    """fsspec's file system for a URL, and the path there. Raises `ImgcapError` if a package is missing."""
    try:
        from fsspec.core import url_to_fs
        from fsspec.registry import known_implementations
    except ImportError:
        raise ImgcapError(f"{url} needs fsspec, which is missing.", "pip install 'imgcap[remote]'") from None
    try:
        found: tuple[Any, str] = url_to_fs(url)
    except ImportError:
        protocol = url.partition("://")[0].rpartition("::")[2]
        package = known_implementations.get(protocol, {}).get("class", protocol).partition(".")[0]
        raise ImgcapError(f"{url} needs a package that is missing: {package}.", f"pip install {package}") from None
    except ValueError as error:
        raise ImgcapError(f"{url} is not a URL that can be read: {_why(error)}.") from None
    return found


def _why(error: Exception) -> str:
    if isinstance(error, OSError) and error.errno:
        return reason(error)
    return " ".join(str(error).split()).rstrip(".") or type(error).__name__
