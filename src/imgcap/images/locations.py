"""Which inputs name archives (tar and Parquet), and the archives that they name: lists, patterns, folders and URLs."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterator
from pathlib import Path

from imgcap.errors import UsageError
from imgcap.images.discovery import find_files, find_images
from imgcap.images.errors import ImageError

MOST_ARCHIVES = 1_000_000
"""Most archives that one input may name."""

_PARQUET = ".parquet"
_ENDINGS = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst", _PARQUET)
_BRACES = re.compile(r"\{(?:(\d{1,12})\.\.(\d{1,12})|([^{}]*,[^{}]*))\}", re.ASCII)
_HF_DATASET = re.compile(r"hf://datasets/[^/]+/[^/]+")
_CHAINED = re.compile(r"[a-z]+|(?:zip|tar|libarchive|reference|dir|[a-z]+cache|cached)://.*", re.ASCII)
"""A part of a URL that fsspec chains to the one after `::`, such as `simplecache` or `zip://*.tar`."""


def is_url(text: str) -> bool:
    return "://" in text


def is_parquet(location: str) -> bool:
    """Whether the path or URL of an archive is that of a Parquet file."""
    path = location.partition("?")[0] if is_url(location) else location
    return path.lower().endswith(_PARQUET)


def is_archive(text: str) -> bool:
    """Whether an input names archives: a path, a URL, a pattern or list of them, or a folder of them.

    A folder counts if it has archives but no image.
    """
    if os.path.isdir(text):  # noqa: PTH112 (Path.is_dir raises for names that are forbidden or too long)
        try:
            return next(find_images(Path(text)), None) is None and next(_archives_in(Path(text)), None) is not None
        except ImageError:  # reported when its images are read
            return False
    return is_url(text) or text.lower().endswith(_ENDINGS)


def archive_locations(text: str) -> list[str]:
    """The paths and URLs of the archives that an input names.

    `::` separates several, as in WebDataset; "{000..999}" is a range of numbers, "{a,b}" a choice, and `*`, `?` and
    `[ab]` match the names that exist. A folder, or a URL that ends with "/", stands for the archives in it, and so does
    the URL of a data set on Hugging Face (`hf://datasets/USER/NAME`). A pattern without a match stays as it is. Raises
    `UsageError` for more than `MOST_ARCHIVES`.
    """
    if os.path.isdir(text):  # noqa: PTH112 (as above)
        return [str(path) for path in _archives_in(Path(text))]
    found: list[str] = []
    for part in _parts(text):
        for pattern in expand_braces(part):
            found += _matches(pattern)
            if len(found) > MOST_ARCHIVES:
                raise _too_many(text)
    return found


def _archives_in(folder: Path) -> Iterator[Path]:
    return find_files(folder, lambda name: name.lower().endswith(_ENDINGS))


def _parts(text: str) -> Iterator[str]:
    """`text` cut at each `::` that separates archives."""
    chain = ""
    for part in text.split("::"):
        chain += part
        if _CHAINED.fullmatch(part):
            chain += "::"
        else:
            yield chain
            chain = ""
    if chain:
        yield chain.removesuffix("::")


def expand_braces(pattern: str) -> list[str]:
    """The texts that `pattern` stands for. Raises `UsageError` for more than `MOST_ARCHIVES`."""
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
    """Numbers as a shell counts: up or down, with leading zeros if either end has them."""
    padded = any(len(number) > 1 and number.startswith("0") for number in (first, last))
    width = max(len(first), len(last)) if padded else 0
    begin, end = int(first), int(last)
    if abs(end - begin) >= MOST_ARCHIVES:
        raise _too_many(pattern)
    step = 1 if begin <= end else -1
    return [f"{number:0{width}}" for number in range(begin, end + step, step)]


def has_wildcards(text: str) -> bool:
    """Whether `text` has `*`, `?` or `[...]`; in an HTTP URL, `?` starts a query."""
    return bool(re.search(r"\*|\[[^\]]+\]" if text.startswith("http") else r"[*?]|\[[^\]]+\]", text))


def _matches(pattern: str) -> list[str]:
    """The existing names that match `pattern`; the pattern itself if it has no wildcards or nothing matches."""
    if is_url(pattern):
        folder = pattern.rstrip("/") if pattern.endswith("/") or _HF_DATASET.fullmatch(pattern) else None
        if folder is None and not has_wildcards(pattern):
            return [pattern]
        from imgcap.images.remote import matching_urls

        if folder is None:
            return matching_urls(pattern) or [pattern]
        tars, rows = f"{folder}/*.tar", f"{folder}/**/*{_PARQUET}"
        return matching_urls(tars) or matching_urls(rows) or [rows if folder.startswith("hf:") else tars]
    if os.path.lexists(pattern) or not has_wildcards(pattern):
        return [pattern]
    return sorted(glob.glob(pattern, recursive=True)) or [pattern]  # noqa: PTH207 (keeps the path as it was written)


def _too_many(pattern: str) -> UsageError:
    return UsageError(f"{pattern} names more than {MOST_ARCHIVES:,} archives.")
