"""JPEG files: their segments and the descriptions in them.

Sources: ITU-T T.81, XMP Specification Part 3 (storage in files), CIPA DC-007 (several images in a JPEG).
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from imgcap.images.metadata.container import Container, Edit, MetadataError, Part, damaged, only_packet, shifted, splice
from imgcap.images.metadata.texts import exif_texts, photoshop_texts

LARGEST_JPEG_PACKET = 65_502
"""Bytes of XMP that fit into a JPEG segment."""

_XMP = b"http://ns.adobe.com/xap/1.0/\0"
_EXTENDED_XMP = b"http://ns.adobe.com/xmp/extension/\0"
_EXIF, _IMAGES_INDEX, _PHOTOSHOP = b"Exif\0", b"MPF\0", b"Photoshop 3.0\0"
_EXIF_HEADER = 6
"""Bytes before the TIFF structure in an EXIF segment."""
_APP0, _APP1, _APP2, _APP13, _SCAN = b"\xe0", b"\xe1", b"\xe2", b"\xed", b"\xda"
_LARGEST_BODY = 65_533
_MARKER = re.compile(rb"\xff+([\xc0-\xcf\xda-\xfe])")
_END_OF_IMAGE = b"\xff\xd9"


def read_jpeg(content: bytes) -> Container:
    """The JPEG in `content`. Raises `MetadataError` if it is damaged or has several XMP packets."""
    segments = list(_segments(content))
    place = _place_of_xmp(content, segments)
    old = only_packet(_of(content, segments, _APP1, _XMP)) or Part(_APP1, place, place, place, place)
    packet = content[old.body + len(_XMP) : old.end]
    others, erasures = _exif(content, _of(content, segments, _APP1, _EXIF))
    captions, replacements = _photoshop(content, _of(content, segments, _APP13, _PHOTOSHOP))
    indexes = _of(content, segments, _APP2, _IMAGES_INDEX)

    def edits(packet: bytes) -> list[Edit]:
        if len(packet) > LARGEST_JPEG_PACKET:
            raise MetadataError(
                f"has no room for the description: a JPEG holds {LARGEST_JPEG_PACKET:,} bytes of XMP, and it would be "
                f"{len(packet):,}.",
                "Write a shorter one, or remove other metadata.",
            )
        changes = [(old.start, old.end, _segment(_APP1, _XMP + packet)), *erasures, *replacements]
        if indexes and sum(len(new) - (end - start) for start, end, new in changes if start > indexes[0].start):
            raise MetadataError(
                "holds further images, whose index precedes the XMP and would become wrong.",
                "Write the description with a metadata editor, such as exiftool.",
            )
        return changes

    extended = _extended(content, _of(content, segments, _APP1, _EXTENDED_XMP), packet)
    return Container(content, packet, edits, extended, (*others, *captions))


def _of(content: bytes, segments: list[Part], kind: bytes, start: bytes) -> list[Part]:
    """The segments of a kind whose bodies begin with `start`."""
    return [segment for segment in segments if segment.kind == kind and content.startswith(start, segment.body)]


def _place_of_xmp(content: bytes, segments: list[Part]) -> int:
    """The end of JFIF and EXIF, after which readers expect XMP."""
    place = 2
    for kind, start, body, end, _ in segments:
        if start == place and (kind == _APP0 or (kind == _APP1 and content.startswith(_EXIF, body))):
            place = end
    return place


def _extended(content: bytes, segments: list[Part], packet: bytes) -> bytes:
    """The extended XMP that `packet` refers to: identifier, size, offset and part in each segment, in any order."""
    parts: list[tuple[bytes, int, bytes]] = []
    for segment in segments:
        body = segment.body + len(_EXTENDED_XMP)
        offset = int.from_bytes(content[body + 36 : body + 40], "big")
        parts.append((content[body : body + 32], offset, content[body + 40 : segment.end]))
    return b"".join(part for identifier, _, part in sorted(parts) if identifier in packet)


def _exif(content: bytes, segments: list[Part]) -> tuple[list[str], list[Edit]]:
    """A person's descriptions in EXIF, and the edits that blank them."""
    others: list[str] = []
    edits: list[Edit] = []
    for segment in segments:
        start = segment.body + _EXIF_HEADER
        texts = exif_texts(content[start : segment.end])
        others += (each.text for each in texts)
        edits += shifted((each.edit for each in texts), start)
    return others, edits


def _photoshop(content: bytes, segments: list[Part]) -> tuple[list[str], list[Edit]]:
    """A person's descriptions in Photoshop's resources, and the edits that remove them."""
    block = b"".join(content[segment.body + len(_PHOTOSHOP) : segment.end] for segment in segments)
    texts = photoshop_texts(block)
    if not texts:
        return [], []
    rest = b"".join(splice(block, (each.edit for each in texts)))
    size = _LARGEST_BODY - len(_PHOTOSHOP)
    parts = [rest[start : start + size] for start in range(0, len(rest), size)]
    first, *others = segments
    edits = [(first.start, first.end, b"".join(_segment(_APP13, _PHOTOSHOP + part) for part in parts))]
    edits += ((segment.start, segment.end, b"") for segment in others)
    return [each.text for each in texts], edits


def _segment(kind: bytes, body: bytes) -> bytes:
    return b"\xff" + kind + (len(body) + 2).to_bytes(2, "big") + body


def _segments(content: bytes) -> Iterator[Part]:
    """The segments before the first scan. Each part starts with its marker. Raises `MetadataError` if it is cut off."""
    start = 2
    while True:
        marker = _MARKER.match(content, start)
        if marker is None:
            raise damaged(f"byte {start:,} is not the start of a segment")
        body = marker.end() + 2
        length = int.from_bytes(content[marker.end() : body], "big")
        end = marker.end() + length
        if length < 2 or end > len(content):
            raise damaged(f"the segment at byte {start:,} has a wrong length")
        if marker[1] == _SCAN:
            if content.rfind(_END_OF_IMAGE, end) < 0:
                raise damaged("its end is missing")
            return
        yield Part(marker[1], start, body, end, end)
        start = end
