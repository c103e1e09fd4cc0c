"""Image files: which of the files in a folder are images, and what is said of one that cannot be used."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import lru_cache
from pathlib import Path, PurePosixPath

from imgcap.errors import UsageError
from imgcap.files import reason
from imgcap.images.errors import ImageError

HEIF_SUFFIXES = frozenset({".heic", ".heif", ".hif"})
"""Of these, the ones that need pillow-heif."""
SUFFIXES = HEIF_SUFFIXES | {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif", ".tif", ".tiff", ".bmp", ".avif"}
"""File name endings, in lower case, that count as images when a folder is searched."""


@dataclass(frozen=True)
class Selection:
    """Which images of a folder are taken. Raises `UsageError` for a pattern without a name in it.

    A pattern is matched against the path inside the folder, written with "/": `*` is any part of a name, `?` one
    character, `[ab]` one of several, `**` any number of folders. A pattern without a slash, or with one only at its
    end, holds in every sub-folder, as if it began with `**/`. One that matches a folder stands for all that is in it.
    Case counts where it counts in file names, but not in the ending: `*.jpg` matches IMG_1.JPG.
    """

    recursive: bool = True
    """Whether sub-folders are searched."""
    include: tuple[str, ...] = ()
    """Patterns of which an image must match one; without any, all images are taken."""
    exclude: tuple[str, ...] = ()
    """Patterns of which an image must match none; a folder that matches one is not even looked into."""

    def __post_init__(self) -> None:
        for pattern in (*self.include, *self.exclude):
            if not PurePosixPath(pattern).name:
                raise UsageError(f"{pattern!r} is not a pattern for file names.", "Write for example '*.jpg'.")

    def takes(self, path: tuple[str, ...]) -> bool:
        """Whether the file with this path, its parts inside the folder, is taken."""
        return (not self.include or _matches_any(path, self.include)) and not _matches_any(path, self.exclude)

    def enters(self, path: tuple[str, ...]) -> bool:
        """Whether the sub-folder with this path is searched."""
        return self.recursive and not _matches_any(path, self.exclude)


EVERYTHING = Selection()


def _matches_any(path: tuple[str, ...], patterns: tuple[str, ...]) -> bool:
    return any(_matches(tuple(map(_fold, path)), _split(pattern)) for pattern in patterns)


def _matches(path: tuple[str, ...], pattern: tuple[str, ...]) -> bool:
    """Whether `pattern` matches `path` or a folder on its way."""
    if not pattern:
        return True
    if pattern[0] == "**":
        return any(_matches(path[skipped:], pattern[1:]) for skipped in range(len(path) + 1))
    return bool(path) and fnmatchcase(path[0], pattern[0]) and _matches(path[1:], pattern[1:])


@lru_cache(maxsize=1024)
def _split(pattern: str) -> tuple[str, ...]:
    parts = tuple(_fold(part) for part in PurePosixPath(pattern).parts if part != "/")
    return parts if "/" in pattern.rstrip("/") else ("**", *parts)


def _fold(name: str) -> str:
    stem, ending = os.path.splitext(os.path.normcase(name))  # noqa: PTH122 (a Path is slow to make a million times)
    return stem + ending.lower()


def is_image_name(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in SUFFIXES  # noqa: PTH122 (as above)


def find_images(folder: Path, selection: Selection = EVERYTHING) -> Iterator[Path]:
    """The images in `folder` that `selection` takes: those of the folder itself first, then sub-folder by sub-folder,
    each sorted.

    What is hidden is left out, and so is what is named like an image and is no file. Links to files count as files;
    links to folders are not followed, so that nothing comes twice and no loop is entered. Raises `ImageError` at the
    first folder that cannot be read.
    """
    for found in _walk(folder, selection):
        if isinstance(found, ImageError):
            raise found
        yield found


def expand(paths: Iterable[Path], selection: Selection = EVERYTHING) -> Iterator[Path | ImageError]:
    """Files as they are given, hidden or not, and folders replaced by what `find_images` finds in them.

    In the place of a folder that cannot be read, or has no image that `selection` takes, comes a `ImageError`.
    """
    for path in paths:
        if not os.path.isdir(path):  # noqa: PTH112 (Path.is_dir raises for names that are forbidden or too long)
            yield path
            continue
        empty = True
        for found in _walk(path, selection):
            empty = False
            yield found
        if empty:
            yield no_images(path, selection)


def no_images(folder: Path, selection: Selection = EVERYTHING) -> ImageError:
    """The error for a folder in which `find_images` finds nothing."""
    hint = f"Looked for {', '.join(sorted(SUFFIXES))}"
    if selection.include:
        hint += f" among {', '.join(selection.include)}"
    if selection.exclude:
        hint += f" without {', '.join(selection.exclude)}"
    if not selection.recursive:
        hint += ", not in sub-folders"
    return ImageError(f"The folder {folder} holds no images.", f"{hint}.", "empty folder", str(folder))


def _walk(folder: Path, selection: Selection) -> Iterator[Path | ImageError]:
    """What `find_images` finds, with an error in the place of each folder that cannot be read.

    Holds the names in one folder at a time, and the folders that are still to be searched on the way down to it.
    """
    waiting: list[tuple[Path, tuple[str, ...]]] = [(folder, ())]  # with its path inside `folder`
    while waiting:
        here, path = waiting.pop()
        files: list[str] = []
        folders: list[str] = []
        try:
            with os.scandir(here) as entries:
                for entry in entries:
                    if entry.name.startswith("."):
                        continue
                    if entry.is_dir(follow_symlinks=False):
                        if selection.enters((*path, entry.name)):
                            folders.append(entry.name)
                    elif is_image_name(entry.name) and _is_file(entry) and selection.takes((*path, entry.name)):
                        files.append(entry.name)
        except OSError as error:
            sentence = f"The folder {here} cannot be read: {reason(error)}."
            yield ImageError(sentence, kind="unreadable", path=str(here))
        for name in sorted(files):
            yield here / name
        waiting += ((here / name, (*path, name)) for name in sorted(folders, reverse=True))


def _is_file(entry: os.DirEntry[str]) -> bool:
    """Whether `entry` is a file, a link to one, or a broken link, which is for `open_image` to report."""
    if not entry.is_symlink():
        return entry.is_file()
    return os.path.isfile(entry.path) or not os.path.exists(entry.path)  # noqa: PTH110, PTH113 (as in `expand`)
