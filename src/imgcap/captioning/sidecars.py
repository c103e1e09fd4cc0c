"""Write captions into sidecars."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryFile

from imgcap.errors import ImgcapError
from imgcap.files import make_folder, reason, write_text, writing
from imgcap.images.metadata.xmp_sidecar import read_xmp_sidecar, write_xmp_sidecar
from imgcap.images.sidecars import SidecarPaths


@dataclass(frozen=True)
class Sidecars:
    """Writes the sidecar of one image after the other."""

    paths: SidecarPaths = field(default_factory=SidecarPaths)
    overwrite: bool = False
    """Replace sidecars that hold another text."""

    def check(self) -> None:
        """Raise `ImgcapError` if a separate folder for sidecars cannot be created or written to."""
        if folder := self.paths.folder:
            make_folder(folder)
            try:
                TemporaryFile(dir=folder).close()
            except OSError as error:
                raise ImgcapError(f"The folder {folder} cannot be written to: {reason(error)}.") from None

    def exists(self, image: Path) -> bool:
        """Whether `image` has its sidecar; one in XMP counts if it has a description."""
        if self.paths.is_xmp:
            with suppress(ImgcapError):  # reported when it is written
                return read_xmp_sidecar(self.paths.of(image)) is not None
            return False
        return os.path.exists(self.paths.of(image))  # noqa: PTH110 (a Path raises for names that are too long)

    def write(self, image: Path, text: str, *, by_person: bool = False) -> bool:
        """Write `text`; returns False if an XMP sidecar keeps the description that a person wrote.

        `by_person` is that of `write_description`. Raises `ImgcapError` if the sidecar exists with another text, or
        cannot be written.
        """
        target = self.paths.of(image)
        if self.paths.is_xmp:
            make_folder(target.parent)
            return write_xmp_sidecar(target, image, text, overwrite=self.overwrite, by_person=by_person)
        line = text + "\n"
        with writing(target):
            if target.exists() and not self.overwrite:
                if target.read_bytes() == line.encode():
                    return True
                raise ImgcapError(
                    f"{target} already exists.", "Keep it with --skip-existing, or replace it with --overwrite."
                )
            if self.paths.folder:
                make_folder(target.parent)
            write_text(target, line)
        return True
