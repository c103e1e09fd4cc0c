"""XMP sidecars, the files in which photo managers keep what they know about an image that they do not change.

darktable and digiKam name them `photo.jpg.xmp`, Lightroom `photo.xmp`.

Source: XMP Specification Part 3 (sidecar files).
"""

from __future__ import annotations

import codecs
import re
from pathlib import Path

from imgcap.errors import UsageError
from imgcap.files import replacing
from imgcap.images.metadata.container import MetadataError
from imgcap.images.metadata.description import has_description_by_person, refuse_hard_links, reporting
from imgcap.images.metadata.xmp import XmpPacket, clean

_XML_DECLARATION = re.compile(r"\s*<\?xml[^>]*\?>")


def read_xmp_sidecar(file: Path) -> str | None:
    """The description in an XMP sidecar; None if it has none or is missing. Raises `ImgcapError` if it is damaged."""
    if not file.exists():
        return None
    with reporting(file, "read"):
        return XmpPacket(_content(file)).description


def write_xmp_sidecar(file: Path, image: Path, text: str, *, overwrite: bool = False, by_person: bool = False) -> bool:
    """Write `text` as the description in the XMP sidecar of `image`, and keep everything else that it holds.

    Returns False and changes nothing if a person wrote another description there or into the image; `overwrite`
    replaces the one in the sidecar. `by_person` is that of `write_description`. Raises `UsageError` for an empty text,
    and `ImgcapError` if an existing sidecar is not XMP, or if it cannot be written.
    """
    text = clean(text)
    if not text:
        raise UsageError(f"The description for {file} is empty.", "Give it at least one word.")
    with reporting(file, "read"):
        packet = XmpPacket(_content(file) if file.exists() else b"")
        if not overwrite and not (packet.is_by_imgcap() or {value.text for value in packet.values} == {text}):
            return False
        if not overwrite and not by_person and has_description_by_person(image):
            return False
        content = packet.with_description(text, by_person)
    with reporting(file, "written"):
        target = file.resolve()
        if target.exists():
            refuse_hard_links(target)
        with replacing(target) as partial:
            partial.write_bytes(content)
    return True


def _content(file: Path) -> bytes:
    """The sidecar in UTF-8. Raises `MetadataError` if it holds something other than XML."""
    content = file.read_bytes()
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        try:
            content = _XML_DECLARATION.sub("", content.decode("utf-16"), count=1).encode()
        except UnicodeDecodeError:
            raise MetadataError("is not an XMP file: it is not text.", "Move it away, or repair it.") from None
    start = content.removeprefix(codecs.BOM_UTF8).lstrip()
    if start and not start.startswith(b"<"):
        raise MetadataError("is not an XMP file.", "Move it away, or use another ending with --sidecar.")
    return content
