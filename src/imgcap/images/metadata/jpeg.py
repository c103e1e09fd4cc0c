"""JPEG files: their segments and the XMP in them.

Sources: ITU-T T.81, XMP Specification Part 3 (storage in files), CIPA DC-007 (several images in a JPEG).
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from imgcap.images.metadata.container import Container, Edit, MetadataError, Part, damaged, only_packet

LARGEST_JPEG_PACKET = 65_502
"""Bytes of XMP that fit into a JPEG segment."""

_XMP = b"http://ns.adobe.com/xap/1.0/\0"
_EXTENDED_XMP = b"http://ns.adobe.com/xmp/extension/\0"
_EXIF, _SEVERAL_IMAGES = b"Exif\0", b"MPF\0"
_APP0, _APP1, _APP2, _SCAN = b"\xe0", b"\xe1", b"\xe2", b"\xda"
_MARKER = re.compile(rb"\xff+([\xc0-\xcf\xda-\xfe])")
_END_OF_IMAGE = b"\xff\xd9"


def read_jpeg(content: bytes) -> Container:
    """The JPEG in `content`. Raises `MetadataError` if it is damaged or has several XMP packets."""
    found: list[Part] = []
    extensions: list[tuple[bytes, int, bytes]] = []  # identifier, offset, part of the extended XMP
    place = 2  # after the start marker, JFIF and EXIF, where readers expect XMP
    images_index = len(content)
    for segment in _segments(content):
        _, start, body, end, _ = segment
        is_app1 = segment.kind == _APP1
        if place == start and (segment.kind == _APP0 or (is_app1 and content.startswith(_EXIF, body))):
            place = end
        elif is_app1 and content.startswith(_XMP, body):
            found.append(segment)
        elif is_app1 and content.startswith(_EXTENDED_XMP, body):
            body += len(_EXTENDED_XMP)
            offset = int.from_bytes(content[body + 36 : body + 40], "big")
            extensions.append((content[body : body + 32], offset, content[body + 40 : end]))
        elif segment.kind == _APP2 and content.startswith(_SEVERAL_IMAGES, body):
            images_index = min(images_index, start)

    old = only_packet(found) or Part(_APP1, place, place, place, place)
    packet = content[old.body + len(_XMP) : old.end]
    extended = b"".join(part for identifier, _, part in sorted(extensions) if identifier in packet)

    def edits(packet: bytes) -> list[Edit]:
        if len(packet) > LARGEST_JPEG_PACKET:
            raise MetadataError(
                f"has no room for the description: a JPEG holds {LARGEST_JPEG_PACKET:,} bytes of XMP, and it would be "
                f"{len(packet):,}.",
                "Write a shorter one, or remove other metadata.",
            )
        body = _XMP + packet
        segment = b"\xff" + _APP1 + (len(body) + 2).to_bytes(2, "big") + body
        if images_index < old.start and len(segment) != old.end - old.start:
            raise MetadataError(
                "holds further images, whose index precedes the XMP and would become wrong.",
                "Write the description with a metadata editor, such as exiftool.",
            )
        return [(old.start, old.end, segment)]

    return Container(content, packet, edits, extended)


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
