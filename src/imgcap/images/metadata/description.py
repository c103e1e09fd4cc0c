"""Read and write the description in an image's metadata without changing a pixel.

JPEG, PNG and WebP files are spliced: the XMP packet is replaced or added, and every other byte stays. Within the
packet, only the description's own properties change. Descriptions elsewhere, in EXIF, IPTC or PNG text chunks, are a
person's, unless they equal the one that imgcap wrote; they go when a description is written.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from imgcap.errors import ImgcapError, UsageError
from imgcap.file_attributes import copy_mtime
from imgcap.files import reason, replacing
from imgcap.images.metadata.container import Container, MetadataError, splice
from imgcap.images.metadata.jpeg import read_jpeg
from imgcap.images.metadata.png import PNG_SIGNATURE, read_png
from imgcap.images.metadata.webp import read_webp
from imgcap.images.metadata.xmp import XmpPacket, clean

_FORMATS: tuple[tuple[re.Pattern[bytes], Callable[[bytes], Container]], ...] = (
    (re.compile(rb"\xff\xd8\xff"), read_jpeg),
    (re.compile(re.escape(PNG_SIGNATURE)), read_png),
    (re.compile(rb"RIFF....WEBP", re.DOTALL), read_webp),
)


def read_description(path: Path) -> str | None:
    """The image's XMP dc:description in the default language, else the first one, else one outside XMP, else None.

    Raises `ImgcapError` if the file is missing, unreadable, damaged, not a JPEG, PNG or WebP, or if its XMP is broken.
    """
    with reporting(path, "read"):
        image = _open(path)
        packets = XmpPacket(image.packet), XmpPacket(image.extended)
    found = (*(packet.description for packet in packets), *image.others)
    return next((text for text in found if text is not None), None)


def write_description(
    path: Path, text: str, *, overwrite: bool = False, by_person: bool = False, keep_mtime: bool = False
) -> bool:
    """Write `text` as the image's XMP dc:description and Iptc4xmpCore:AltTextAccessibility, in the default language.

    Returns False and leaves the file alone if a person wrote either of them, in any language, or a description in
    EXIF, IPTC or a PNG text chunk; `overwrite` replaces them all. A description by imgcap, recognised by the hash
    stored beside it, is always replaced. With `by_person` the text is stored without a hash, so it counts as a
    person's. Characters that XML forbids are dropped. The file keeps its owner, permissions and extended attributes as
    far as the system allows, and with `keep_mtime` its times; a symbolic link stays, and its target is rewritten.

    Raises `UsageError` for an empty text, and `ImgcapError` where `read_description` does, if the file cannot be
    rewritten or has several hard links, or if its format has no room for the longer XMP.
    """
    text = clean(text)
    if not text:
        raise UsageError(f"The description for {path} is empty.", "Give it at least one word.")
    with reporting(path, "read"):
        image = _open(path)
        packet, extended = XmpPacket(image.packet), XmpPacket(image.extended)
        if not overwrite and (extended.values or not packet.is_by_imgcap(*image.others)):
            return False
        if extended.values:
            raise MetadataError(
                "has a description in extended XMP, which imgcap leaves alone.",
                "Remove it with a metadata editor, such as exiftool.",
            )
        edits = image.edits(packet.with_description(text, by_person))
    with reporting(path, "rewritten"):
        _rewrite(path.resolve(), splice(image.content, edits), keep_mtime)
    return True


@contextmanager
def reporting(path: Path, verb: str) -> Iterator[None]:
    """Report every failure as an `ImgcapError` about `path`."""
    try:
        yield
    except MetadataError as error:
        raise ImgcapError(f"{path} {error}", error.hint) from None
    except FileNotFoundError:
        raise ImgcapError(f"{path} does not exist.", "Check the path.") from None
    except OSError as error:
        hint = f"Check that the file and its folder can be {'read' if verb == 'read' else 'written to'}."
        raise ImgcapError(f"{path} cannot be {verb}: {reason(error)}.", hint) from None


def _open(path: Path) -> Container:
    if path.exists() and not path.is_file():
        raise MetadataError("is not a file.", "Name the image itself.")
    with path.open("rb") as file:
        head = file.read(12)
        for signature, read in _FORMATS:
            if signature.match(head):
                file.seek(0)
                return read(file.read())
    raise MetadataError("is not a JPEG, PNG or WebP image.", "imgcap writes descriptions into these formats only.")


def has_description_by_person(path: Path) -> bool:
    """Whether the image at `path` holds a description that a person wrote; False where imgcap cannot read it."""
    try:
        image = _open(path)
        packet, extended = XmpPacket(image.packet), XmpPacket(image.extended)
    except (MetadataError, OSError):
        return False
    return bool(extended.values) or not packet.is_by_imgcap(*image.others)


def refuse_hard_links(file: Path) -> None:
    """Raise `MetadataError` if `file` has several names, which replacing it under one of them would separate."""
    links = file.stat().st_nlink
    if links > 1:
        raise MetadataError(
            f"has {links:,} names (hard links), and rewriting it would separate them.",
            "Keep the description beside it, with --sidecar .xmp, or make a copy of its own first.",
        )


def _rewrite(file: Path, buffers: list[memoryview], keep_mtime: bool) -> None:
    with file.open("rb+"):
        pass  # raises for a read-only file, which a rename would replace
    refuse_hard_links(file)
    with replacing(file) as partial:
        with partial.open("wb") as output:
            output.writelines(buffers)
        if keep_mtime:
            copy_mtime(file, partial)
