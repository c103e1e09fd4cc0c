"""Find the image that a caption file names, although another file may write the name differently."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterable, Mapping, Sequence

from imgcap.errors import ImgcapError, listing
from imgcap.images.discovery import is_image_name

_Parts = tuple[str, ...]
"""Folders and file name of a path, without the ending of an image."""


class ImageIndex:
    """Finds images by their ids and file names.

    A name finds the image with this id, or else the one image whose path agrees: `photos/a.jpg` and `a.jpg` agree,
    `cats/a.jpg` and `dogs/a.jpg` do not. Paths are compared in Unicode NFC, with the ending of an image in any case;
    one of the two may lack the ending.
    """

    def __init__(self, names: Mapping[str, Iterable[str]], where: str) -> None:
        """`names` holds the other names of each image id, such as its file name; `where` is where they come from."""
        self._where = where
        self._ids = names.keys()
        self._by_name: dict[str, set[str]] = {}
        self._by_path: dict[_Parts, list[tuple[str, str]]] = {}  # ending and id
        self._by_end_of_path: dict[_Parts, list[tuple[str, str]]] = {}
        for image_id, given in names.items():
            others = list(given)
            for name in others:
                self._by_name.setdefault(name, set()).add(image_id)
            # An id such as 7 is no file name without ending if the image has a file name.
            paths = others if not is_image_name(image_id) and any(map(is_image_name, others)) else [image_id, *others]
            for parts, ending in dict.fromkeys(map(_split, paths)):
                self._by_path.setdefault(parts, []).append((ending, image_id))
                for start in range(1, len(parts)):
                    self._by_end_of_path.setdefault(parts[start:], []).append((ending, image_id))

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
        return next((image_id for _, image_id in self._by_end_of_path.get(last, ())), None)

    def _agreeing(self, name: str) -> set[str]:
        """The images whose paths have most parts in common with `name`, of those that agree with it."""
        parts, ending = _split(name)
        candidates = [self._by_path.get(parts), self._by_end_of_path.get(parts)]
        candidates += [self._by_path.get(parts[start:]) for start in range(1, len(parts))]
        for entries in filter(None, candidates):
            same = {image_id for other, image_id in entries if other == ending}
            if found := same or {image_id for other, image_id in entries if not (other and ending)}:
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
