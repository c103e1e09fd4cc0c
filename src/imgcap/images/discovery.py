"""Find the images in folders."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import lru_cache
from pathlib import Path, PurePosixPath

from imgcap.errors import UsageError
from imgcap.files import reason
from imgcap.images.errors import ImageError

HEIF_SUFFIXES = frozenset({".heic", ".heif", ".hif"})
"""Endings of images that need pillow-heif."""
SUFFIXES = HEIF_SUFFIXES | {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif", ".tif", ".tiff", ".bmp", ".avif"}
"""File name endings, in lower case, of the images that a search of a folder finds."""
UNREADABLE_SUFFIXES = frozenset(
    f".{ending}"
    for endings in (
        "3fr arw cr2 cr3 crw dcr dng erf gpr iiq kdc mef mos mrw nef nrw orf pef raf raw rw2 rwl sr2 srf srw x3f",
        "ai cur dds eps exr fits hdr icns ico j2k jp2 jpf jpm jpx jxl jxr pbm pcx pgm pnm ppm psb psd qoi svg svgz tga",
        "wdp xcf",
    )
    for ending in endings.split()
)
"""File name endings of images in formats that imgcap cannot read: camera RAW, JPEG XL, drawings and others."""

_SYSTEM_FOLDERS = frozenset(
    {
        "$recycle.bin",
        "#recycle",
        "#snapshot",
        "@__thumb",
        "@eadir",
        "@recently-snapshot",
        "@recycle",
        "@sharebin",
        "@tmp",
        "__macosx",
        "lost+found",
        "system volume information",
    }
)
"""Folders, in lower case, where network drives and systems keep thumbnails, deleted files and snapshots."""


@dataclass(frozen=True)
class Selection:
    """Which images of a folder to take. Raises `UsageError` for a pattern that names nothing.

    A pattern is matched against the path inside the folder, written with "/": `*` is any part of a name, `?` one
    character, `[ab]` one of several, `**` any number of folders. A pattern without a slash, or with a slash only at
    its end, applies in every sub-folder, as if it began with `**/`. A pattern that matches a folder takes everything
    in it. Case counts where it counts in file names, but not in the ending: `*.jpg` matches IMG_1.JPG.
    """

    recursive: bool = True
    """Whether to search sub-folders."""
    include: tuple[str, ...] = ()
    """An image must match one of these; if empty, all images are taken."""
    exclude: tuple[str, ...] = ()
    """An image must match none of these; a folder that matches one is not searched."""

    def __post_init__(self) -> None:
        for pattern in (*self.include, *self.exclude):
            if not PurePosixPath(pattern).name:
                raise UsageError(f"{pattern!r} is not a pattern for file names.", "Write for example '*.jpg'.")

    def takes(self, path: tuple[str, ...]) -> bool:
        """Whether to take the file with this path, as its parts inside the folder."""
        return (not self.include or _matches_any(path, self.include)) and not _matches_any(path, self.exclude)

    def enters(self, path: tuple[str, ...]) -> bool:
        """Whether to search the sub-folder with this path."""
        return self.recursive and not _matches_any(path, self.exclude)


EVERYTHING = Selection()


def _matches_any(path: tuple[str, ...], patterns: tuple[str, ...]) -> bool:
    return any(_matches(tuple(map(_fold, path)), _split(pattern)) for pattern in patterns)


def _matches(path: tuple[str, ...], pattern: tuple[str, ...]) -> bool:
    """Whether `pattern` matches `path` or one of its parent folders."""
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


def is_hidden(name: str) -> bool:
    """Whether a search skips the file or folder with this name: hidden ones, and those of network drives."""
    return name.startswith(".") or name.lower() in _SYSTEM_FOLDERS


def find_images(
    folder: Path, selection: Selection = EVERYTHING, unreadable: Counter[str] | None = None
) -> Iterator[Path]:
    """The images in `folder` that `selection` takes: those of the folder itself first, then each sub-folder's, sorted.

    Hidden images, thumbnails of network drives, and entries that are not files are skipped. Links to files count as
    files; links to folders are not followed, so that nothing appears twice and no loop is entered. Images in formats
    that imgcap cannot read are counted in `unreadable`, by ending. Raises `ImageError` at the first folder that cannot
    be read.
    """
    for found in _walk(folder, selection, is_image_name, unreadable):
        if isinstance(found, ImageError):
            raise found
        yield found


def find_files(folder: Path, wanted: Callable[[str], bool]) -> Iterator[Path]:
    """The files in `folder` whose names are `wanted`, searched like images; folders that cannot be read are skipped."""
    return (found for found in _walk(folder, EVERYTHING, wanted) if isinstance(found, Path))


def expand(
    paths: Iterable[Path], selection: Selection = EVERYTHING, unreadable: Counter[str] | None = None
) -> Iterator[Path | ImageError]:
    """Files as they are given, hidden or not, and folders replaced by the images that `find_images` finds in them.

    A folder that cannot be read, or has no image that `selection` takes, yields an `ImageError` in its place.
    """
    for path in paths:
        if not os.path.isdir(path):  # noqa: PTH112 (Path.is_dir raises for names that are forbidden or too long)
            yield path
            continue
        empty = True
        skipped: Counter[str] = Counter()
        for found in _walk(path, selection, is_image_name, skipped):
            empty = False
            yield found
        if empty:
            yield no_images(path, selection, skipped)
        if unreadable is not None:
            unreadable += skipped


def no_images(folder: Path, selection: Selection = EVERYTHING, unreadable: Counter[str] | None = None) -> ImageError:
    """The error for a folder in which `find_images` finds nothing."""
    hint = f"Looked for {', '.join(sorted(SUFFIXES))}"
    if selection.include:
        hint += f" among {', '.join(selection.include)}"
    if selection.exclude:
        hint += f" without {', '.join(selection.exclude)}"
    if not selection.recursive:
        hint += ", not in sub-folders"
    hint += "."
    if unreadable:
        hint += f" It holds images that imgcap cannot read: {counted(unreadable)}."
    return ImageError(f"The folder {folder} holds no images.", hint, "empty folder", str(folder))


def counted(unreadable: Counter[str]) -> str:
    """ "12 .cr2, 1 .jxl", for a sentence."""
    ordered = sorted(unreadable.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{count:,} {suffix}" for suffix, count in ordered)


def _walk(
    folder: Path, selection: Selection, wanted: Callable[[str], bool], unreadable: Counter[str] | None = None
) -> Iterator[Path | ImageError]:
    """The `wanted` files, and an error in the place of each folder that cannot be read.

    Holds the names in one folder at a time, and the folders still to be searched on the way down to it.
    """
    waiting: list[tuple[Path, tuple[str, ...]]] = [(folder, ())]  # with its path inside `folder`
    while waiting:
        here, path = waiting.pop()
        files: list[str] = []
        folders: list[str] = []
        try:
            for entry in _visible_entries(here):
                name_in_folder = (*path, entry.name)
                if entry.is_dir(follow_symlinks=False):
                    if selection.enters(name_in_folder):
                        folders.append(entry.name)
                elif wanted(entry.name):
                    if _is_file(entry) and selection.takes(name_in_folder):
                        files.append(entry.name)
                elif unreadable is not None:
                    count_unreadable(name_in_folder, selection, unreadable)
        except OSError as error:
            sentence = f"The folder {here} cannot be read: {reason(error)}."
            yield ImageError(sentence, kind="unreadable", path=str(here))
        for name in sorted(files):
            yield here / name
        waiting += ((here / name, (*path, name)) for name in sorted(folders, reverse=True))


def _visible_entries(folder: Path) -> Iterator[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        yield from (entry for entry in entries if not is_hidden(entry.name))


def unreadable_suffix(name: str) -> str | None:
    """The ending, in lower case, of an image in a format that imgcap cannot read; None for other names."""
    suffix = os.path.splitext(name)[1].lower()  # noqa: PTH122 (as above)
    return suffix if suffix in UNREADABLE_SUFFIXES else None


def count_unreadable(path: tuple[str, ...], selection: Selection, unreadable: Counter[str]) -> None:
    """Count the file with this path in `unreadable` if it is an image in a format that imgcap cannot read."""
    suffix = unreadable_suffix(path[-1])
    if suffix and selection.takes(path):
        unreadable[suffix] += 1


def _is_file(entry: os.DirEntry[str]) -> bool:
    """Whether `entry` is a file, a link to one, or a broken link, which `open_image` reports."""
    if not entry.is_symlink():
        return entry.is_file()
    return os.path.isfile(entry.path) or not os.path.exists(entry.path)  # noqa: PTH110, PTH113 (as in `expand`)
