"""Members of tar archives for tests."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

from helpers.data import draw
from imgcap.images.archived import ArchivedFile
from imgcap.images.archives import images_in
from imgcap.images.discovery import Selection


def png(colour: str = "red", number: int = 0) -> bytes:
    content = io.BytesIO()
    draw(colour, number).save(content, "PNG")
    return content.getvalue()


def header(name: str, kind: bytes = tarfile.REGTYPE, **fields: object) -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    made.type = kind
    for field, value in fields.items():
        setattr(made, field, value)
    return made


def listed(file: Path, selection: Selection | None = None) -> list[str]:
    """Members that can be read, and the kinds of errors."""
    found = images_in(str(file), selection or Selection())
    return [each.member if isinstance(each, ArchivedFile) else each.kind for each in found]
