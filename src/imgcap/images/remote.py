"""Files behind URLs, read through fsspec."""

from __future__ import annotations

import re
from typing import Any, BinaryIO, cast

from imgcap.files import reason
from imgcap.images.errors import ImageError

_BLOCK, _BLOCKS = 1 << 20, 32
"""Size and number of the cached blocks of an open file.

They cover what is listed ahead of being read, so that an archive read in order is downloaded once.
"""
_CHANGES = ("size", "mtime", "ETag", "etag", "md5Hash", "blob_id", "LastModified", "last_modified", "created")
"""Keys that change when a file is replaced, in fsspec's file systems."""
_PACKAGES = {
    "fsspec_xrootd": "fsspec-xrootd",
    "gdrive_fsspec": "gdrive-fsspec",
    "lakefs_spec": "lakefs-spec",
    "libarchive": "libarchive-c",
    "smbclient": "smbprotocol",
}
"""Names on PyPI of packages that are imported by another name."""


def open_url(url: str) -> BinaryIO:
    """A seekable file that downloads blocks as they are read. Raises `ImageError`, or any error of the file system."""
    system, path = _file_system(url)
    options = {"maxblocks": _BLOCKS}
    return cast(BinaryIO, system.open(path, "rb", block_size=_BLOCK, cache_type="blockcache", cache_options=options))


def url_stamp(url: str) -> tuple[str, ...]:
    """What changes when the file is replaced: size, time, ETag. Raises as `open_url` does."""
    system, path = _file_system(url)
    about = system.info(path)
    return tuple(str(about[name]) for name in _CHANGES if about.get(name) is not None)


def matching_urls(pattern: str) -> list[str]:
    """The URLs that match a pattern with `*`, sorted; none if the server cannot be asked."""
    try:
        system, path = _file_system(pattern)
        found = sorted(str(system.unstrip_protocol(each)) for each in system.glob(path))
        return found if ":///" in pattern else [url.replace(":///", "://", 1) for url in found]
    except Exception:  # reading the pattern as it is reports the reason
        return []


def why(error: BaseException) -> str:
    """The end of a sentence that says what went wrong."""
    if isinstance(error, OSError) and error.errno:
        return reason(error)
    return " ".join(str(error).split()).rstrip(".") or type(error).__name__


def _file_system(url: str) -> tuple[Any, str]:
    """fsspec's file system for a URL, and the path in it. Raises `ImageError` if it cannot be had."""
    try:
        from fsspec.core import url_to_fs
    except ImportError:
        raise ImageError(f"{url} needs fsspec, which is missing.", "pip install fsspec", "unsupported", url) from None
    try:
        found: tuple[Any, str] = url_to_fs(url)
    except ImportError as error:
        package = _missing_package(url, error)
        sentence = f"{url} needs a package that is missing: {package}."
        raise ImageError(sentence, f"pip install {package}", "unsupported", url) from None
    except ValueError as error:
        sentence = f"{url} is not a URL that can be read: {why(error)}."
        raise ImageError(sentence, kind="unsupported", path=url) from None
    return found


def _missing_package(url: str, error: ImportError) -> str:
    """The package to install: the one whose import failed, else the one that fsspec names for the protocol."""
    from fsspec.registry import known_implementations

    cause = error.__cause__
    name = cause.name if isinstance(cause, ImportError) else error.name
    if not name:
        protocol = re.split("://", url)[0].rpartition("::")[2]
        name = known_implementations.get(protocol, {}).get("class", protocol)
    package = name.partition(".")[0]
    return _PACKAGES.get(package, package)
