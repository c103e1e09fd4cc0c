"""Match the image names in captions and split lists to the images of a folder or of tar archives."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterable
from pathlib import Path

from imgcap.errors import listing
from imgcap.images.discovery import SUFFIXES, find_images, unreadable_suffix


class ImageFinder:
    """Finds an image by path, file name or stem, among the given images only.

    Folders in a name are binding: `cats/1.jpg` is never `dogs/1.jpg`. But a name may leave out outer folders, and it
    may begin above `root`, the folder of all images. Names are compared in Unicode's normal form NFC, and endings
    without case.
    """

    def __init__(self, paths: Iterable[str], root: Path | str = "") -> None:
        self.paths = set(paths)
        """Relative to `root`, with "/"."""
        self._root, self._root_names = root, _names_of(root)
        self._by_stem: dict[str, list[str]] = {}
        self._folders: set[str] = set()
        for path in sorted(self.paths):
            *folders, last = _parts(path)
            self._folders.update(folders)
            self._by_stem.setdefault(_stem_and_ending(last)[0], []).append(path)

    @classmethod
    def in_folder(cls, folder: Path) -> ImageFinder:
        """A finder for all images in `folder`, by paths relative to it. Raises `ImgcapError` if it cannot be read."""
        return cls((path.relative_to(folder).as_posix() for path in find_images(folder)), folder)

    def find(self, name: str) -> str | None:
        """The image's path relative to the root; None if there is none, or if several have this name."""
        if name in self.paths:
            return name
        *folders, last = _parts(name) or [""]
        found = self._candidates(folders, last)
        return found[0] if len(found) == 1 else None

    def why_not(self, name: str) -> str | None:
        """Why `find` returns None for `name`, where the reason is not that nothing has its file name."""
        *folders, last = _parts(name) or [""]
        if found := self._candidates(folders, last):
            return f"several images have this name: {listing(found, 3)}"
        if suffix := unreadable_suffix(last):
            return f"is an image in a format that imgcap cannot read ({suffix})"
        if folders and (found := self._of_file_name(last)):
            return f"no image in its folder has this name, only {listing(found, 3)}"
        return None

    def names_root(self, name: str, path: str) -> bool | None:
        """Whether `name`, which finds `path`, begins above the root and names it; None if it does not begin above."""
        folders, inner = _parts(name)[:-1], len(_parts(path)) - 1
        return folders[-inner - 1] in self._root_names if len(folders) > inner else None

    def contradict(self, names: Iterable[str]) -> bool:
        """Whether `names` of one image name different folders: then one of them means another image."""
        longest: list[str] = []
        for name in names:
            folders = _parts(name)[:-1]
            longer, shorter = (folders, longest) if len(folders) > len(longest) else (longest, folders)
            if longer[len(longer) - len(shorter) :] != shorter:
                return True
            longest = longer
        return False

    def _candidates(self, folders: list[str], last: str) -> list[str]:
        found = [path for path in self._of_file_name(last) if self._agrees(folders, _parts(path)[:-1])]
        exact = [path for path in found if _parts(path)[:-1] == folders]
        return exact if len(exact) == 1 else found

    def _of_file_name(self, last: str) -> list[str]:
        stem, ending = _stem_and_ending(last)
        return [path for path in self._by_stem.get(stem, ()) if ending in ("", _stem_and_ending(path)[1])]

    def _agrees(self, named: list[str], actual: list[str]) -> bool:
        """Whether the folders in a name can be those of an image."""
        if len(named) <= len(actual):
            return not named or named == actual[-len(named) :]
        outer = len(named) - len(actual)
        if named[outer:] != actual:
            return False
        return named[outer - 1] in self._root_names or not self._is_folder(named[outer - 1])

    def _is_folder(self, name: str) -> bool:
        """Whether the root holds this folder, so that a name with it cannot begin above the root."""
        return name in self._folders or (isinstance(self._root, Path) and (self._root / name).is_dir())


def _names_of(root: Path | str) -> set[str]:
    """The last parts of `root`, as it is named and as the system knows it; none if it is unknown."""
    text = str(root)
    if not text:
        return set()
    names = {text} if "://" in text else {text, os.path.realpath(text), os.path.abspath(text)}  # noqa: PTH100
    return {parts[-1] for name in names if (parts := _parts(name))}


def _parts(path: str) -> list[str]:
    """The folders and the file name of `path`, in NFC, without "." and ".."."""
    parts: list[str] = []
    for part in unicodedata.normalize("NFC", path.replace("\\", "/")).split("/"):
        if part == "..":
            parts = parts[:-1]
        elif part not in ("", "."):
            parts.append(part)
    return parts


def _stem_and_ending(name: str) -> tuple[str, str]:
    """A file name in NFC, cut before the ending of an image, which becomes lower case."""
    stem, ending = os.path.splitext(unicodedata.normalize("NFC", name))  # noqa: PTH122 (a Path is slower)
    return (stem, ending.lower()) if ending.lower() in SUFFIXES else (stem + ending, "")
