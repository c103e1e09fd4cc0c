"""Data sets in archives: tar archives in WebDataset's convention, and Parquet files as Hugging Face writes them."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from imgcap.dataset.parquet import parquet_samples
from imgcap.dataset.records import Entry, LeftOut, Sample
from imgcap.dataset.tars import tar_samples
from imgcap.images.archived import ArchivedFile
from imgcap.images.errors import ImageError
from imgcap.images.locations import archive_locations, is_parquet, is_url
from imgcap.images.parquet import ParquetImage, images_in_rows
from imgcap.text.columns import DETECTED, Columns


class ArchiveDataset:
    """The images in archives, and the captions that they have there."""

    def __init__(self, pattern: str, columns: Columns = DETECTED, have_captions: bool = True) -> None:
        """List the archives that `pattern` names. Raises `ImgcapError` if one of them cannot be read.

        Without `have_captions`, Parquet files need no captions, because those are elsewhere.
        """
        names = archive_locations(pattern)
        locations = [name if is_url(name) else Path(name).resolve().as_posix() for name in names]
        self.root = _common_folder(locations)
        self.archives = tuple(dict.fromkeys(_relative(location, self.root) for location in locations))
        self.images: dict[str, ArchivedFile] = {}
        """By path relative to `root`."""
        self.entries: list[Entry] = []
        self.left_out: dict[str, str] = {}
        for location in dict.fromkeys(locations):
            if not is_parquet(location):
                self._add(tar_samples(location, columns))
            elif have_captions:
                self._add(parquet_samples(location, columns))
            else:
                self._add(map(_without_captions, images_in_rows(location, lambda _member: True)))
        self._merge_rows_of_one_image()

    def _add(self, samples: Iterable[Sample | LeftOut]) -> None:
        for sample in samples:
            if isinstance(sample, LeftOut):
                self.left_out[_relative(sample.name, self.root)] = sample.reason
                continue
            path = _relative(sample.image.name, self.root)
            self.images[path] = sample.image
            self.entries += (Entry(path, caption, sample.split, path) for caption in sample.captions)

    def _merge_rows_of_one_image(self) -> None:
        """Give the captions of equal images to the first of them, where a Parquet file has one caption a row.

        Images are read if their rows give no file name, or one that other rows give too.
        """
        rows = {path: image for path, image in self.images.items() if isinstance(image, ParquetImage)}
        captions = Counter(entry.name for entry in self.entries)
        names = Counter(image.original for image in rows.values())
        first: dict[bytes, str] = {}
        same: dict[str, str] = {}
        for path, image in rows.items():
            if captions[path] == 1 and (image.original is None or names[image.original] > 1):
                with suppress(ImageError):  # reported when the image is encoded
                    same[path] = first.setdefault(hashlib.sha256(image.read()).digest(), path)
        for path, one in same.items():
            if path != one:
                del self.images[path]
        self.entries = [replace(entry, name=same.get(entry.name, entry.name)) for entry in self.entries]


def _without_captions(image: ArchivedFile | ImageError) -> Sample:
    if isinstance(image, ImageError):
        raise image
    return Sample(image)


def _common_folder(locations: Sequence[str]) -> str:
    """The longest path or URL that all locations are below; "" if they have none in common."""
    folders = [location.split("/")[:-1] for location in locations]
    same = 0
    for parts in zip(*folders):  # noqa: B905 (the shortest ends it)
        if len(set(parts)) > 1:
            break
        same += 1
    return "/".join(folders[0][:same])


def _relative(location: str, root: str) -> str:
    return location.removeprefix(root + "/") if root else location
