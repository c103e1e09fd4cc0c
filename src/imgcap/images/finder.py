"""Match the image names in captions and split lists to the images of a folder."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from imgcap.images.discovery import find_images


class ImageFinder:
    """Finds an image by relative path, file name or stem, and only among the images it was given."""

    def __init__(self, paths: Iterable[str]) -> None:
        self.paths = set(paths)
        self._by_name: dict[str, str | None] = {}
        for path in sorted(self.paths):
            for key in (PurePosixPath(path).name, PurePosixPath(path).stem, path.rsplit(".", 1)[0]):
                # A key that two images share finds neither.
                self._by_name[key] = None if self._by_name.get(key, path) != path else path

    @classmethod
    def in_folder(cls, folder: Path) -> ImageFinder:
        """A finder for all images in `folder`, by paths relative to it. Raises `ImgcapError` if it cannot be read."""
        return cls(path.relative_to(folder).as_posix() for path in find_images(folder))

    def find(self, name: str) -> str | None:
        """The image's path relative to the folder, or None."""
        name = name.replace("\\", "/").removeprefix("./")
        if name in self.paths:
            return name
        last = name.rsplit("/", 1)[-1]
        return self._by_name.get(name) or self._by_name.get(last)
