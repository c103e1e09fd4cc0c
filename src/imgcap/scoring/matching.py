"""Find the image that a caption file names, although another file may write the name differently."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from imgcap.errors import ImgcapError, listing
from imgcap.images.discovery import is_image_name

_Parts = tuple[str, ...]
"""Folders and file name of a path, without the ending of an image."""


class _Known(NamedTuple):
    """A path of a known image."""

    image_id: str
    ending: str
    outer: str
    """The folder before the part of the path that is compared, or ""."""


class ImageIndex:
    """Finds images by their ids and file names.

    A name finds the image with this id, or else the one image whose path agrees: `photos/a.jpg` and `a.jpg` agree,
    `cats/a.jpg` and `dogs/a.jpg` do not. Nor do `cats/a.jpg` and `a.jpg` if there are images in `cats` on both sides.
    Paths are compared in Unicode NFC, with the ending of an image in any case; one of the two may lack the ending.
    """

    def __init__(self, names: Mapping[str, Iterable[str]], where: str, sought: Iterable[str] = ()) -> None:
        """Index the image ids in `names` and the other names of each, such as its file name.

        `where` says where they come from; `sought` are the names to be found.
        """
        self._ids, self._where = names.keys(), where
        self._by_name: dict[str, set[str]] = {}
        self._by_path: dict[_Parts, list[_Known]] = {}
        self._by_end_of_path: dict[_Parts, list[_Known]] = {}
        self._folders: set[str] = set()
        self._sought_folders = {folder for name in sought for folder in _split(name)[0][:-1]}
        for image_id, given in names.items():
            others = list(given)
            for name in others:
                self._by_name.setdefault(name, set()).add(image_id)
            # An id such as 7 is no file name without ending if the image has a file name.
            paths = others if not is_image_name(image_id) and any(map(is_image_name, others)) else [image_id, *others]
            for parts, ending in dict.fromkeys(map(_split, paths)):
                self._folders.update(parts[:-1])
                self._by_path.setdefault(parts, []).append(_Known(image_id, ending, ""))
                for start in range(1, len(parts)):
                    known = _Known(image_id, ending, parts[start - 1])
                    self._by_end_of_path.setdefault(parts[start:], []).append(known)

    def find(self, name: str, others: Sequence[str] = ()) -> str | None:
        """The id of the image with this name, or else with one of the `others`; None if there is none.

        Raises `ImgcapError` if several images have the name.
        """
        names = (name, *others)
        for each in names:
            if each in self._ids:
                return each
        for each in names:
            if found := self._by_name.get(each) or self._agreeing(each):
                if len(found) > 1:
                    raise several_images(each, found, self._where)
                return next(iter(found))
        return None

    def same_file_name(self, name: str) -> str | None:
        """The id of an image with the file name of `name` in another folder."""
        last = _split(name)[0][-1:]
        found = [*self._by_end_of_path.get(last, ()), *self._by_path.get(last, ())]
        return found[0].image_id if found else None

    def _agreeing(self, name: str) -> set[str]:
        """The images whose paths have most parts in common with `name`, of those that agree with it."""
        parts, ending = _split(name)
        longer = [known for known in self._by_end_of_path.get(parts, ()) if known.outer not in self._sought_folders]
        candidates = [self._by_path.get(parts, []), longer]
        candidates += [
            self._by_path.get(parts[start:], [])
            for start in range(1, len(parts))
            if parts[start - 1] not in self._folders
        ]
        for known in candidates:
            same = {each.image_id for each in known if each.ending == ending}
            if found := same or {each.image_id for each in known if not (each.ending and ending)}:
                return found
        return set()


def several_images(name: str, image_ids: Iterable[str], where: str) -> ImgcapError:
    """The error for a name of several images."""
    return ImgcapError(
        f"Several images in {where} have the name {name}: {listing(sorted(image_ids))}.",
        "Name images by a path that tells them apart.",
    )


def _split(path: str) -> tuple[_Parts, str]:
    """The parts of a path, and the ending of an image in lower case, or ""."""
    names = unicodedata.normalize("NFC", path).replace("\\", "/").split("/")
    parts = [name for name in names if name not in ("", ".", "..")] or [path]
    stem, ending = os.path.splitext(parts[-1]) if is_image_name(parts[-1]) else (parts[-1], "")  # noqa: PTH122
    return (*parts[:-1], stem), ending.lower()
