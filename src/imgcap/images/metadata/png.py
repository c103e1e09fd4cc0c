"""PNG files: their chunks and the XMP in them.

Sources: PNG Specification (Third Edition), XMP Specification Part 3 (storage in files).
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator

from imgcap.images.metadata.container import Container, Edit, MetadataError, Part, bad_packet, damaged, only_packet

LARGEST_COMPRESSED_TEXT = 16 << 20
"""Most bytes that a compressed chunk may unpack to; more counts as a decompression bomb."""

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_XMP_KEYWORD = b"XML:com.adobe.xmp\0"
_RAW_PROFILE_KEYWORD = b"Raw profile type xmp\0"


def read_png(content: bytes) -> Container:
    """The PNG in `content`. Raises `MetadataError` if it is damaged, or keeps its XMP in an unusual form."""
    found: list[Part] = []
    place = 0  # after the header, before all chunks whose order matters
    for chunk in _chunks(content):
        place = place or chunk.end
        if chunk.kind == b"iTXt" and content.startswith(_XMP_KEYWORD, chunk.body):
            found.append(chunk)
        elif chunk.kind in (b"tEXt", b"zTXt") and content.startswith(_RAW_PROFILE_KEYWORD, chunk.body):
            raise MetadataError(
                "keeps its XMP in a raw profile, a form that imgcap does not change.",
                "Rewrite it with a metadata editor, such as exiftool.",
            )
    old = only_packet(found) or Part(b"iTXt", place, place, place, place)

    def edits(packet: bytes) -> list[Edit]:
        new = _chunk(b"iTXt", _XMP_KEYWORD + bytes(4) + packet)  # not compressed, no language, no translated keyword
        return [(place, place, new), (old.start, old.end, b"")]

    return Container(content, _international_text(content[old.body + len(_XMP_KEYWORD) : old.body_end]), edits)


def _chunks(content: bytes) -> Iterator[Part]:
    """The chunks of a PNG. Raises `MetadataError` if one is cut off or has a wrong checksum."""
    start, kind, has_pixels = len(PNG_SIGNATURE), b"", False
    while kind != b"IEND":
        body = start + 8
        kind = content[start + 4 : body]
        body_end = body + int.from_bytes(content[start : start + 4], "big")
        end = body_end + 4
        if end > len(content):
            raise damaged("its end is missing, or a chunk has a wrong length")
        if (kind == b"IHDR") != (start == len(PNG_SIGNATURE)):
            raise damaged("it does not begin with its one header")
        checksum = zlib.crc32(memoryview(content)[start + 4 : body_end])
        if checksum != int.from_bytes(content[body_end:end], "big"):
            raise damaged(f"the chunk at byte {start:,} has a wrong checksum")
        has_pixels = has_pixels or kind == b"IDAT"
        yield Part(kind, start, body, body_end, end)
        start = end
    if not has_pixels:
        raise damaged("it has no pixels")


def _chunk(kind: bytes, body: bytes) -> bytes:
    return len(body).to_bytes(4, "big") + kind + body + zlib.crc32(kind + body).to_bytes(4, "big")


def _international_text(body: bytes) -> bytes:
    """The text of an iTXt chunk without its keyword: two flags, language, translated keyword, text."""
    is_compressed, method = body[:1] == b"\1", body[1:2]
    text = body[2:].split(b"\0", 2)[-1]
    if not is_compressed:
        return text
    unpacked = _unpacked(text) if method == b"\0" else None
    if unpacked is None:
        raise bad_packet("it cannot be unpacked")
    return unpacked


def _unpacked(data: bytes) -> bytes | None:
    """Inflated `data`; None if it is damaged, or larger than `LARGEST_COMPRESSED_TEXT`."""
    inflate = zlib.decompressobj()
    try:
        text = inflate.decompress(data, LARGEST_COMPRESSED_TEXT)
    except zlib.error:
        return None
    return text if inflate.eof else None
