"""Write captions into sidecars."""

from __future__ import annotations

import codecs
import os
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryFile

from imgcap.errors import ImgcapError, UsageError
from imgcap.files import make_folder, reason, replacing, writing
from imgcap.images.metadata.xmp_sidecar import read_xmp_sidecar, write_xmp_sidecar
from imgcap.images.sidecars import SidecarPaths


@dataclass(frozen=True)
class Sidecars:
    """Writes the sidecar of one image after the other. Raises `UsageError` for options that exclude each other."""

    paths: SidecarPaths = field(default_factory=SidecarPaths)
    overwrite: bool = False
    """Replace sidecars that hold another text."""
    append: bool = False
    """Add the caption as a line to sidecars that exist, unless it is one of their lines."""

    def __post_init__(self) -> None:
        if self.append and self.overwrite:
            raise UsageError("--append cannot be combined with --overwrite.")
        if self.append and self.paths.is_xmp:
            raise UsageError("--append needs sidecars of text: an XMP sidecar has one description.")

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

        `by_person` is that of `write_description`. Raises `ImgcapError` if the sidecar exists with another text and may
        not be changed, or cannot be written.
        """
        target = self.paths.of(image)
        if self.paths.is_xmp:
            make_folder(target.parent)
            return write_xmp_sidecar(target, image, text, overwrite=self.overwrite, by_person=by_person)
        with writing(target):
            before = target.read_bytes() if target.exists() else None
            after = self._new_content(target, before, text)
            if after != before:
                if self.paths.folder:
                    make_folder(target.parent)
                with replacing(target) as partial:
                    partial.write_bytes(after)
        return True

    def _new_content(self, target: Path, before: bytes | None, text: str) -> bytes:
        line = text.encode() + b"\n"
        if before is not None and self.append:
            return _appended(target, before, text)
        if before not in (None, line) and not self.overwrite:
            raise ImgcapError(
                f"{target} already exists.",
                "Keep it with --skip-existing, or change it with --append or --overwrite.",
            )
        return line


def _appended(target: Path, before: bytes, text: str) -> bytes:
    """`before` with `text` as another line, in the line ends of the file. Raises `ImgcapError` if it is not UTF-8."""
    try:
        lines = before.removeprefix(codecs.BOM_UTF8).decode().splitlines()
    except UnicodeDecodeError as error:
        line = before.count(b"\n", 0, error.start) + 1
        raise ImgcapError(f"{target}, line {line} is not UTF-8 text.", "Save it as UTF-8.") from None
    if set(text.splitlines()) <= {line.strip() for line in lines}:
        return before
    end = b"\r\n" if b"\r\n" in before else b"\n"
    missing_end = end if before and not before.endswith(b"\n") else b""
    return before + missing_end + text.encode() + end
