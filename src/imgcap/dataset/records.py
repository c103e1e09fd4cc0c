"""What a data set consists of: captions as a file has them, and images with their captions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from imgcap.images.archived import ArchivedFile


@dataclass(frozen=True)
class Entry:
    """One caption as a file has it."""

    name: str
    """The name of its image."""
    caption: str
    split: str | None = None
    """None if the file does not name the split."""
    place: str = ""
    """Where the caption is: "captions.csv, line 3"."""


@dataclass(frozen=True)
class Sample:
    """An image in an archive, with the captions that it has there."""

    image: ArchivedFile
    captions: Sequence[str] = ()
    split: str | None = None


NO_CAPTION = "no caption names it"
"""The reason for an image that nobody has captioned; all other reasons are faults of an input."""


@dataclass(frozen=True)
class LeftOut:
    """Something in a data set that cannot be used."""

    name: str
    """An image, or the place of a row: "captions.csv, line 3"."""
    reason: str


@dataclass(frozen=True)
class Record:
    """An image with its captions."""

    image_id: str
    """The image's name in the caption file."""
    path: str
    """Path of the image, relative to the `root` of the data set."""
    captions: tuple[str, ...]
    split: str | None
    """None if the image is in no split."""


@dataclass(frozen=True)
class Dataset:
    """A captioned data set."""

    root: Path | str
    """The folder of the images, or the path or URL that the names of their archives are relative to."""
    records: tuple[Record, ...]
    left_out: tuple[LeftOut, ...]
    archives: tuple[str, ...] = ()
    """Archives of the images, relative to `root`."""
    archived: Mapping[str, ArchivedFile] = field(default_factory=dict)
    """The images in `archives`, by the paths of their records."""

    @property
    def location(self) -> str:
        """`root`, as an absolute path if it is a folder."""
        return str(self.root.resolve()) if isinstance(self.root, Path) else self.root

    def source(self, record: Record) -> Path | ArchivedFile:
        """The image of a record."""
        return self.root / record.path if isinstance(self.root, Path) else self.archived[record.path]
