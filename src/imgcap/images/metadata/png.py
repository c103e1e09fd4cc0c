"""PNG files: their chunks and the descriptions in them.

Sources: PNG Specification (Third Edition), XMP Specification Part 3 (storage in files).
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator

from imgcap.images.metadata.container import (
    Container,
    Edit,
    MetadataError,
    Part,
    bad_packet,
    damaged,
    only_packet,
    splice,
)
from imgcap.images.metadata.texts import decode, exif_texts, iptc_texts, is_by_person, photoshop_texts

LARGEST_COMPRESSED_TEXT = 16 << 20
"""Most bytes that a compressed chunk may unpack to; more counts as a decompression bomb."""

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_XMP_KEYWORD = b"XML:com.adobe.xmp\0"
_RAW_PROFILE = b"Raw profile type "
_TEXT_CHUNKS = (b"tEXt", b"zTXt", b"iTXt")
_KEYWORDS = frozenset(
    {
        "description",
        "comment",
        "caption",
        "imagedescription",
        "usercomment",
        "exif:imagedescription",
        "exif:usercomment",
    }
)
"""Keywords of descriptions in text chunks, in lower case; ImageMagick writes the longer ones."""


def read_png(content: bytes) -> Container:
    """The PNG in `content`. Raises `MetadataError` if it is damaged, or keeps its XMP in an unusual form."""
    found: list[Part] = []
    place = 0  # after the header, before all chunks whose order matters
    others: list[str] = []
    erasures: list[Edit] = []
    in_profiles: list[str] = []
    for chunk in _chunks(content):
        place = place or chunk.end
        body = content[chunk.body : chunk.body_end]
        if chunk.kind == b"iTXt" and body.startswith(_XMP_KEYWORD):
            found.append(chunk)
        elif chunk.kind in _TEXT_CHUNKS and body.startswith(_RAW_PROFILE):
            in_profiles += _profile_texts(chunk.kind, body)
        elif chunk.kind in _TEXT_CHUNKS and (text := _description(chunk.kind, body)):
            others.append(text)
            erasures.append((chunk.start, chunk.end, b""))
        elif chunk.kind == b"eXIf" and (texts := exif_texts(body)):
            others += (each.text for each in texts)
            erased = b"".join(splice(body, (each.edit for each in texts)))
            erasures.append((chunk.start, chunk.end, _chunk(chunk.kind, erased)))
    old = only_packet(found) or Part(b"iTXt", place, place, place, place)

    def edits(packet: bytes) -> list[Edit]:
        if in_profiles:
            raise MetadataError(
                "keeps its description in a raw profile, a form that imgcap does not change.",
                "Rewrite it with a metadata editor, such as exiftool.",
            )
        new = _chunk(b"iTXt", _XMP_KEYWORD + bytes(4) + packet)  # not compressed, no language, no translated keyword
        return [(place, place, new), (old.start, old.end, b""), *erasures]

    packet = _international_text(content[old.body + len(_XMP_KEYWORD) : old.body_end])
    return Container(content, packet, edits, others=(*others, *in_profiles))


def _description(kind: bytes, body: bytes) -> str | None:
    """A person's description in a text chunk."""
    keyword, _, rest = body.partition(b"\0")
    if keyword.decode("latin-1").strip().lower() not in _KEYWORDS:
        return None
    data = _text(kind, rest)
    text = decode(data) if data is not None else ""
    return text if is_by_person(text) else None


def _profile_texts(kind: bytes, body: bytes) -> list[str]:
    """Descriptions in a profile that ImageMagick wrote in hexadecimal digits. Raises `MetadataError` if it is XMP."""
    keyword, _, rest = body.partition(b"\0")
    name = keyword.removeprefix(_RAW_PROFILE).lower()
    if name == b"xmp":
        raise MetadataError(
            "keeps its XMP in a raw profile, a form that imgcap does not change.",
            "Rewrite it with a metadata editor, such as exiftool.",
        )
    try:
        data = bytes.fromhex("".join((_text(kind, rest) or b"").decode("latin-1").split()[2:]))  # after name and length
    except ValueError:
        return []
    if name in (b"exif", b"app1"):
        texts = exif_texts(data.removeprefix(b"Exif\0\0"))
    elif name in (b"iptc", b"8bim"):
        texts = photoshop_texts(data.removeprefix(b"Photoshop 3.0\0")) or iptc_texts(data)
    else:
        return []
    return [each.text for each in texts if is_by_person(each.text)]


def _text(kind: bytes, rest: bytes) -> bytes | None:
    """The text of a text chunk after its keyword; None if it cannot be unpacked."""
    if kind == b"zTXt":
        return _unpacked(rest[1:])
    if kind == b"tEXt":
        return rest
    text = rest[2:].split(b"\0", 2)[-1]
    return _unpacked(text) if rest[:1] == b"\1" else text


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
    text = _text(b"iTXt", body)
    if text is None or (body[:1] == b"\1" and body[1:2] != b"\0"):
        raise bad_packet("it cannot be unpacked")
    return text


def _unpacked(data: bytes) -> bytes | None:
    """Inflated `data`; None if it is damaged, or larger than `LARGEST_COMPRESSED_TEXT`."""
    inflate = zlib.decompressobj()
    try:
        text = inflate.decompress(data, LARGEST_COMPRESSED_TEXT)
    except zlib.error:
        return None
    return text if inflate.eof else None
