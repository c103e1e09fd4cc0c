"""WebP files: their chunks and the descriptions in them.

Sources: WebP Container Specification, RFC 9649.
"""

from __future__ import annotations

from collections.abc import Iterator

from imgcap.images.metadata.container import Container, Edit, MetadataError, Part, damaged, only_packet, shifted
from imgcap.images.metadata.texts import exif_texts

_VP8X, _EXIF, _XMP = b"VP8X", b"EXIF", b"XMP "
_EXIF_HEADER = b"Exif\0\0"
_XMP_FLAG, _ALPHA_FLAG = 0x04, 0x10
_BITSTREAMS = (b"VP8 ", b"VP8L")
_BEFORE_XMP = (_VP8X, b"ICCP", b"ANIM", b"ANMF", b"ALPH", *_BITSTREAMS, _EXIF)
_LARGEST_RIFF = 1 << 32


def read_webp(content: bytes) -> Container:
    """The WebP image in `content`. Raises `MetadataError` if it is damaged or has several XMP packets."""
    riff_end = 8 + int.from_bytes(content[4:8], "little")
    if riff_end > len(content):
        raise damaged("its end is missing")
    found: list[Part] = []
    header: Edit | None = None
    others: list[str] = []
    erasures: list[Edit] = []
    place, has_pixels = 0, False  # place: after all chunks whose order matters
    for chunk in _chunks(content, riff_end):
        header = header or _header_edit(content, chunk)
        has_pixels = has_pixels or chunk.kind in (b"ANMF", *_BITSTREAMS)
        if chunk.kind == _EXIF:
            start = chunk.body + len(_EXIF_HEADER) * content.startswith(_EXIF_HEADER, chunk.body)
            texts = exif_texts(content[start : chunk.body_end])
            others += (each.text for each in texts)
            erasures += shifted((each.edit for each in texts), start)
        if chunk.kind == _XMP:
            found.append(chunk)
        elif chunk.kind in _BEFORE_XMP:
            place = chunk.end
    if header is None or not has_pixels:
        raise damaged("it has no pixels")
    first = header
    old = only_packet(found) or Part(_XMP, place, place, place, place)

    def edits(packet: bytes) -> list[Edit]:
        changed = [first, (old.start, old.end, _chunk(_XMP, packet))]
        size = riff_end - 8 + sum(len(new) - (end - start) for start, end, new in changed)
        if size >= _LARGEST_RIFF:
            raise MetadataError(
                "has no room for the description: it is as large as a WebP may be.", "Use a smaller image."
            )
        return [(4, 8, size.to_bytes(4, "little")), *changed, *erasures]

    return Container(content, content[old.body : old.body_end], edits, others=tuple(others))


def _chunks(content: bytes, riff_end: int) -> Iterator[Part]:
    start = 12
    while start < riff_end:
        body = start + 8
        body_end = body + int.from_bytes(content[start + 4 : body], "little")
        end = body_end + body_end % 2  # padded to an even length; all chunks start at even offsets
        if end > riff_end:
            raise damaged(f"the chunk at byte {start:,} has a wrong length")
        yield Part(content[start : start + 4], start, body, body_end, end)
        start = end


def _chunk(kind: bytes, body: bytes) -> bytes:
    return kind + len(body).to_bytes(4, "little") + body + bytes(len(body) % 2)


def _header_edit(content: bytes, first: Part) -> Edit:
    """The edit that makes `first`, the first chunk, a VP8X chunk with the XMP flag."""
    body = content[first.body : min(first.body + 10, first.body_end)]
    if len(body) == 10 and first.kind == _VP8X:
        return first.body, first.body + 1, bytes([body[0] | _XMP_FLAG])
    if len(body) == 10 and first.kind == b"VP8 " and body[3:6] == b"\x9d\x01\x2a":
        width, height = (int.from_bytes(body[i : i + 2], "little") & 0x3FFF for i in (6, 8))
        flags = _XMP_FLAG
    elif len(body) >= 5 and first.kind == b"VP8L" and body[0] == 0x2F:
        bits = int.from_bytes(body[1:5], "little")  # 14 bits of width - 1, 14 of height - 1, 1 of alpha
        width, height = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
        flags = _XMP_FLAG | (_ALPHA_FLAG if bits >> 28 & 1 else 0)
    else:
        raise damaged("it does not begin with an image or its header")
    if not width or not height:
        raise damaged("it has no pixels")
    sides = b"".join((side - 1).to_bytes(3, "little") for side in (width, height))
    return first.start, first.start, _chunk(_VP8X, bytes([flags, 0, 0, 0]) + sides)
