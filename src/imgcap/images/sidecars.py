"""Where the sidecar of an image is, for the commands that write sidecars and for those that read them.

A sidecar is a small file with the caption of one image. It has the image's name with another ending: `photo.jpg` has
`photo.txt`. Images of one folder that would share a sidecar keep their own ending too: `photo.jpg.txt` and
`photo.png.txt`. So no two images share a sidecar, in whatever order they are captioned.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from imgcap.errors import ImgcapError, UsageError
from imgcap.images.discovery import SUFFIXES, UNREADABLE_SUFFIXES, is_image_name

TEXT_SUFFIXES = (".txt", ".caption")
"""Endings of the sidecars that are read as captions, in the order in which they are looked for."""

_SUFFIX = re.compile(r"\.[\w.-]{0,30}\w")
_OPEN_FOLDERS = 16
_MEDIA_SUFFIXES = SUFFIXES | UNREADABLE_SUFFIXES | {".avi", ".m4v", ".mkv", ".mov", ".mp3", ".mp4", ".wav", ".webm"}
_STRUCTURED_SUFFIXES = frozenset(
    f".{ending}"
    for endings in (
        "aae cfg csv db doc docx exif htm html ini ipynb js json json5 jsonl ndjson npy npz odt parquet pdf plist py",
        "pp3 rdf rtf safetensors sqlite srt svg tar toml tsv vtt xhtml xls xlsx xml yaml yml zip",
    )
    for ending in endings.split()
)
"""Endings of formats in which bare text would be damage."""


@dataclass(frozen=True)
class SidecarPaths:
    """Paths of the sidecars with one ending. Raises `UsageError` for an ending that could name an image."""

    suffix: str = ".txt"
    folder: Path | None = None
    """The folder that holds the sidecars, with the sub-folders of `root`; None for the folder of each image."""
    root: Path = Path()
    """The folder of images that `folder` mirrors; see `common_root`."""
    _shared_stems: Callable[[Path], frozenset[str]] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        ending = Path("x" + self.suffix).suffix.lower()
        if not _SUFFIX.fullmatch(self.suffix) or ending in _MEDIA_SUFFIXES:
            raise UsageError(f"{self.suffix!r} cannot be the ending of sidecars.", "For example --sidecar .txt.")
        if ending in _STRUCTURED_SUFFIXES:
            raise UsageError(
                f"A {ending} file is not plain text, so it cannot be a sidecar.",
                "Use --sidecar .txt or .xmp, or write rows with -o FILE.jsonl.",
            )
        # Each object lists folders itself: another one may be made after the images have changed.
        object.__setattr__(self, "_shared_stems", lru_cache(_OPEN_FOLDERS)(_names_with_shared_stems))

    @property
    def is_xmp(self) -> bool:
        """Whether sidecars are XMP, and not plain text."""
        return self.suffix.lower().endswith(".xmp")

    def of(self, image: Path) -> Path:
        """The sidecar that a caption of `image` is written to. Raises `ImgcapError` if `image` is not under `root`.

        For XMP, that is an existing one with the image's whole name, as darktable and digiKam have it.
        """
        beside = self._beside(image)
        whole = beside / (image.name + self.suffix)
        return whole if self.is_xmp and whole.exists() else beside / self._name(image)

    def find(self, image: Path) -> Path | None:
        """The existing sidecar of `image`, or None.

        If there is none under the name that is written, the image's whole name with the ending counts too: other
        images of the same stem may have been removed since.
        """
        beside = self._beside(image)
        for name in (self._name(image), image.name + self.suffix):
            if os.path.isfile(beside / name):  # noqa: PTH113 (a Path raises for names that are too long)
                return beside / name
        return None

    def _name(self, image: Path) -> str:
        has_own_stem = is_image_name(image.name) and image.name not in self._shared_stems(image.parent)
        return (image.stem if has_own_stem else image.name) + self.suffix

    def _beside(self, image: Path) -> Path:
        """The folder of the image's sidecar."""
        if self.folder is None:
            return image.parent
        parent = Path(os.path.relpath(image.parent.absolute(), self.root.absolute()))
        if ".." in parent.parts:
            raise ImgcapError(f"{image} is not under {self.root}, so it has no place under {self.folder}.")
        return self.folder / parent


def common_root(inputs: Iterable[Path]) -> Path:
    """The deepest folder that holds all `inputs`; a folder among them holds itself."""
    folders = [str(path.absolute() if os.path.isdir(path) else path.absolute().parent) for path in inputs]  # noqa: PTH112
    return Path(os.path.commonpath([os.path.normpath(folder) for folder in folders]))


def mirrored_root(suffix: str, folder: Path, images: list[Path]) -> Path:
    """The root under which most of the first 100 `images` have sidecars in `folder`; without any, their common root.

    The rows of a folder of images do not name that folder, which may be above all of them.
    """
    root = common_root(images)
    counts = {}
    for candidate in (root, *root.parents):
        paths = SidecarPaths(suffix, folder, candidate)
        counts[candidate] = sum(paths.find(image) is not None for image in images[:100])
    return max(counts, key=lambda candidate: counts[candidate])  # the first of equals, so the deepest


def _names_with_shared_stems(folder: Path) -> frozenset[str]:
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
    return os.path.splitext(name)[0].lower()  # noqa: PTH122 (a Path is slow to make a million times)
