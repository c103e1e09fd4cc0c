"""Sidecars: one small text file for each picture, beside it or in a folder of their own."""

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
    """Where captions are written. Raises `UsageError` for an ending that could hit a picture.

    A picture's sidecar has its name with another ending: `photo.jpg` gets `photo.txt`. Pictures of one folder that
    would share a sidecar keep their own ending too: `photo.jpg.txt` and `photo.png.txt`. So no two ever collide,
    whatever is captioned in which order.
    """

    suffix: str = ".txt"
    folder: Path | None = None
    """The folder that sidecars are mirrored under, sub-folders kept; None for beside the picture."""
    root: Path = Path()
    """The folder of pictures that `folder` mirrors; see `common_root`."""
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

    def path(self, picture: Path) -> Path:
        """The sidecar's path."""
        plain = is_image_name(picture.name) and picture.name not in _ambiguous(picture.parent)
        name = (picture.stem if plain else picture.name) + self.suffix
        if self.folder is None:
            return picture.with_name(name)
        parent = Path(os.path.relpath(picture.parent.absolute(), self.root.absolute()))
        if ".." in parent.parts:
            raise ImgcapError(f"{picture} is not under {self.root}, so it has no place under {self.folder}.")
        return self.folder / parent / name

    def write(self, picture: Path, text: str) -> Path:
        """Write `text` and return where. Raises `ImgcapError` if another text is there already, or it cannot be."""
        target = self.path(picture)
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
    """Names of the pictures in `folder` whose sidecars keep the picture's ending."""
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
