"""Sidecars: one small text file for each image, beside it or in a folder of their own."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryFile

from imgcap.errors import ImgcapError, UsageError
from imgcap.files import make_folder, reason, write_text
from imgcap.images.discovery import is_image_name

_SUFFIX = re.compile(r"\.[\w.-]{0,30}\w")


@dataclass(frozen=True)
class Sidecars:
    """Where captions are written. Raises `UsageError` for an ending that could hit an image.

    An image's sidecar has its name with another ending: `photo.jpg` gets `photo.txt`. Images of one folder that
    would share a sidecar keep their own ending too: `photo.jpg.txt` and `photo.png.txt`. So no two ever collide,
    whatever is captioned in which order.
    """

    suffix: str = ".txt"
    folder: Path | None = None
    """The folder that sidecars are mirrored under, sub-folders kept; None for beside the image."""
    root: Path = Path()
    """The folder of images that `folder` mirrors; see `common_root`."""
    overwrite: bool = False

    def __post_init__(self) -> None:
        if not _SUFFIX.fullmatch(self.suffix) or is_image_name("x" + self.suffix):
            raise UsageError(f"{self.suffix!r} cannot be the ending of sidecars.", "For example --sidecar .txt.")

    def check(self) -> None:
        """Raise `ImgcapError` if `folder` cannot be made or written to; best before the first caption."""
        if self.folder:
            make_folder(self.folder)
            try:
                TemporaryFile(dir=self.folder).close()
            except OSError as error:
                raise ImgcapError(f"The folder {self.folder} cannot be written to: {reason(error)}.") from None

    def path(self, image: Path) -> Path:
        """The sidecar's path."""
        plain = is_image_name(image.name) and image.name not in _ambiguous(image.parent)
        name = (image.stem if plain else image.name) + self.suffix
        if self.folder is None:
            return image.with_name(name)
        parent = Path(os.path.relpath(image.parent.absolute(), self.root.absolute()))
        if ".." in parent.parts:
            raise ImgcapError(f"{image} is not under {self.root}, so it has no place under {self.folder}.")
        return self.folder / parent / name

    def write(self, image: Path, text: str) -> Path:
        """Write `text` and return where. Raises `ImgcapError` if another text is there already, or it cannot be."""
        target = self.path(image)
        line = text + "\n"
        try:
            if target.exists() and not self.overwrite:
                if target.read_bytes() == line.encode():
                    return target
                raise ImgcapError(
                    f"{target} is there already.", "Keep such files with --skip-existing, replace them by --overwrite."
                )
            if self.folder:
                make_folder(target.parent)
            write_text(target, line)
        except OSError as error:
            raise ImgcapError(f"{target} cannot be written: {reason(error)}.") from None
        return target


@lru_cache(maxsize=16)
def _ambiguous(folder: Path) -> frozenset[str]:
    """Names of the images in `folder` whose sidecars keep the image's ending."""
    try:
        with os.scandir(folder) as entries:
            files = [entry.name for entry in entries if entry.is_file()]
    except OSError:
        return frozenset()
    names = [name for name in files if is_image_name(name)]
    stems, whole = Counter(map(_stem, names)), {name.lower() for name in files}
    return frozenset(name for name in names if stems[_stem(name)] > 1 or _stem(name) in whole)


def _stem(name: str) -> str:
    return os.path.splitext(name)[0].lower()  # noqa: PTH122


def common_root(inputs: Iterable[Path]) -> Path:
    """The deepest folder that holds all `inputs`, folders counting as their own."""
    folders = [str(path.absolute() if os.path.isdir(path) else path.absolute().parent) for path in inputs]  # noqa: PTH112
    return Path(os.path.commonpath([os.path.normpath(folder) for folder in folders]))
